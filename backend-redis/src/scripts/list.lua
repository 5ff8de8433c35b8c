-- Shows a page of tasks by (visible at, sequence).
--
-- ARGV[4] only what comes after this ms, empty for all
-- ARGV[5] and within it after this seq (7 bytes)
-- ARGV[6] at most this many
-- ARGV[7] at most this many bytes of records and bodies, though always one task
--
-- Answers now in us, and for each task: member, place in ms, record, life or nil, body or nil.

-- The first rank whose entry comes after the cursor. Ties go by member, so it can be found by halving.
local from = 0
if ARGV[4] ~= '' then
  local ms = ARGV[4]
  from = call('ZCOUNT', V, '-inf', '(' .. ms)
  local to = from + call('ZCOUNT', V, ms, ms)
  while from < to do
    local middle = math.floor((from + to) / 2)
    if sub(call('ZRANGE', V, middle, middle)[1], 1, 7) > ARGV[5] then to = middle else from = middle + 1 end
  end
end

local limit, bytes_left, n = tonumber(ARGV[6]), tonumber(ARGV[7]), 0
local answer = { NOW_US }

local function show(member, place, rec, life)
  local seq = sub(member, 1, 7)
  local allowed, _, tail = nil, nil, nil
  if rec then allowed, _, tail = parse(rec) end
  if not allowed or sub(rec, 2, 8) ~= seq then return true end
  life = life_of(life, seq)
  if life and cancelled(life) and place <= NOW_MS then return true end
  local body = byte(rec) % 8 >= 4 and call('HGET', P, sub(tail, 1, 7)) or false
  bytes_left = bytes_left - #rec - (body and #body or 0)
  if bytes_left < 0 and n > 0 then return false end
  local at = #answer
  answer[at + 1], answer[at + 2], answer[at + 3], answer[at + 4], answer[at + 5] = member, place, rec, life or false, body
  n = n + 1
  return true
end

local going = limit > 0
while going and n < limit do
  local page = call('ZRANGE', V, from, from + math.min(limit - n, 200) - 1, 'WITHSCORES')
  if #page == 0 then break end
  local ids = {}
  for i = 1, #page, 2 do ids[#ids + 1] = sub(page[i], 8) end
  local recs, lives = call('HMGET', T, unpack(ids)), call('HMGET', A, unpack(ids))
  for i = 1, #ids do
    going = show(page[i * 2 - 1], tonumber(page[i * 2]), recs[i], lives[i])
    if not going then break end
  end
  from = from + #ids
end
return answer
