-- Shows one task.
--
-- ARGV[4] id
--
-- Answers now in us, and if it is there: member, place in ms, record, life or nil, body or nil.

local id = ARGV[4]
local rec = call('HGET', T, id)
if not rec or #rec < 8 then return { NOW_US } end
local seq = sub(rec, 2, 8)
local score = call('ZSCORE', V, seq .. id)
local life = life_of(call('HGET', A, id), seq)
local over = life and cancelled(life) and score and tonumber(score) <= NOW_MS
if not score or over then return { NOW_US } end
local _, _, tail = parse(rec)
local body = tail and byte(rec) % 8 >= 4 and call('HGET', P, sub(tail, 1, 7)) or false
return { NOW_US, seq .. id, tonumber(score), rec, life or false, body }
