-- Deletes what the queue $1 has beside tasks and dead letters.
WITH aside AS (DELETE FROM {s}.set_aside WHERE queue = $1)
DELETE FROM {s}.queue WHERE name = $1
