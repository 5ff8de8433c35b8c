-- Keeps the youngest $2 rows that were quarantined in the queue $1.
DELETE FROM {s}.set_aside
WHERE queue = $1 AND n <= (SELECT n FROM {s}.set_aside WHERE queue = $1 ORDER BY n DESC OFFSET $2 LIMIT 1)
