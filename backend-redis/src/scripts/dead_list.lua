-- Shows dead letters, the oldest first.
--
-- ARGV[4] only those after this number
-- ARGV[5] at most this many
-- ARGV[6] at most this many bytes, though always one
--
-- Answers now in us, 1 if there are more; and for each: letter, body or nil.

local limit, bytes_left = tonumber(ARGV[5]), tonumber(ARGV[6])
local page = call('ZRANGEBYSCORE', D, '(' .. ARGV[4], '+inf', 'LIMIT', 0, limit + 1)
local answer = { NOW_US, 0 }
for i, letter in ipairs(page) do
  local at = 25 + number(letter, 23, 2)
  local rec = sub(letter, at + 2 + number(letter, at, 2))
  local _, _, tail = parse(rec)
  local body = tail and byte(rec) % 8 >= 4 and call('HGET', P, sub(tail, 1, 7)) or false
  bytes_left = bytes_left - #letter - (body and #body or 0)
  if i > limit or (bytes_left < 0 and i > 1) then
    answer[2] = 1
    break
  end
  answer[#answer + 1] = letter
  answer[#answer + 1] = body
end
return answer
