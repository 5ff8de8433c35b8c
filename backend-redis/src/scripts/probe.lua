-- Tries every command that the other scripts use, in a form that has no effect, and tells which ones were refused.
--
-- KEYS[1]  a key of ours that nothing else uses; it is gone afterwards
-- ARGV     the commands, one after the other: the number of words, then the words; `@` stands for KEYS[1]
--
-- Answers, for each refused command, its name and what Redis said.

local refused = {}
local at = 1
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local words = {}
  for i = 1, count do
    local word = ARGV[at + i]
    words[i] = word == '@' and KEYS[1] or word
  end
  local answer = redis.pcall(unpack(words))
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = words[1]
    refused[#refused + 1] = answer.err
  end
  at = at + count + 1
end
return refused
