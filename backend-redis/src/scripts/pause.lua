-- Stops delivery, or begins it again and wakes who sleeps.
--
-- ARGV[4] 1 to pause, 0 to resume
--
-- Answers now in us.

if ARGV[4] == '1' then
  call('HSET', M, 'paused', 1, 'n', ARGV[2])
  paused = true
elseif paused then
  call('HDEL', M, 'paused')
  paused, removed = false, true
  call('PUBLISH', ARGV[1], '')
end
finish()
return { NOW_US }
