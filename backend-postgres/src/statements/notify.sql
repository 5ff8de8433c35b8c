-- Wakes who sleeps, if what was placed matters to them: if it is due, or nothing that they know of comes before it. Asked
-- after the commit, in a statement of its own, because the row that they know of may have been held by another transaction
-- until then. Nothing is lost if a crash takes it along, so its commit does not wait for the disk.
--
-- $1 queue  $2 channel  $3 message  $4 the least place that something was put at
SELECT pg_notify($2, $3), set_config('synchronous_commit', 'off', true)
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS ms OFFSET 0) AS clock
WHERE $4 <= ms
    OR NOT EXISTS (SELECT FROM {s}.task WHERE queue = $1 AND visible_at > ms AND visible_at < $4)
