-- Tells the type of each key, to name one that something else has written.

local types = {}
for i, key in ipairs(KEYS) do types[i] = redis.call('TYPE', key)['ok'] end
return types
