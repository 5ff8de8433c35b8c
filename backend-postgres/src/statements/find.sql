-- The task $2 of the queue $1, if it is pending or in flight.
SELECT us, id, seq, visible_at, old_visible_at, cancelled, attempt, attempts_max, expires_at, grp, headers, payload, failure
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us OFFSET 0) AS clock, {s}.task
WHERE queue = $1 AND id = $2 AND NOT (cancelled AND visible_at <= us / 1000)
