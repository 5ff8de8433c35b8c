-- Ends leases.
--
-- $1 queue, then arrays, of which the last two may be shorter:
-- $2 ids  $3 fences
-- $4 verdicts: c complete, r retry, s snooze, b bury, l release, x set aside what can't be read
-- $5 delays in us, -1 for one out of range
-- $6 reasons
--
-- Answers for each that is there under its fence: its number; 0 done, 2 out of range, 5 locked by somebody; the place where it
-- waits now, if it does; whether it was buried; now in us.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us {async completions}
), input AS MATERIALIZED (
    SELECT * FROM unnest($2::bytea[], $3::int8[], $4::"char"[], $5::int8[], $6::bytea[])
        WITH ORDINALITY AS i (id, fence, verdict, delay, reason, n)
), held AS MATERIALIZED (
    SELECT i.n, t.id, delay, reason,
           CASE WHEN t.cancelled THEN 'c'
                WHEN verdict IN ('r', 's') AND delay < 0 THEN 'o'
                WHEN verdict = 'r' AND t.attempt >= t.attempts_max THEN 'u'
                ELSE verdict END AS verdict
    FROM input AS i JOIN {s}.task AS t ON t.queue = $1 AND t.id = i.id
    WHERE t.fence = i.fence AND t.old_visible_at IS NOT NULL
    ORDER BY t.id
    FOR UPDATE OF t SKIP LOCKED
), back AS (
    UPDATE {s}.task AS t
    SET visible_at = CASE WHEN verdict = 'l' THEN t.old_visible_at ELSE (us + delay + 999) / 1000 END,
        old_visible_at = NULL, claim = NULL,
        attempt = CASE WHEN verdict = 'r' THEN t.attempt ELSE t.attempt - 1 END,
        failure = CASE WHEN octet_length(reason) > 0 THEN reason ELSE t.failure END
    FROM held, clock
    WHERE t.queue = $1 AND t.id = held.id AND verdict IN ('r', 's', 'l')
    RETURNING n, t.visible_at
), gone AS (
    DELETE FROM {s}.task AS t
    USING held
    WHERE t.queue = $1 AND t.id = held.id AND verdict IN ('c', 'b', 'u', 'x')
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
SELECT i.n, CASE WHEN h.n IS NULL THEN 5 WHEN h.verdict = 'o' THEN 2 ELSE 0 END AS code, back.visible_at,
       coalesce(h.verdict IN ('b', 'u'), false) AS buried, us
FROM clock, input AS i
    JOIN {s}.task AS t ON t.queue = $1 AND t.id = i.id AND t.fence = i.fence AND t.old_visible_at IS NOT NULL
    LEFT JOIN held AS h ON h.n = i.n
    LEFT JOIN back ON back.n = i.n
