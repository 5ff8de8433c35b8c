-- What the scripts share; put in front of each of them when the library is built.
--
-- A script works on one shard of one queue and is given all its keys, which share one hash tag:
-- KEYS[1] v  sorted set, the one index: score = the ms at which a task is next visible (due, retry or lease end),
--            member = seq (7 bytes) + id, so that ties go by sequence. A lease is just a later score.
-- KEYS[2] t  hash, id -> record: what was scheduled.
-- KEYS[3] a  hash, id -> life: what became of it, only of tasks that were claimed.
-- KEYS[4] g  sorted set, all scores 0, member = group + NUL + seq + id: the members of each group by sequence.
-- KEYS[5] m  hash, the queue itself: c = the last number given, n = its layout (format . shards), paused, set_aside, dead_dropped. Gone when
--            there is nothing else and the queue is not paused.
-- KEYS[6] d  sorted set, the dead letters: score = number of the burial, member = letter.
-- KEYS[7] x  list, what was quarantined because nothing of ours wrote it.
-- KEYS[8] p  hash, number -> headers and payload that are too large to lie in their record.
--
-- ARGV[1] the channel that wakes sleepers, ARGV[2] the layout that the client counts on, ARGV[3] the most dead letters kept.
--
-- All integers are big endian. Numbers (seq, fence, burials) come from one counter of at least the clock's microseconds, so
-- that they also rise when the queue was empty and forgotten in between; 7 bytes last until the year 4253.
--
-- record: flags 1 = 0x40 + 1 attempts + 2 expires + 4 apart + 8 group + 16 headers; seq 7; attempts allowed 2 (20 without);
--         expires 6, in ms; apart: its number in p 7, payload's length 4; group: length 1, name; headers: length 2, (name's
--         length 1, name, value's length 2, value)*; payload. With `apart`, headers and payload lie in p.
-- life:   flags 1 = 0x40 + 1 leased + 2 cancelled + 4 apart + 8 group; seq 7; fence 7; attempts so far 2; attempts allowed 2;
--         place before the claim 6, in ms; apart and group as in the record; the last failure's text.
-- letter: number 7; cause 1 (1 attempts used up, 2 expired, 3 dead-lettered); attempts 2; dead-lettered at 6 and due 6, in ms; id's length 2,
--         id; reason's length 2, reason; record.
-- id:     'u' + the 16 bytes of a UUID, or 'k' + text.
--
-- The first write of each script that only delivers, ends or removes is one that a full server allows, and then it allows the
-- rest too: a full queue can be emptied.

local V, T, A, G, M, D, X, P = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local call, byte, sub, char, pack = redis.call, string.byte, string.sub, string.char, struct.pack

local time = call('TIME')
local NOW_US = time[1] * 1000000 + time[2]
local NOW_MS = math.floor(NOW_US / 1000)

-- What is to be written, put together so that each command runs once for all tasks.
local rem_v, rem_t, rem_a, rem_g, rem_p, rem_d = {}, {}, {}, {}, {}, {}
local add_v, set_a, add_d, aside = {}, {}, {}, {}
-- The earliest place that a task was put at.
local least

local meta = call('HMGET', M, 'c', 'n', 'paused')
local counter, paused = tonumber(meta[1] or 0), meta[3] ~= false
local counted = false
-- Whether something left the index, so that the queue may be empty now.
local removed = false
-- The head of the index before a task was put anywhere: nil if not looked at, false if there was none.
local head

local function number(text, at, bytes)
  local n = 0
  for i = at, at + bytes - 1 do n = n * 256 + byte(text, i) end
  return n
end

-- The next number of the counter.
local function take()
  counter = math.max(counter + 1, NOW_US)
  counted = true
  return counter
end

-- When `us` from an instant has passed, in ms rounded up; nothing at all is at once.
local function after(from_us, us)
  if us == 0 then return math.floor(from_us / 1000) end
  return math.ceil((from_us + us) / 1000)
end

-- A due time as the client writes it: microseconds from `from_us`, or '@' and milliseconds.
local function place_of(text, from_us)
  if byte(text) == 64 then return tonumber(sub(text, 2)) end
  return after(from_us, tonumber(text))
end

-- Of a record: attempts allowed, expiry or false, the bytes of apart and group, the payload's length, where the expiry would
-- stand. Nothing if it is not one of ours.
local function parse(rec)
  local flags, size = byte(rec), #rec
  if flags == 64 and size >= 8 then return 20, false, '', size - 8, 9 end
  if size < 8 or flags < 64 or flags > 95 then return end
  local at, max, expires, length = 9, 20, false, nil
  if flags % 2 >= 1 then
    if size < 10 then return end
    max, at = number(rec, 9, 2), 11
  end
  local expiry = at
  if flags % 4 >= 2 then
    if size < at + 5 then return end
    expires, at = number(rec, at, 6), at + 6
  end
  local from = at
  if flags % 8 >= 4 then
    if size < at + 10 then return end
    length, at = number(rec, at + 7, 4), at + 11
  end
  if flags % 16 >= 8 then
    if size < at then return end
    at = at + 1 + byte(rec, at)
  end
  local tail = sub(rec, from, at - 1)
  if not length then
    if flags >= 80 then
      if size < at + 1 then return end
      at = at + 2 + number(rec, at, 2)
    end
    length = size - at + 1
  end
  if size < at - 1 then return end
  return max, expires, tail, length, expiry
end

-- The life of a task, if it is the one with this seq.
local function life_of(life, seq)
  if life and #life >= 25 and sub(life, 2, 8) == seq then return life end
end

local function leased(life) return byte(life) % 2 >= 1 end
local function cancelled(life) return byte(life) % 4 >= 2 end

-- Where the last failure begins in a life.
local function failure_at(life)
  local flags, at = byte(life), 26
  if flags % 8 >= 4 then at = at + 11 end
  if flags % 16 >= 8 then at = at + 1 + (byte(life, at) or 0) end
  return at
end

-- The flags and the bytes of apart and group, of a life or as `parse` gives them: the task's body and membership end.
local function release(id, seq, flags, tail, keep_body)
  local at = 1
  if flags % 8 >= 4 then
    if not keep_body then rem_p[#rem_p + 1] = sub(tail, 1, 7) end
    at = 12
  end
  if flags % 16 >= 8 then
    rem_g[#rem_g + 1] = sub(tail, at + 1, at + (byte(tail, at) or 0)) .. '\0' .. seq .. id
  end
end

-- A task ends. `from` is its life or, where it has none, its record.
local function remove(id, seq, life, rec, keep_body)
  rem_v[#rem_v + 1] = seq .. id
  rem_t[#rem_t + 1] = id
  if life then
    rem_a[#rem_a + 1] = id
    release(id, seq, byte(life), sub(life, 26, failure_at(life) - 1), keep_body)
  else
    local _, _, tail = parse(rec)
    if tail then release(id, seq, byte(rec), tail, keep_body) end
  end
end

-- A task becomes a dead letter, with its body where it lies.
local function bury(id, seq, life, rec, cause, due, reason)
  local n = take()
  reason = reason or (life and sub(life, failure_at(life))) or ''
  local attempts = life and sub(life, 16, 17) or '\0\0'
  add_d[#add_d + 1] = n
  add_d[#add_d + 1] = pack('>I7', n) .. char(cause) .. attempts .. pack('>I6I6I2', NOW_MS, due, #id) .. id
    .. pack('>I2', #reason) .. reason .. rec
  remove(id, seq, life, rec, true)
end

local function put(member, place)
  add_v[#add_v + 1] = place
  add_v[#add_v + 1] = member
  if not least or place < least then least = place end
end

-- A lease ends and its task waits again. `attempts` is how many are counted now.
local function wait(id, life, place, attempts, failure)
  local at = failure_at(life)
  failure = failure or sub(life, at)
  if attempts == 0 and failure == '' then
    rem_a[#rem_a + 1] = id
  else
    set_a[#set_a + 1] = id
    set_a[#set_a + 1] = char(byte(life) - 1) .. sub(life, 2, 15) .. pack('>I2', attempts) .. sub(life, 18, at - 1) .. failure
  end
  put(sub(life, 2, 8) .. id, place)
end

local function each(command, key, list)
  for i = 1, #list, 4000 do call(command, key, unpack(list, i, math.min(i + 3999, #list))) end
end

-- Looks at the head of the index, before the first task is put anywhere.
local function see_head()
  if head == nil then
    head = call('ZRANGE', V, 0, 0, 'WITHSCORES')[2]
    head = head and tonumber(head) or false
  end
end

-- Writes everything that was put together, what takes no memory first.
local function flush()
  -- A key of another type is found here, before anything is written.
  if #rem_g > 0 then call('ZCARD', G) end
  if #rem_p > 0 then call('HLEN', P) end
  if #add_d > 0 then call('ZCARD', D) end
  if #aside > 0 then call('LLEN', X) end
  if least then see_head() end
  removed = removed or #rem_v > 0
  each('ZREM', V, rem_v)
  each('HDEL', T, rem_t)
  each('HDEL', A, rem_a)
  each('ZREM', G, rem_g)
  each('ZADD', V, add_v)
  each('HSET', A, set_a)
  if #add_d > 0 then
    each('ZADD', D, add_d)
    local over = math.min(call('ZCARD', D) - tonumber(ARGV[3]), 1000)
    if over > 0 then
      local dropped = call('ZPOPMIN', D, over)
      for i = 1, #dropped, 2 do rem_d[#rem_d + 1] = dropped[i] end
      call('HINCRBY', M, 'dead_dropped', over)
    end
  end
  -- The bodies of letters that are dropped.
  for i = 1, #rem_d do
    local letter = rem_d[i]
    local at = 25 + number(letter, 23, 2)
    local rec = sub(letter, at + 2 + number(letter, at, 2))
    local _, _, tail = parse(rec)
    if tail and byte(rec) % 8 >= 4 then rem_p[#rem_p + 1] = sub(tail, 1, 7) end
  end
  each('HDEL', P, rem_p)
  if #aside > 0 then
    each('RPUSH', X, aside)
    call('LTRIM', X, -1000, -1)
    call('HINCRBY', M, 'set_aside', #aside)
  end
  rem_v, rem_t, rem_a, rem_g, rem_p, rem_d = {}, {}, {}, {}, {}, {}
  add_v, set_a, add_d, aside = {}, {}, {}, {}
end

-- The end of every script that writes: the counter is kept, sleepers are woken if the head came earlier than they can know, and
-- a queue that holds nothing is forgotten.
local function finish()
  flush()
  if removed and not paused and call('EXISTS', V, D, X) == 0 then
    call('DEL', M)
  elseif counted then
    if meta[2] then call('HSET', M, 'c', counter) else call('HSET', M, 'c', counter, 'n', ARGV[2]) end
  end
  if least and (not head or least < head) then call('PUBLISH', ARGV[1], '') end
end

if meta[2] and meta[2] ~= ARGV[2] then return { 'layout', meta[2] } end
