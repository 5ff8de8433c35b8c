-- The queues that hold something or are paused: one look into the index for each, not at every row.
WITH RECURSIVE of_tasks AS (
    (SELECT queue FROM {s}.task ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT t.queue FROM {s}.task AS t WHERE t.queue > of_tasks.queue ORDER BY t.queue LIMIT 1)
    FROM of_tasks WHERE queue IS NOT NULL
), of_dead AS (
    (SELECT queue FROM {s}.dead ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT d.queue FROM {s}.dead AS d WHERE d.queue > of_dead.queue ORDER BY d.queue LIMIT 1)
    FROM of_dead WHERE queue IS NOT NULL
)
SELECT queue FROM of_tasks WHERE queue IS NOT NULL
UNION SELECT queue FROM of_dead WHERE queue IS NOT NULL
UNION SELECT name FROM {s}.queue
