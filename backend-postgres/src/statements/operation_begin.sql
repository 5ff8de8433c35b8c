-- Notes what an operation id stands for, or finds what is noted.
--
-- $1 id  $2 piece  $3 digest of the whole change  $4 how long it is remembered, in ms
--
-- Answers the row if it is this change's, and nothing if it is another's: the last seq and the one it has come to; the counts;
-- the answers. Locks it, so that the same operation runs once at a time.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS ms {async accepting} {lock_timeout}
)
INSERT INTO {s}.operation AS o (id, piece, digest, expires_at)
SELECT $1, $2, $3, ms + $4 FROM clock
ON CONFLICT (id, piece) DO UPDATE
SET expires_at = excluded.expires_at, digest = excluded.digest,
    until_seq = CASE WHEN o.digest = excluded.digest THEN o.until_seq END,
    after_seq = CASE WHEN o.digest = excluded.digest THEN o.after_seq END,
    changed = CASE WHEN o.digest = excluded.digest THEN o.changed ELSE 0 END,
    in_flight = CASE WHEN o.digest = excluded.digest THEN o.in_flight ELSE 0 END,
    not_found = CASE WHEN o.digest = excluded.digest THEN o.not_found ELSE 0 END,
    refused = CASE WHEN o.digest = excluded.digest THEN o.refused ELSE 0 END,
    answers = CASE WHEN o.digest = excluded.digest THEN o.answers END
WHERE o.digest = excluded.digest OR o.expires_at < excluded.expires_at - $4
RETURNING until_seq, after_seq, changed, in_flight, not_found, refused, answers
