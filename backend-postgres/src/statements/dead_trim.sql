-- Drops the oldest dead letters of the queue $1 beyond the youngest $2, at most $3 of them, and counts them. Answers how many.
WITH old AS MATERIALIZED (
    SELECT ctid AS place FROM {s}.dead
    WHERE queue = $1 AND n <= (SELECT n FROM {s}.dead WHERE queue = $1 ORDER BY n DESC OFFSET $2 LIMIT 1)
    ORDER BY n LIMIT $3
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {s}.dead WHERE ctid = ANY (ARRAY (SELECT place FROM old)) RETURNING 1
), counted AS (
    INSERT INTO {s}.queue AS q (name, dead_dropped)
    SELECT $1, count(*) FROM gone HAVING count(*) > 0
    ON CONFLICT (name) DO UPDATE SET dead_dropped = q.dead_dropped + excluded.dead_dropped
)
SELECT count(*) FROM gone
