-- Hands out what is due.
--
-- KEYS[9] k  string of the subscription: the id of its last claim, its fence, and (length 2, member)* of what it took. Kept for a minute at
--            most, so that a claim whose answer was lost can be made again under its id: what it took is then given back first.
-- ARGV[4] the claim's id, 16 bytes
-- ARGV[5] at most this many tasks; with 0, all this does is to give back what the claim of this id took
-- ARGV[6] at most this many bytes of payload
-- ARGV[7] the lease in us
-- ARGV[8] 1 if the first task may be larger than that
--
-- Answers now in us, the fence, the lease's end in ms, the head of the index in ms or -1, how many were dead-lettered, how many were set
-- aside; and for each task: member, place in ms, attempt, record, body or nil.

local LOOK_MAX = 2000

local last = call('GET', KEYS[9])
-- The first write, allowed on a full server.
call('DEL', KEYS[9])

if last and sub(last, 1, 16) == ARGV[4] then
  local fence, members, ids, at = sub(last, 17, 23), {}, {}, 24
  while at < #last do
    local length = number(last, at, 2)
    members[#members + 1] = sub(last, at + 2, at + 1 + length)
    ids[#ids + 1] = sub(members[#members], 8)
    at = at + 2 + length
  end
  local lives = #ids > 0 and call('HMGET', A, unpack(ids)) or {}
  for i, id in ipairs(ids) do
    local life = life_of(lives[i], sub(members[i], 1, 7))
    if life and leased(life) and sub(life, 9, 15) == fence then
      if cancelled(life) then
        remove(id, sub(life, 2, 8), life)
      else
        wait(id, life, number(life, 20, 6), number(life, 16, 2) - 1)
      end
    end
  end
  flush()
end

local max, bytes_left = tonumber(ARGV[5]), tonumber(ARGV[6])
local ends = math.ceil((NOW_US + ARGV[7]) / 1000)
local looked, buried, stopped = 0, 0, paused
local taken, members, fence_n, fence = {}, {}, 0, nil
local ends_text = string.format('%.0f', ends)
-- The place of the last task that was taken, and its bytes: many have the same.
local last_place, place_bytes

-- Judges one entry of the index, and takes it if it is to be delivered; false ends the claim.
local function meet(member, place, rec, life)
  local id, seq = sub(member, 8), sub(member, 1, 7)
  local size, allowed, expires, tail, length = #member, nil, nil, nil, nil
  if rec then allowed, expires, tail, length = parse(rec) end
  if size < 9 or not allowed or sub(rec, 2, 8) ~= seq then
    aside[#aside + 1] = sub(member .. (rec or ''), 1, 65536)
    rem_v[#rem_v + 1] = member
    if rec and not allowed then
      rem_t[#rem_t + 1] = id
      rem_a[#rem_a + 1] = id
    end
    return true
  end
  life = life_of(life, seq)
  local attempt = life and number(life, 16, 2) or 0
  if life and cancelled(life) then
    remove(id, seq, life)
    return true
  end
  local cause = (expires and expires < NOW_MS and 2) or (attempt >= allowed and 1)
  if cause then
    local due = place
    if life and leased(life) then due = number(life, 20, 6) end
    bury(id, seq, life, rec, cause, due)
    buried = buried + 1
    return true
  end
  if length > bytes_left and (#members > 0 or ARGV[8] ~= '1') then return false end
  local body = false
  local flags = byte(rec)
  if flags % 8 >= 4 then
    body = call('HGET', P, sub(tail, 1, 7))
    if not body then
      aside[#aside + 1] = sub(member .. rec, 1, 65536)
      remove(id, seq, life, rec)
      return true
    end
  end
  bytes_left = bytes_left - length
  if not fence then
    fence_n = take()
    fence = pack('>I7', fence_n)
  end
  if place ~= last_place then
    last_place, place_bytes = place, pack('>I6', place)
  end
  local made
  if flags == 64 and not life and allowed == 20 then
    made = 'A' .. seq .. fence .. '\0\1\0\20' .. place_bytes
  else
    local failure = life and sub(life, failure_at(life)) or ''
    made = char(65 + flags % 16 - flags % 4) .. seq .. fence .. pack('>I2I2', attempt + 1, allowed) .. place_bytes .. tail .. failure
  end
  local w = #set_a
  set_a[w + 1], set_a[w + 2] = id, made
  add_v[w + 1], add_v[w + 2] = ends_text, member
  members[#members + 1] = member
  local n = #taken
  taken[n + 1], taken[n + 2], taken[n + 3], taken[n + 4], taken[n + 5] = member, place, attempt + 1, rec, body
  return true
end

while not stopped and #members < max and looked < LOOK_MAX do
  -- Nothing has been written yet of what was met, so it is still in front.
  local page = call('ZRANGEBYSCORE', V, '-inf', NOW_MS, 'WITHSCORES', 'LIMIT', looked, math.min(max - #members, 1000))
  if #page == 0 then break end
  local ids = {}
  for i = 1, #page, 2 do ids[#ids + 1] = sub(page[i], 8) end
  local recs, lives = call('HMGET', T, unpack(ids)), call('HMGET', A, unpack(ids))
  for i = 1, #ids do
    if not meet(page[i * 2 - 1], tonumber(page[i * 2]), recs[i], lives[i]) then
      stopped = true
      break
    end
  end
  looked = looked + #ids
end

local set_aside = #aside
flush()
if #members > 0 then
  local note = { ARGV[4], fence }
  for i, member in ipairs(members) do
    note[i * 2 + 1] = char(math.floor(#member / 256), #member % 256)
    note[i * 2 + 2] = member
  end
  call('SET', KEYS[9], table.concat(note), 'PX', math.max(1, math.min(math.ceil(ARGV[7] / 1000), 60000)))
end
local next_ms = -1
if not paused then
  local first = call('ZRANGE', V, 0, 0, 'WITHSCORES')[2]
  if first then next_ms = tonumber(first) end
end
finish()

local answer = { NOW_US, fence_n, ends, next_ms, buried, set_aside }
for i = 1, #taken do answer[6 + i] = taken[i] end
return answer
