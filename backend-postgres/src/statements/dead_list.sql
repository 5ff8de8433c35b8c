-- Dead letters of the queue $1 after the number $2, at most $3 of them and $4 bytes, though always one.
SELECT n, cause, attempt, buried_at, due_at, id, reason, grp, headers, payload,
       EXISTS (SELECT FROM {s}.dead WHERE queue = $1 AND dead.n > page.n) AS more
FROM (
    SELECT *, sum(octet_length(payload)) OVER before AS size, row_number() OVER before AS at
    FROM (SELECT * FROM {s}.dead WHERE queue = $1 AND n > $2 ORDER BY n LIMIT $3) AS first_ones
    WINDOW before AS (ORDER BY n ROWS UNBOUNDED PRECEDING)
) AS page
WHERE at = 1 OR size <= $4
ORDER BY n
