-- Ends leases.
--
-- $1 queue, then arrays, of which the last two may be shorter:
-- $2 ids  $3 fences
-- $4 dispositions: c complete, r retry, s snooze, b dead-letter, l release, x quarantine what can't be read
-- $5 delays in us, -1 for one out of range
-- $6 reasons
--
-- Answers for each that is there under its fence: its number; 0 done, 2 out of range, 5 locked by somebody; the place where it
-- waits now, if it does; whether it was dead-lettered; now in us.
--
-- The rows are found by their ids one by one, and again by their place on disk, so that no estimate of the planner can turn
-- either into a join with the whole table. A row that was changed between our snapshot and its lock is not found again, and
-- answers as one that is locked.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us {async completions}
), input AS MATERIALIZED (
    SELECT * FROM unnest($2::bytea[], $3::int8[], $4::"char"[], $5::int8[], $6::bytea[])
        WITH ORDINALITY AS i (id, fence, verdict, delay, reason, n)
), found AS MATERIALIZED (
    SELECT i.n, (SELECT true FROM {s}.task AS t
                 WHERE t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL LIMIT 1) AS there
    FROM input AS i
), held AS MATERIALIZED (
    SELECT i.n, t.place, delay, reason,
           CASE WHEN t.cancelled THEN 'c'
                WHEN verdict IN ('r', 's') AND delay < 0 THEN 'o'
                WHEN verdict = 'r' AND t.last THEN 'u'
                ELSE verdict END AS verdict
    FROM input AS i CROSS JOIN LATERAL (
        SELECT ctid AS place, t.cancelled, t.attempt >= t.attempts_max AS last
        FROM {s}.task AS t
        WHERE t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL
        FOR UPDATE SKIP LOCKED
    ) AS t
), back AS (
    UPDATE {s}.task AS t
    SET visible_at = CASE WHEN verdict = 'l' THEN t.old_visible_at ELSE (us + delay + 999) / 1000 END,
        old_visible_at = NULL, claim = NULL,
        attempt = CASE WHEN verdict = 'r' THEN t.attempt ELSE t.attempt - 1 END,
        failure = CASE WHEN octet_length(reason) > 0 THEN reason ELSE t.failure END
    FROM held, clock
    WHERE t.ctid = held.place AND verdict IN ('r', 's', 'l')
    RETURNING n, t.visible_at
), gone AS (
    DELETE FROM {s}.task AS t
    USING held
    WHERE t.ctid = held.place AND verdict IN ('c', 'b', 'u', 'x')
    RETURNING n, verdict, reason, t.*
), buried AS (
    INSERT INTO {s}.dead (buried_at, due_at, attempt, attempts_max, cause, queue, id, grp, headers, payload, reason)
    SELECT us / 1000, old_visible_at, attempt, attempts_max, CASE WHEN verdict = 'u' THEN 1 ELSE 3 END, queue, id, grp,
           headers, payload, CASE WHEN verdict = 'b' OR octet_length(reason) > 0 THEN reason ELSE failure END
    FROM clock, gone
    WHERE verdict IN ('b', 'u')
    ORDER BY n
), aside AS (
    INSERT INTO {s}.set_aside (queue, at, what)
    SELECT queue, us / 1000, left(row(gone.*)::text, 65536) FROM clock, gone WHERE verdict = 'x'
    RETURNING 1
), counted AS (
    INSERT INTO {s}.queue AS q (name, set_aside)
    SELECT $1, count(*) FROM aside HAVING count(*) > 0
    ON CONFLICT (name) DO UPDATE SET set_aside = q.set_aside + excluded.set_aside
)
SELECT f.n, CASE WHEN h.verdict = 'o' THEN 2 WHEN back.n IS NULL AND gone.n IS NULL THEN 5 ELSE 0 END AS code,
       back.visible_at, coalesce(gone.verdict IN ('b', 'u'), false) AS buried, us
FROM clock, found AS f
    LEFT JOIN held AS h ON h.n = f.n
    LEFT JOIN back ON back.n = f.n
    LEFT JOIN gone ON gone.n = f.n
WHERE f.there OR h.n IS NOT NULL
