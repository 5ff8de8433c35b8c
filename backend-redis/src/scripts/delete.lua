-- Deletes everything of a shard, and wakes who sleeps.
--
-- Answers now in us.

call('UNLINK', V, T, A, G, M, D, X, P)
call('PUBLISH', ARGV[1], '')
return { NOW_US }
