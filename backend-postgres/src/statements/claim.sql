-- Hands out what is due.
--
-- $1 queue
-- $2 floor: nothing is visible before this millisecond, as far as this subscription knows. It spares the claim the dead entries at
--    the left edge of the index, which stay there for as long as any old transaction is open.
-- $3 at most this many tasks
-- $4 at most this many bytes of payload, though always one task
-- $5 the lease in us
-- $6 names this claim
-- $7 nothing is visible between now and this millisecond, as far as this subscription knows: as the floor, for the dead entries of
--    leases that were settled
--
-- Answers one row without a task and one for each task: now in us; whether the queue is paused; the first visible_at that is
-- due; how many are due, one more than $3 at most; how many of them were had, the others being locked by somebody; the next
-- visible_at after now; how many were dead-lettered; the task.
--
-- `due` takes the locks, and `= ANY (ARRAY ...)` finds the rows again by their place on disk, which no estimate of the
-- planner can turn into a join with the whole table. A row that was changed between our snapshot and its lock is not found
-- so, and comes with the next claim.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us {async claims}
), due AS MATERIALIZED (
    SELECT ctid AS place, visible_at, seq, cancelled, octet_length(payload) AS size,
           NOT cancelled AND attempt < attempts_max
               AND (expires_at IS NULL OR expires_at >= (SELECT us / 1000 FROM clock)) AS alive
    FROM {s}.task
    WHERE queue = $1 AND visible_at >= $2 AND visible_at <= (SELECT us / 1000 FROM clock)
        AND NOT EXISTS (SELECT FROM {s}.queue WHERE name = $1 AND paused)
    ORDER BY visible_at, seq
    LIMIT $3
    FOR UPDATE OF task SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT place, alive,
           count(*) FILTER (WHERE alive) OVER before <= 1 OR sum(size) FILTER (WHERE alive) OVER before <= $4 AS fits
    FROM due
    WINDOW before AS (ORDER BY visible_at, seq ROWS UNBOUNDED PRECEDING)
), taken AS (
    UPDATE {s}.task
    SET attempt = attempt + 1, fence = nextval('{s}.task_seq'), old_visible_at = visible_at, claim = $6,
        visible_at = ((SELECT us FROM clock) + $5 + 999) / 1000
    WHERE ctid = ANY (ARRAY (SELECT place FROM judged WHERE alive AND fits))
    RETURNING id, seq, fence, attempt, attempts_max, old_visible_at, visible_at, expires_at, grp, headers, payload
), gone AS (
    DELETE FROM {s}.task
    WHERE ctid = ANY (ARRAY (SELECT place FROM judged WHERE NOT alive))
    RETURNING *
), buried AS (
    INSERT INTO {s}.dead (buried_at, due_at, attempt, attempts_max, cause, queue, id, grp, headers, payload, reason)
    SELECT us / 1000, coalesce(old_visible_at, visible_at), attempt, attempts_max,
           CASE WHEN expires_at < us / 1000 THEN 2 ELSE 1 END, queue, id, grp, headers, payload, failure
    FROM clock, gone
    WHERE NOT cancelled
    ORDER BY visible_at, seq
    RETURNING 1
), sight AS MATERIALIZED (
    SELECT min(visible_at) AS first, count(*) AS due
    FROM (
        SELECT visible_at FROM {s}.task
        WHERE queue = $1 AND visible_at >= $2 AND visible_at <= (SELECT us / 1000 FROM clock)
        ORDER BY visible_at, seq
        LIMIT $3 + 1
    ) AS first_ones
), summary AS MATERIALIZED (
    SELECT us,
           EXISTS (SELECT FROM {s}.queue WHERE name = $1 AND paused) AS paused,
           first, due,
           (SELECT count(*) FROM judged) AS had,
           (SELECT visible_at FROM {s}.task
            WHERE queue = $1 AND visible_at > greatest(us / 1000, $7::int8 - 1)
            ORDER BY visible_at, seq LIMIT 1) AS next,
           (SELECT count(*) FROM buried) AS buried
    FROM clock, sight
)
SELECT us, paused, first, due, had, next, buried,
       id, seq, fence, attempt, attempts_max, old_visible_at, visible_at, expires_at, grp, headers, payload
FROM summary LEFT JOIN taken ON true
