-- Gives back what a claim took whose answer was lost.
--
-- $1 queue
-- $2 the claim
-- $3 $4 between which milliseconds from now its leases end
--
-- Answers the places that the tasks are at again.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us {async claims}
), held AS MATERIALIZED (
    SELECT ctid AS place FROM {s}.task
    WHERE queue = $1 AND visible_at >= (SELECT us / 1000 + $3 FROM clock) AND visible_at <= (SELECT us / 1000 + $4 FROM clock)
        AND claim = $2 AND old_visible_at IS NOT NULL
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {s}.task WHERE ctid = ANY (ARRAY (SELECT place FROM held)) AND cancelled
), back AS (
    UPDATE {s}.task
    SET visible_at = old_visible_at, old_visible_at = NULL, claim = NULL, attempt = attempt - 1
    WHERE ctid = ANY (ARRAY (SELECT place FROM held)) AND NOT cancelled
    RETURNING visible_at
)
SELECT min(visible_at) FROM back
