-- Changes the next members of a group.
--
-- ARGV[9]  the group
-- ARGV[10] at most this many
-- ARGV[11] the last number that counts as scheduled before the change began, 0 at its beginning
-- ARGV[12] the member after which to go on, empty at the beginning
-- ARGV[13] to [16] how many were changed, in flight, not found, refused so far
--
-- Answers now in us, 1 when it is through, and the last six as they are now. With an operation they are kept in o, and
-- what is there counts instead of the arguments.

local state = { ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15], ARGV[16], '0' }
if DIGEST ~= '' then
  local known = call('HMGET', KEYS[9], 'until', 'after', '0', '1', '2', '3', 'through')
  if known[1] then state = known end
end
local last, from = tonumber(state[1]), state[2]
local counts = { ['0'] = tonumber(state[3]), ['1'] = tonumber(state[4]), ['2'] = tonumber(state[5]), ['3'] = tonumber(state[6]) }
local through = state[7] == '1'
-- Numbers that are given from now on are higher.
if last == 0 then last = math.max(counter, NOW_US) end
-- The first write, allowed on a full server.
call('HDEL', M, '')

if not through then
  local group = ARGV[9] .. '\0'
  local limit = tonumber(ARGV[10])
  local page = call('ZRANGEBYLEX', G, from == '' and '[' .. group or '(' .. from, '(' .. ARGV[9] .. '\1', 'LIMIT', 0, limit)
  through = #page < limit
  local ids = {}
  for i, member in ipairs(page) do
    if number(member, #group + 1, 7) > last then
      through = true
      break
    end
    ids[i] = sub(member, #group + 8)
  end
  if #ids > 0 then
    local recs, lives = call('HMGET', T, unpack(ids)), call('HMGET', A, unpack(ids))
    for i, id in ipairs(ids) do
      local seq, rec = sub(page[i], #group + 1, #group + 7), recs[i]
      local score = rec and sub(rec, 2, 8) == seq and call('ZSCORE', V, seq .. id)
      if score then
        local outcome = change(id, rec, lives[i], tonumber(score))
        counts[outcome] = counts[outcome] + 1
      else
        rem_g[#rem_g + 1] = page[i]
      end
    end
    from = page[#ids]
  end
end
if DIGEST ~= '' then
  call('HSET', KEYS[9], 'digest', DIGEST, 'until', last, 'after', from, '0', counts['0'], '1', counts['1'], '2', counts['2'],
    '3', counts['3'], 'through', through and 1 or 0)
  call('PEXPIRE', KEYS[9], ARGV[8])
end
finish()
return { NOW_US, through and 1 or 0, last, from, counts['0'], counts['1'], counts['2'], counts['3'] }
