-- Makes leases end later.
--
-- ARGV[4] by how much from now, in us
-- then for each lease: 1 fence (7 bytes), 2 id
--
-- Answers now in us, and for each lease two numbers: its end in ms or -1 if it is lost, and 1 if its task was cancelled.

local ends = math.ceil((NOW_US + ARGV[4]) / 1000)
local ids, fences = {}, {}
for i = 5, #ARGV, 2 do
  fences[#fences + 1] = ARGV[i]
  ids[#ids + 1] = ARGV[i + 1]
end

local lives = call('HMGET', A, unpack(ids))
local answer = { NOW_US }
for i, id in ipairs(ids) do
  local life, at = lives[i], -1
  local is_mine = life and #life >= 25 and leased(life) and sub(life, 9, 15) == fences[i]
  if is_mine then
    local member = sub(life, 2, 8) .. id
    at = tonumber(call('ZSCORE', V, member) or -1)
    if at >= 0 and at < ends then
      at = ends
      add_v[#add_v + 1] = ends
      add_v[#add_v + 1] = member
    end
  end
  answer[i * 2] = at
  answer[i * 2 + 1] = is_mine and cancelled(life) and 1 or 0
end
-- The first write, allowed on a full server.
call('HDEL', M, '')
finish()
return answer
