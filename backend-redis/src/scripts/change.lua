-- How one waiting task is changed; put in front of the scripts that change some.
--
-- ARGV[4] what: c cancel, m move, s shift
-- ARGV[5] move: the due time as `place_of` reads it; shift: ms, negative for sooner
-- ARGV[6] the farthest a due time may lie ahead, in ms
-- ARGV[7] the digest of the operation, empty without one; then KEYS[9] o is a hash: what was answered so far
-- ARGV[8] how long an operation is remembered, in ms

local ACTION, FARTHEST, DIGEST = ARGV[4], after(NOW_US, ARGV[6] * 1000), ARGV[7]
local TARGET = ACTION == 'm' and place_of(ARGV[5], NOW_US)
local BY = ACTION == 's' and tonumber(ARGV[5])
if TARGET and TARGET > FARTHEST then return { 'range' } end
if DIGEST ~= '' then
  local known = call('HGET', KEYS[9], 'digest')
  if known and known ~= DIGEST then return { 'operation' } end
end

local function change(id, rec, life, score)
  local seq = sub(rec, 2, 8)
  life = life_of(life, seq)
  local live = life and leased(life) and score > NOW_MS
  if life and cancelled(life) and not live then
    -- Its lease ended after the cancel: there is nothing left to change.
    remove(id, seq, life, rec)
    return '2'
  end
  if live then
    if ACTION == 'c' and not cancelled(life) then
      set_a[#set_a + 1] = id
      set_a[#set_a + 1] = char(byte(life) + 2) .. sub(life, 2)
    end
    return '1'
  end
  if ACTION == 'c' then
    remove(id, seq, life, rec)
    return '0'
  end
  local place = TARGET or math.max(0, score + BY)
  if place > FARTHEST then return '3' end
  if life and leased(life) then
    -- A lease that ended unsettled is lost by the move.
    wait(id, life, place, number(life, 16, 2))
  elseif place ~= score then
    put(seq .. id, place)
  end
  return '0'
end
