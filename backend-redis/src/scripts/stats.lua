-- Counts tasks, and looks at the next lives, because only they tell who is in flight.
--
-- ARGV[4] the cursor of the look, 0 at the beginning
--
-- Answers now in us, the next cursor (0 when it is through), how many are visible now and later, dead letters, quarantined, dead
-- letters dropped, 1 if paused, ms of the oldest that is due or -1, ms of the next that is not leased or -1; how many are visible
-- later than now and within a second, a minute, an hour, a day, leases included; and of the lives: id, and the ms at which a
-- live lease ends, or 0 for one that was cancelled and has ended.

local function first(from, to, wanted)
  for offset = 0, 4500, 500 do
    local page = call('ZRANGEBYSCORE', V, from, to, 'WITHSCORES', 'LIMIT', offset, 500)
    if #page == 0 then return -1 end
    local ids = {}
    for i = 1, #page, 2 do ids[#ids + 1] = sub(page[i], 8) end
    local lives = call('HMGET', A, unpack(ids))
    for i = 1, #ids do
      local life = life_of(lives[i], sub(page[i * 2 - 1], 1, 7))
      if not life or wanted(life) then return tonumber(page[i * 2]) end
    end
  end
  return -1
end

local oldest = first('-inf', NOW_MS, function(life) return not cancelled(life) end)
local upcoming = first('(' .. NOW_MS, '+inf', function(life) return not leased(life) end)
local visible, later = call('ZCOUNT', V, '-inf', NOW_MS), call('ZCOUNT', V, '(' .. NOW_MS, '+inf')
local numbers = call('HMGET', M, 'set_aside', 'dead_dropped')
local page = call('HSCAN', A, ARGV[4], 'COUNT', 1000)
local answer = {
  NOW_US, tonumber(page[1]), visible, later, call('ZCARD', D), tonumber(numbers[1] or 0), tonumber(numbers[2] or 0),
  paused and 1 or 0, oldest, upcoming,
}
for _, ms in ipairs({ 1000, 60000, 3600000, 86400000 }) do
  answer[#answer + 1] = call('ZCOUNT', V, '(' .. NOW_MS, NOW_MS + ms)
end
for i = 1, #page[2], 2 do
  local id, life = page[2][i], page[2][i + 1]
  if #life >= 25 and leased(life) then
    local score = call('ZSCORE', V, sub(life, 2, 8) .. id)
    local live = score and tonumber(score) > NOW_MS
    if live or (score and cancelled(life)) then
      answer[#answer + 1] = id
      answer[#answer + 1] = live and tonumber(score) or 0
    end
  end
end
return answer
