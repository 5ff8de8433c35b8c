-- Ends leases on tasks that are done: what `settle.sql` does, for this disposition alone, without a lock before the delete. A row
-- that somebody has locked is waited for, as long as `lock_timeout` allows.
--
-- $1 queue  $2 ids, in order  $3 fences
--
-- Answers for each that is there under its fence its number, and whether it is done; if not, it was changed meanwhile.
WITH settings AS MATERIALIZED (
    SELECT 1 AS one {async completions} {lock_timeout}
), found AS MATERIALIZED (
    SELECT i.n, i.fence, t.place
    FROM settings CROSS JOIN unnest($2::bytea[], $3::int8[]) WITH ORDINALITY AS i (id, fence, n) CROSS JOIN LATERAL (
        SELECT ctid AS place FROM {s}.task AS t
        WHERE t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL
        LIMIT 1
    ) AS t
), gone AS (
    DELETE FROM {s}.task AS t USING found
    WHERE t.ctid = found.place AND t.fence = found.fence AND t.old_visible_at IS NOT NULL
    RETURNING n
)
SELECT found.n, gone.n IS NOT NULL AS done FROM found LEFT JOIN gone ON gone.n = found.n
