-- Deletes the next $3 tasks of the queue $1 up to the seq $2; those that somebody has locked are left. Answers how many were
-- deleted.
WITH gone AS (
    DELETE FROM {s}.task
    WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM {s}.task WHERE queue = $1 AND seq <= $2 ORDER BY visible_at, seq LIMIT $3 FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*), (SELECT true FROM {s}.task WHERE queue = $1 AND seq <= $2 ORDER BY visible_at LIMIT 1) AS any FROM gone
