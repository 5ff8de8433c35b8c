-- Tasks that are pending or in flight, by (visible_at, seq), those of one id, or a page.
--
-- $1 queue  $2 $3 the place after which to go on  $4 at most this many  $5 at most this many bytes, though always one
SELECT us, id, seq, visible_at, old_visible_at, cancelled, attempt, attempts_max, expires_at, grp, headers, payload, failure
FROM (
    SELECT us, t.*, sum(octet_length(payload)) OVER before AS size, row_number() OVER before AS n
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us OFFSET 0) AS clock,
         LATERAL (
             SELECT * FROM {s}.task
             WHERE queue = $1 AND (visible_at, seq) > ($2, $3) AND NOT (cancelled AND visible_at <= us / 1000)
             ORDER BY visible_at, seq LIMIT $4
         ) AS t
    WINDOW before AS (ORDER BY visible_at, seq ROWS UNBOUNDED PRECEDING)
) AS page
WHERE n = 1 OR size <= $5
ORDER BY visible_at, seq
