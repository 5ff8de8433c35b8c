-- Accepts tasks.
--
-- ARGV[4] the instant of acceptance in us, 0 for now: the later pieces of one call have the instant of its first
-- ARGV[5] the farthest a due time may lie ahead, in ms
-- ARGV[6] 1 if an id may stand there twice
-- then for each task:
--   1 K keep, R replace, or N for an id that was made for this call; the record's flags (1 byte); id
--   2 due time, and after a space the expiry, as `place_of` reads them
--   3 what follows the seq in its record, without expiry and number in p
--   4 only with `apart` in the flags: headers and payload
--
-- Answers now in us, and for each task three numbers: outcome (0 created, 1 existing, 2 replaced, 3 out of range, 4 expires before
-- it is due, 5 full), seq, ms of its place.

local NEW, REPLACE = 78, 82
local since = tonumber(ARGV[4])
if since == 0 then since = NOW_US end
local farthest = after(NOW_US, ARGV[5] * 1000)

-- The first argument of each task, its id, and the ids that may be in use.
local starts, ids, asked, asked_at, at = {}, {}, {}, {}, 7
while true do
  local first = ARGV[at]
  if not first then break end
  local kind, flags = byte(first, 1, 2)
  local n = #ids + 1
  starts[n] = at
  ids[n] = sub(first, 3)
  if kind ~= NEW then
    asked[#asked + 1] = ids[n]
    asked_at[#asked_at + 1] = n
  end
  at = at + (flags % 8 >= 4 and 4 or 3)
end
local there = {}
if #asked > 0 then
  local found = call('HMGET', T, unpack(asked))
  for i, n in ipairs(asked_at) do there[n] = found[i] end
end

local outcomes, seqs, places = {}, {}, {}
-- What is to be written: for new tasks, and for those that take the place of another. A full server refuses the first.
local fresh = { t = {}, v = {}, p = {}, g = {}, of = {} }
local full = false
local instead = { t = {}, v = {}, p = {}, g = {}, of = {} }

local function store(batch)
  each('ZADD', V, batch.v)
  each('HSET', P, batch.p)
  each('ZADD', G, batch.g)
  batch.t, batch.v, batch.p, batch.g, batch.of = {}, {}, {}, {}, {}
end

-- Writes what was accepted so far; an error is a key of another type, and then nothing was done.
local function write()
  see_head()
  if #fresh.p + #instead.p > 0 then call('HLEN', P) end
  if #fresh.g + #instead.g > 0 then call('ZCARD', G) end
  if #fresh.t > 0 then
    local done = full or redis.pcall('HSET', T, unpack(fresh.t))
    if type(done) == 'table' and done.err then
      if not string.find(done.err, 'OOM', 1, true) then error(done.err) end
      -- What comes behind is refused too: after another write the server would let it in.
      full = done
      for _, i in ipairs(fresh.of) do outcomes[i] = 5 end
      fresh = { t = {}, v = {}, p = {}, g = {}, of = {} }
      -- The others may be written; there may be none.
      call('HDEL', M, '')
      removed = true
    else
      store(fresh)
    end
  end
  flush()
  if #instead.t > 0 then
    each('HSET', T, instead.t)
    store(instead)
  end
end

-- The high six bytes of the seqs that are being given, which rarely change.
local high, high_bytes = -1, ''
local last_due, last_place

local function accept(i, id, place, expires, batch)
  local n = counter + 1
  if n < NOW_US then n = NOW_US end
  counter, counted = n, true
  local low = n % 256
  if (n - low) / 256 ~= high then
    high = (n - low) / 256
    high_bytes = pack('>I6', high)
  end
  local seq = high_bytes .. char(low)
  local start = starts[i]
  local flags, rest = byte(ARGV[start], 2), ARGV[start + 2]
  local member = seq .. id
  local t, v = batch.t, batch.v
  local rec
  if flags == 64 then
    rec = '@' .. seq .. rest
  else
    local from = flags % 2 >= 1 and 3 or 1
    rec = char(flags) .. seq .. sub(rest, 1, from - 1) .. (expires and pack('>I6', expires) or '')
    if flags % 8 >= 4 then
      rec = rec .. seq
      batch.p[#batch.p + 1] = seq
      batch.p[#batch.p + 1] = ARGV[start + 3]
      if flags % 16 >= 8 then from = from + 4 end
    end
    if flags % 16 >= 8 then
      batch.g[#batch.g + 1] = 0
      batch.g[#batch.g + 1] = sub(rest, from + 1, from + byte(rest, from)) .. '\0' .. member
    end
    rec = rec .. sub(rest, flags % 2 >= 1 and 3 or 1)
  end
  local w = #t
  t[w + 1], t[w + 2] = id, rec
  v[w + 1], v[w + 2] = place, member
  batch.of[#batch.of + 1] = i
  seqs[i], places[i] = n, place
  if not least or place < least then least = place end
end

local function judge(i, id, rec)
  local start = starts[i]
  local due, expires, place = ARGV[start + 1], false, nil
  if byte(ARGV[start], 2) % 4 >= 2 then
    local space = string.find(due, ' ', 1, true)
    expires = place_of(sub(due, space + 1), since)
    due = sub(due, 1, space - 1)
  end
  if due == last_due then
    place = last_place
  else
    place = place_of(due, since)
    last_due, last_place = due, place
  end
  if place > farthest or (expires and expires > farthest) then return 3 end
  if expires and expires < place then return 4 end
  if not rec then
    accept(i, id, place, expires, fresh)
    return 0
  end
  local seq = sub(rec, 2, 8)
  local score = call('ZSCORE', V, seq .. id)
  local life = life_of(call('HGET', A, id), seq)
  local outcome = 0
  if not score then
    -- Nothing leads to it, so it would keep its id for ever.
    aside[#aside + 1] = sub(id .. rec, 1, 65536)
  elseif not (life and cancelled(life)) then
    if byte(ARGV[start]) ~= REPLACE then
      seqs[i], places[i] = number(seq, 1, 7), tonumber(score)
      -- Of one in flight, when it was due.
      if life and leased(life) then places[i] = number(life, 20, 6) end
      return 1
    end
    outcome = 2
  end
  remove(id, seq, life, rec)
  accept(i, id, place, expires, instead)
  return outcome
end

local twice = ARGV[6] == '1' and {}
for i = 1, #ids do
  local id = ids[i]
  local rec = there[i]
  if twice then
    if twice[id] then
      write()
      rec = call('HGET', T, id)
    end
    twice[id] = true
  end
  outcomes[i] = judge(i, id, rec)
end
write()
finish()

local answer = { NOW_US }
for i = 1, #ids do
  local w = i * 3
  answer[w - 1], answer[w], answer[w + 1] = outcomes[i], seqs[i] or 0, places[i] or 0
end
return answer
