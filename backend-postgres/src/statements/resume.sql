-- Ends the pause of the queue $1. Answers the first place that is due.
WITH counted AS (
    UPDATE {s}.queue SET paused = false WHERE name = $1 AND (dead_dropped > 0 OR set_aside > 0)
), gone AS (
    DELETE FROM {s}.queue WHERE name = $1 AND dead_dropped = 0 AND set_aside = 0
)
SELECT visible_at FROM {s}.task WHERE queue = $1 ORDER BY visible_at, seq LIMIT 1
