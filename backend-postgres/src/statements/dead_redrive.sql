-- Schedules dead letters of the queue $1 again: those after the number $2 and up to $3, at most $4 of them, with the ids $5 or,
-- if that is NULL, all.
--
-- $6 the instant from which they are staggered in us, 0 for now
-- $7 the distance between two in us
-- $8 how many were redriven before
--
-- Answers the instant; how many were redriven; how many were looked at; the number that it has come to; the least place.
--
-- One whose id is in use stays. That is seen before, so that the others are evenly staggered; an id that comes into use just
-- then leaves a gap. Letters that another redrive has locked are waited for, so that none is under way when this one is through.
WITH clock AS MATERIALIZED (
    SELECT CASE WHEN $6 > 0 THEN $6 ELSE (extract(epoch FROM clock_timestamp()) * 1000000)::int8 END AS us
        {async accepting} {lock_timeout}
), chosen AS MATERIALIZED (
    SELECT ctid AS old, n, id, attempts_max, grp, headers, payload FROM {s}.dead
    WHERE queue = $1 AND n > $2 AND n <= $3 AND ($5::bytea[] IS NULL OR id = ANY ($5::bytea[]))
    ORDER BY n LIMIT $4
    FOR UPDATE
), free AS MATERIALIZED (
    SELECT *, $8 + row_number() OVER (ORDER BY n) - 1 AS before
    FROM (
        SELECT *, row_number() OVER (PARTITION BY id ORDER BY n) AS nth,
               (SELECT true FROM {s}.task AS t WHERE t.queue = $1 AND t.id = chosen.id AND NOT t.cancelled LIMIT 1) AS in_use
        FROM chosen
    ) AS c
    WHERE nth = 1 AND in_use IS NULL
), numbered AS MATERIALIZED (
    SELECT free.*, nextval('{s}.task_seq') AS seq, (us + floor(before * $7)::int8 + 999) / 1000 AS place
    FROM clock, free ORDER BY before
), placed AS (
    INSERT INTO {s}.task AS t (visible_at, seq, attempt, attempts_max, cancelled, queue, id, grp, headers, payload)
    SELECT place, seq, 0, attempts_max, false, $1, id, grp, headers, payload FROM numbered ORDER BY id
    ON CONFLICT (queue, id) DO UPDATE
    SET visible_at = excluded.visible_at, seq = excluded.seq, fence = NULL, old_visible_at = NULL, expires_at = NULL,
        claim = NULL, attempt = 0, attempts_max = excluded.attempts_max, cancelled = false, grp = excluded.grp,
        headers = excluded.headers, payload = excluded.payload, failure = NULL
    WHERE t.cancelled
    RETURNING seq, visible_at
), gone AS (
    DELETE FROM {s}.dead
    WHERE ctid = ANY (ARRAY (SELECT old FROM numbered JOIN placed ON placed.seq = numbered.seq))
)
SELECT us, (SELECT count(*) FROM placed), (SELECT count(*) FROM chosen), (SELECT max(n) FROM chosen),
       (SELECT min(visible_at) FROM placed)
FROM clock
