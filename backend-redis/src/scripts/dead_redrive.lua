-- Schedules dead letters again.
--
-- ARGV[4] the instant from which they are staggered, in us, 0 for now
-- ARGV[5] the distance between two in us
-- ARGV[6] how many were redriven before: those that are kept take no turn. Or empty, where shards take turns
-- then the number of each letter, and after it, where shards take turns, its turn
--
-- Answers now in us, the instant, how many were redriven, how many kept because their id is in use or the server is full.

local since, gap, before = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if since == 0 then since = NOW_US end
local redriven, kept = 0, 0
call('ZCARD', G)

local full = false

local function redrive(letter, turn)
  if full then return false end
  local id_ends = 24 + number(letter, 23, 2)
  local id = sub(letter, 25, id_ends)
  local rec = sub(letter, id_ends + 3 + number(letter, id_ends + 1, 2))
  local there = call('HGET', T, id)
  if there then
    local life = life_of(call('HGET', A, id), sub(there, 2, 8))
    if not (life and cancelled(life)) then return false end
    remove(id, sub(there, 2, 8), life, there)
    flush()
  end
  local _, expires, tail, _, expiry = parse(rec)
  see_head()
  local n = take()
  local seq = pack('>I7', n)
  local flags = byte(rec)
  if expires then
    flags = flags - 2
    rec = sub(rec, 1, expiry - 1) .. sub(rec, expiry + 6)
  end
  local done = redis.pcall('HSET', T, id, char(flags) .. seq .. sub(rec, 9))
  if type(done) == 'table' and done.err then
    if not string.find(done.err, 'OOM', 1, true) then error(done.err) end
    -- The counter may still be kept; after that the server would let the others in.
    call('HDEL', M, '')
    full = true
    return false
  end
  local at = (turn or before + redriven) * gap
  put(seq .. id, after(since, math.floor(at)))
  if flags % 16 >= 8 then
    call('ZADD', G, 0, sub(tail, (flags % 8 >= 4 and 12 or 1) + 1) .. '\0' .. seq .. id)
  end
  call('ZREM', D, letter)
  return true
end

for i = 7, #ARGV, before and 1 or 2 do
  local letter = call('ZRANGEBYSCORE', D, ARGV[i], ARGV[i])[1]
  if letter then
    if redrive(letter, not before and tonumber(ARGV[i + 1])) then redriven = redriven + 1 else kept = kept + 1 end
  end
end
finish()
return { NOW_US, since, redriven, kept }
