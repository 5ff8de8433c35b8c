-- Names dead letters, the oldest first, for a redrive or a purge.
--
-- ARGV[4] only those after this number
-- ARGV[5] and up to this one, 0 for all that are dead-lettered now
-- ARGV[6] at most this many
--
-- Answers now in us, the last number that counts, how many letters there are; and for each: number, id.

local last = ARGV[5]
if last == '0' then last = string.format('%.0f', math.max(counter, NOW_US)) end
local page = call('ZRANGEBYSCORE', D, '(' .. ARGV[4], last, 'LIMIT', 0, tonumber(ARGV[6]))
local answer = { NOW_US, tonumber(last), call('ZCARD', D) }
for _, letter in ipairs(page) do
  answer[#answer + 1] = number(letter, 1, 7)
  answer[#answer + 1] = sub(letter, 25, 24 + number(letter, 23, 2))
end
return answer
