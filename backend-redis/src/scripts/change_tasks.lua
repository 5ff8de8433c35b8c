-- Changes tasks by their ids.
--
-- ARGV[9] which piece of the call this is: the name of its answers in o
-- then for each task: 1 id, 2 seq (7 bytes) if it must be that very task, else empty
--
-- Answers now in us, and a string with a character for each: 0 changed, 1 in flight, 2 not found, 3 refused.

if DIGEST ~= '' then
  local known = call('HGET', KEYS[9], ARGV[9])
  if known then
    call('PEXPIRE', KEYS[9], ARGV[8])
    return { NOW_US, known }
  end
end
-- The first write, allowed on a full server.
call('HDEL', M, '')

local ids, met, answers = {}, {}, {}
for i = 10, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local recs, lives = call('HMGET', T, unpack(ids)), call('HMGET', A, unpack(ids))
for i, id in ipairs(ids) do
  local rec, life, seq = recs[i], lives[i], ARGV[i * 2 + 9]
  if met[id] then
    flush()
    rec, life = call('HGET', T, id), call('HGET', A, id)
  end
  met[id] = true
  local score = rec and #rec >= 8 and call('ZSCORE', V, sub(rec, 2, 8) .. id)
  if not score or (seq ~= '' and seq ~= sub(rec, 2, 8)) then
    answers[i] = '2'
  else
    answers[i] = change(id, rec, life, tonumber(score))
  end
end
local answer = table.concat(answers)
if DIGEST ~= '' then
  call('HSET', KEYS[9], 'digest', DIGEST, ARGV[9], answer)
  call('PEXPIRE', KEYS[9], ARGV[8])
end
finish()
return { NOW_US, answer }
