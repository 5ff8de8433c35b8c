-- Changes tasks that wait, each id once.
--
-- $1 queue  $2 ids  $3 seqs, NULL where any task with that id is meant
-- $4 c cancel, m move, s shift
-- $5 move: the due time, as `schedule.sql` takes it; shift: ms, negative for sooner
-- $6 the farthest a due time may lie ahead, in us
--
-- Answers for each: its number; 0 changed, 1 in flight, 2 not found, 3 refused, 5 locked by somebody; the place that it was
-- put at.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us {async accepting}
), input AS MATERIALIZED (
    SELECT * FROM unnest($2::bytea[], $3::int8[]) WITH ORDINALITY AS i (id, seq, n)
), found AS MATERIALIZED (
    SELECT i.n, (SELECT true FROM {s}.task AS t
                 WHERE t.queue = $1 AND t.id = i.id AND (i.seq IS NULL OR t.seq = i.seq) LIMIT 1) AS there
    FROM input AS i
), held AS MATERIALIZED (
    SELECT i.n, t.*
    FROM input AS i CROSS JOIN LATERAL (
        SELECT ctid AS place, visible_at, old_visible_at, cancelled
        FROM {s}.task AS t
        WHERE t.queue = $1 AND t.id = i.id AND (i.seq IS NULL OR t.seq = i.seq)
        FOR UPDATE SKIP LOCKED
    ) AS t
), judged AS MATERIALIZED ({judged}
), marked AS (
    UPDATE {s}.task AS t SET cancelled = true FROM judged WHERE t.ctid = judged.place AND what = 'mark' RETURNING n
), moved AS (
    UPDATE {s}.task AS t SET visible_at = target, old_visible_at = NULL, claim = NULL
    FROM judged WHERE t.ctid = judged.place AND what = 'move' RETURNING n, t.visible_at
), gone AS (
    DELETE FROM {s}.task AS t USING judged WHERE t.ctid = judged.place AND what IN ('cancel', 'clear') RETURNING n
)
SELECT f.n,
       CASE WHEN j.what IS NULL THEN CASE WHEN f.there THEN 5 ELSE 2 END
            WHEN j.what = 'flight' THEN 1
            WHEN j.what = 'refuse' THEN 3
            WHEN j.what = 'mark' AND marked.n IS NOT NULL THEN 1
            WHEN j.what = 'move' AND moved.n IS NOT NULL THEN 0
            WHEN j.what = 'cancel' AND gone.n IS NOT NULL THEN 0
            WHEN j.what = 'clear' AND gone.n IS NOT NULL THEN 2
            ELSE 5 END AS code,
       moved.visible_at
FROM found AS f
    LEFT JOIN judged AS j ON j.n = f.n
    LEFT JOIN marked ON marked.n = f.n
    LEFT JOIN moved ON moved.n = f.n
    LEFT JOIN gone ON gone.n = f.n
