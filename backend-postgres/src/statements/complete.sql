-- Ends leases on tasks that are done: what `settle.sql` does, for this verdict alone, without a lock before the delete. A row
-- that somebody has locked is waited for, as long as `lock_timeout` allows.
--
-- $1 queue  $2 ids, in order  $3 fences
--
-- Answers the numbers of those that are done; the leases of the others are lost.
WITH settings AS MATERIALIZED (
    SELECT 1 AS one {async completions} {lock_timeout}
)
DELETE FROM {s}.task AS t
USING settings, unnest($2::bytea[], $3::int8[]) WITH ORDINALITY AS i (id, fence, n)
WHERE t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL
RETURNING n
