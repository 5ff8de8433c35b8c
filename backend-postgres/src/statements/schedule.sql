-- Accepts tasks, each id once.
--
-- $1 queue
-- $2 the instant of acceptance in us, 0 for now
-- $3 the farthest a due time may lie ahead, in us
-- then arrays, of which those that are shorter than the ids have no more values but NULL:
-- $4 ids
-- $5 due times: us from the instant of acceptance, or -1 - ms for a time of the clock
-- $6 expiries, likewise
-- $7 attempts allowed
-- $8 whether it replaces
-- $9 groups  $10 headers  $11 payloads
-- $12 seqs that were given before
--
-- Answers for each: its number, 3 out of range, 4 expires before it is due, 1 there is another, 0 created, 2 replaced; its
-- seq; its place; the instant.
--
-- Every row with an id that is there is locked in the order of the ids, so that two calls can't wait for each other. A row
-- of somebody's transaction that is not over is waited for, as long as `lock_timeout` allows. `fence` carries $8 to the row
-- that is in the way; a row that waits has none, and it is not looked at. `claim` says what became of it: 0 replaced.
WITH clock AS MATERIALIZED (
    SELECT CASE WHEN $2 > 0 THEN $2 ELSE (extract(epoch FROM clock_timestamp()) * 1000000)::int8 END AS us
        {async accepting} {lock_timeout}
), input AS MATERIALIZED (
    SELECT n, id, coalesce(given, nextval('{s}.task_seq')) AS seq,
           CASE WHEN due < 0 THEN -1 - due ELSE (us + due + 999) / 1000 END AS place,
           CASE WHEN expires < 0 THEN -1 - expires ELSE (us + expires + 999) / 1000 END AS expires_at,
           (us + $3 + 999) / 1000 AS farthest,
           coalesce(attempts, 20) AS attempts, CASE WHEN replaces THEN 1 END AS fence, grp, headers, payload
    FROM clock,
         unnest($4::bytea[], $5::int8[], $6::int8[], $7::int2[], $8::bool[], $9::bytea[], $10::bytea[], $11::bytea[], $12::int8[])
             WITH ORDINALITY AS i (id, due, expires, attempts, replaces, grp, headers, payload, given, n)
), accepted AS (
    INSERT INTO {s}.task AS t
        (visible_at, seq, fence, expires_at, attempt, attempts_max, cancelled, queue, id, grp, headers, payload)
    SELECT place, seq, fence, expires_at, 0, attempts, false, $1, id, grp, headers, payload
    FROM input
    WHERE place <= farthest AND (expires_at IS NULL OR expires_at BETWEEN place AND farthest)
    ORDER BY id
    ON CONFLICT (queue, id) DO UPDATE
    SET visible_at = excluded.visible_at, seq = excluded.seq, fence = NULL, old_visible_at = NULL,
        expires_at = excluded.expires_at, claim = CASE WHEN NOT t.cancelled THEN 0 END, attempt = 0,
        attempts_max = excluded.attempts_max, cancelled = false, grp = excluded.grp, headers = excluded.headers,
        payload = excluded.payload, failure = NULL
    WHERE t.cancelled OR excluded.fence = 1
    RETURNING seq, claim
)
SELECT i.n,
       CASE WHEN place > farthest OR expires_at > farthest THEN 3
            WHEN expires_at < place THEN 4
            WHEN a.seq IS NULL THEN 1
            WHEN a.claim = 0 THEN 2
            ELSE 0 END AS code,
       i.seq, i.place, us
FROM clock, input AS i LEFT JOIN accepted AS a ON a.seq = i.seq
