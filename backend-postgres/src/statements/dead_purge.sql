-- Deletes dead letters of the queue $1 after the number $2 and up to $3, at most $4 of them, those with the ids $5 or, if that
-- is NULL, all. Answers how many, the number that it has come to,
-- and how many were looked at.
WITH chosen AS MATERIALIZED (
    SELECT n, ctid AS place FROM {s}.dead
    WHERE queue = $1 AND n > $2 AND n <= $3 AND ($5::bytea[] IS NULL OR id = ANY ($5::bytea[]))
    ORDER BY n LIMIT $4
), gone AS (
    DELETE FROM {s}.dead WHERE ctid = ANY (ARRAY (SELECT place FROM chosen)) RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(n), count(*) FROM chosen
