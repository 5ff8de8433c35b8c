-- Accepts tasks.
--
-- ARGV[4] the instant of acceptance in us, 0 for now: the later pieces of one call have the instant of its first
-- ARGV[5] the farthest a due time may lie ahead, in ms
-- then for each task:
--   1 replace (0 or 1, one byte) + id
--   2 due time, and after a space the expiry, as `place_of` reads them
--   3 its record without seq, expiry and number in p
--   4 only with `apart` in the record's flags: headers and payload
--
-- Answers now in us, and for each task three numbers: outcome (0 created, 1 existing, 2 replaced, 3 out of range, 4 expires before
-- it is due, 5 full), seq, ms of its place.

local since = tonumber(ARGV[4])
if since == 0 then since = NOW_US end
local farthest = after(NOW_US, ARGV[5] * 1000)

local ids, tasks, at = {}, {}, 6
while ARGV[at] do
  local rec = ARGV[at + 2]
  local apart = byte(rec) % 8 >= 4
  ids[#ids + 1] = sub(ARGV[at], 2)
  tasks[#tasks + 1] = { replace = byte(ARGV[at]) == 49, due = ARGV[at + 1], rec = rec, body = apart and ARGV[at + 3] }
  at = at + (apart and 4 or 3)
end

-- The record of a task, given its seq and expiry.
local function record(rec, seq, expires)
  local flags = byte(rec)
  if flags == 64 then return '@' .. seq .. sub(rec, 2) end
  local from = flags % 2 >= 1 and 4 or 2
  local made = sub(rec, 1, 1) .. seq .. sub(rec, 2, from - 1)
  if expires then made = made .. pack('>I6', expires) end
  if flags % 8 >= 4 then made = made .. seq end
  return made .. sub(rec, from)
end

-- The task of this call that has an id now.
local mine = {}
local present = call('HMGET', T, unpack(ids))
-- The keys that are written below, so that one of another type is found before anything is.
call('HGET', P, '')
call('ZCARD', G)

local function judge(task, id, there)
  local due, expires = task.due, false
  local space = string.find(due, ' ', 1, true)
  if space then
    expires = place_of(sub(due, space + 1), since)
    due = sub(due, 1, space - 1)
  end
  local place = place_of(due, since)
  if place > farthest or (expires and expires > farthest) then return 3 end
  if expires and expires < place then return 4 end
  local outcome = 0
  local earlier = mine[id]
  if earlier then
    if not task.replace then
      task.twin = earlier
      return 1
    end
    earlier.gone = true
    -- In a full store a replacement is let in, and what is new is not.
    outcome, task.replaces = 2, earlier.replaces
  elseif there and #there >= 8 then
    local seq = sub(there, 2, 8)
    local score = call('ZSCORE', V, seq .. id)
    local life = life_of(call('HGET', A, id), seq)
    if not score then
      -- Nothing leads to it, so it would keep its id for ever.
      aside[#aside + 1] = sub(id .. there, 1, 65536)
      remove(id, seq, life, there)
      task.replaces = true
    elseif life and cancelled(life) then
      remove(id, seq, life, there)
      task.replaces = true
    elseif not task.replace then
      task.seq, task.place = number(seq, 1, 7), tonumber(score)
      -- Of one in flight, when it was due.
      if life and leased(life) then task.place = number(life, 20, 6) end
      return 1
    else
      remove(id, seq, life, there)
      outcome, task.replaces = 2, true
    end
  end
  local n = take()
  local seq = pack('>I7', n)
  task.seq, task.place, task.member = n, place, seq .. id
  task.made = record(task.rec, seq, expires)
  task.key = seq
  mine[id] = task
  return outcome
end

for i, task in ipairs(tasks) do task.outcome = judge(task, ids[i], present[i]) end

-- Writes what was accepted; `replaces` tells which half.
local function write(replaces)
  local set_t, set_p, add_g, places = {}, {}, {}, {}
  local min
  for i, task in ipairs(tasks) do
    if task.member and not task.gone and (task.replaces or false) == replaces then
      set_t[#set_t + 1] = ids[i]
      set_t[#set_t + 1] = task.made
      places[#places + 1] = task.place
      places[#places + 1] = task.member
      if not min or task.place < min then min = task.place end
      local flags = byte(task.made)
      if flags % 8 >= 4 then
        set_p[#set_p + 1] = task.key
        set_p[#set_p + 1] = task.body
      end
      if flags % 16 >= 8 then
        local _, _, tail = parse(task.made)
        local from = flags % 8 >= 4 and 12 or 1
        add_g[#add_g + 1] = 0
        add_g[#add_g + 1] = sub(tail, from + 1) .. '\0' .. task.member
      end
    end
  end
  if #set_t == 0 then return end
  if not replaces then
    -- The first write: a full server refuses it, and then nothing was done.
    local done = redis.pcall('HSET', T, unpack(set_t))
    if type(done) == 'table' and done.err then
      if not string.find(done.err, 'OOM', 1, true) then return done end
      for _, task in ipairs(tasks) do
        if task.member and not task.replaces then task.outcome, task.full = 5, true end
      end
      -- The others may be written.
      call('HDEL', M, '')
      return
    end
  else
    each('HSET', T, set_t)
  end
  each('ZADD', V, places)
  each('HSET', P, set_p)
  each('ZADD', G, add_g)
  if not least or min < least then least = min end
end

local failed = write(false)
if failed then return failed end
flush()
write(true)
finish()

local answer = { NOW_US }
for i, task in ipairs(tasks) do
  local of = task.twin or task
  answer[i * 3 - 1] = of.full and 5 or task.outcome
  answer[i * 3] = of.seq or 0
  answer[i * 3 + 1] = of.place or 0
end
return answer
