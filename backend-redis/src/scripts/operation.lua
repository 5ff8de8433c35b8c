-- Notes what an operation id was given to. Alone in its slot, because another queue's change must not have it either.
--
-- KEYS[1]  string: the digest of queue, selection and action
-- ARGV[1]  the digest
-- ARGV[2]  how long it is remembered, in ms
--
-- Answers 1 if it is this change's, 0 if it is another's.

local known = redis.call('GET', KEYS[1])
if known and known ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
