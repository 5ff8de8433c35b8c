-- Ends leases.
--
-- from ARGV[4] on, for each lease:
--   1 disposition (1 byte) + fence (7 bytes): c complete, r retry, s snooze, b dead-letter, l release, x quarantine what can't be read
--   2 id
--   then for r: the delay in us, or -1 for one out of range; the reason
--        for s: the delay
--        for b and x: the reason
--
-- Answers now in us, and a string with a character for each lease: 0 done, 1 lease lost, 2 out of range.

local items, ids, at = {}, {}, 4
while ARGV[at] do
  local verdict = sub(ARGV[at], 1, 1)
  local item = { verdict = verdict, fence = sub(ARGV[at], 2), id = ARGV[at + 1] }
  at = at + 2
  if verdict == 'r' or verdict == 's' then
    item.delay = tonumber(ARGV[at])
    at = at + 1
  end
  if verdict == 'r' or verdict == 'b' or verdict == 'x' then
    item.reason = ARGV[at]
    at = at + 1
  end
  items[#items + 1] = item
  ids[#ids + 1] = item.id
end

local lives = call('HMGET', A, unpack(ids))
call('HLEN', T)
-- The first write, allowed on a full server.
call('HDEL', M, '')

-- Leases that this call has ended.
local ended = {}

local function settle(item, life)
  local id = item.id
  if not life or #life < 25 or not leased(life) or sub(life, 9, 15) ~= item.fence or ended[id] then return '1' end
  local verdict, seq = item.verdict, sub(life, 2, 8)
  if verdict == 'c' or cancelled(life) then
    remove(id, seq, life)
  elseif verdict == 'l' then
    wait(id, life, number(life, 20, 6), number(life, 16, 2) - 1)
  elseif verdict == 's' then
    if item.delay < 0 then return '2' end
    wait(id, life, after(NOW_US, item.delay), number(life, 16, 2) - 1)
  elseif verdict == 'r' and number(life, 16, 2) < number(life, 18, 2) then
    if item.delay < 0 then return '2' end
    wait(id, life, after(NOW_US, item.delay), number(life, 16, 2), item.reason ~= '' and item.reason or nil)
  else
    if verdict == 'r' and item.delay < 0 then return '2' end
    local rec = call('HGET', T, id)
    if verdict == 'x' or not rec then
      aside[#aside + 1] = sub(seq .. id .. (rec or ''), 1, 65536)
      remove(id, seq, life)
    else
      local reason = item.reason
      if verdict == 'r' and reason == '' then reason = nil end
      bury(id, seq, life, rec, verdict == 'r' and 1 or 3, number(life, 20, 6), reason)
    end
  end
  ended[id] = true
  return '0'
end

local answers = {}
for i, item in ipairs(items) do answers[i] = settle(item, lives[i]) end
finish()
return { NOW_US, table.concat(answers) }
