-- How the queue $1 stands, and how many of its scheduled tasks are due within each of $3 (ms). What waits for longer than $2 ms,
-- which is at least what a lease can last and the longest of $3, is counted in the index alone; of what is visible earlier, the
-- rows are read.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us
), near AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE visible_at > us / 1000 AND old_visible_at IS NULL) AS scheduled,
           count(*) FILTER (WHERE visible_at <= us / 1000 AND NOT cancelled) AS due,
           count(*) FILTER (WHERE visible_at > us / 1000 AND old_visible_at IS NOT NULL) AS in_flight,
           min(visible_at) FILTER (WHERE visible_at <= us / 1000 AND NOT cancelled) AS oldest,
           min(visible_at) FILTER (WHERE visible_at > us / 1000 AND old_visible_at IS NULL) AS next,
           ARRAY[count(*) FILTER (WHERE visible_at > us / 1000 AND visible_at <= us / 1000 + $3[1] AND old_visible_at IS NULL),
                 count(*) FILTER (WHERE visible_at > us / 1000 AND visible_at <= us / 1000 + $3[2] AND old_visible_at IS NULL),
                 count(*) FILTER (WHERE visible_at > us / 1000 AND visible_at <= us / 1000 + $3[3] AND old_visible_at IS NULL),
                 count(*) FILTER (WHERE visible_at > us / 1000 AND visible_at <= us / 1000 + $3[4] AND old_visible_at IS NULL)] AS within
    FROM clock, {s}.task
    WHERE queue = $1 AND visible_at <= (SELECT us / 1000 + $2 FROM clock)
)
SELECT us,
       scheduled + (SELECT count(*) FROM {s}.task WHERE queue = $1 AND visible_at > us / 1000 + $2) AS scheduled,
       due, in_flight,
       (SELECT count(*) FROM {s}.dead WHERE queue = $1) AS dead,
       oldest,
       coalesce(next, (SELECT visible_at FROM {s}.task WHERE queue = $1 AND visible_at > us / 1000 + $2
                       ORDER BY visible_at, seq LIMIT 1)) AS next,
       coalesce(q.paused, false) AS paused, coalesce(q.dead_dropped, 0) AS dead_dropped, coalesce(q.set_aside, 0) AS set_aside,
       within
FROM clock CROSS JOIN near LEFT JOIN {s}.queue AS q ON q.name = $1
