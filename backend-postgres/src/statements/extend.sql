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
), held AS MATERIALIZED (
    SELECT i.n, t.id
    FROM input AS i JOIN {s}.task AS t ON t.queue = $1 AND t.id = i.id
    WHERE t.fence = i.fence AND t.old_visible_at IS NOT NULL
    ORDER BY t.id
    FOR UPDATE OF t SKIP LOCKED
), longer AS (
    UPDATE {s}.task AS t
    SET visible_at = greatest(t.visible_at, (us + $4 + 999) / 1000)
    FROM held, clock
    WHERE t.queue = $1 AND t.id = held.id
    RETURNING n, t.visible_at, t.cancelled
)
SELECT i.n, longer.visible_at, longer.cancelled
FROM input AS i
    JOIN {s}.task AS t ON t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL
    LEFT JOIN longer ON longer.n = i.n
