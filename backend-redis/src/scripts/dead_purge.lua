-- Deletes dead letters.
--
-- from ARGV[4] on the number of each letter
--
-- Answers now in us, and how many were deleted.

local n = 0
call('HLEN', P)
for i = 4, #ARGV do
  local letter = call('ZRANGEBYSCORE', D, ARGV[i], ARGV[i])[1]
  if letter then
    call('ZREM', D, letter)
    rem_d[#rem_d + 1] = letter
    n, removed = n + 1, true
  end
end
finish()
return { NOW_US, n }
