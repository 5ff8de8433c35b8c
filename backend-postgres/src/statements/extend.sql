-- Makes leases end later.
--
-- $1 queue  $2 ids  $3 fences  $4 by how much from now, in us
--
-- Answers for each that is there under its fence: its number; its end, NULL if somebody has locked it; whether it was
-- cancelled.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us {async claims}
), input AS MATERIALIZED (
    SELECT * FROM unnest($2::bytea[], $3::int8[]) WITH ORDINALITY AS i (id, fence, n)
), found AS MATERIALIZED (
    SELECT i.n, (SELECT true FROM {s}.task AS t
                 WHERE t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL LIMIT 1) AS there
    FROM input AS i
), held AS MATERIALIZED (
    SELECT i.n, t.place
    FROM input AS i CROSS JOIN LATERAL (
        SELECT ctid AS place FROM {s}.task AS t
        WHERE t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL
        FOR UPDATE SKIP LOCKED
    ) AS t
), longer AS (
    UPDATE {s}.task AS t
    SET visible_at = greatest(t.visible_at, (us + $4 + 999) / 1000)
    FROM held, clock
    WHERE t.ctid = held.place
    RETURNING n, t.visible_at, t.cancelled
)
SELECT f.n, longer.visible_at, longer.cancelled
FROM found AS f LEFT JOIN longer ON longer.n = f.n
WHERE f.there OR longer.n IS NOT NULL
