-- Changes the next members of a group, up to the first that somebody has locked.
--
-- $1 queue  $2 group
-- $3 at most this many
-- $4 $5 $6 as in `change_tasks.sql`
-- $7 the last seq that counts as scheduled before the change began
-- $8 the seq after which to go on
--
-- Answers how many members it looked at; the seq that it has come to, NULL if to none; the seq of the one that is locked, if
-- there is; how many were changed, in flight, not found, refused; the least place that one was put at.
--
-- A member that was changed between our snapshot and its lock is elsewhere on the disk; it counts as locked, because it would
-- not be found again.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us {async accepting}
), members AS MATERIALIZED (
    SELECT seq, ctid AS place FROM {s}.task
    WHERE queue = $1 AND grp = $2 AND seq > $8 AND seq <= $7
    ORDER BY seq LIMIT $3
), locked AS MATERIALIZED (
    SELECT seq AS n, ctid AS place, visible_at, old_visible_at, cancelled FROM {s}.task
    WHERE queue = $1 AND grp = $2 AND seq > $8 AND seq <= (SELECT max(seq) FROM members)
    ORDER BY seq
    FOR UPDATE SKIP LOCKED
), blocker AS MATERIALIZED (
    SELECT min(seq) AS seq
    FROM members LEFT JOIN locked ON locked.n = members.seq AND locked.place = members.place
    WHERE locked.n IS NULL
), held AS MATERIALIZED (
    SELECT * FROM locked WHERE n < coalesce((SELECT seq FROM blocker), 9223372036854775807)
), judged AS MATERIALIZED ({judged}
), marked AS (
    UPDATE {s}.task AS t SET cancelled = true FROM judged WHERE t.ctid = judged.place AND what = 'mark'
), moved AS (
    UPDATE {s}.task AS t SET visible_at = target, old_visible_at = NULL, claim = NULL
    FROM judged WHERE t.ctid = judged.place AND what = 'move' RETURNING t.visible_at
), gone AS (
    DELETE FROM {s}.task AS t USING judged WHERE t.ctid = judged.place AND what IN ('cancel', 'clear')
)
SELECT (SELECT count(*) FROM members), max(n), (SELECT seq FROM blocker),
       count(*) FILTER (WHERE what IN ('cancel', 'move')),
       count(*) FILTER (WHERE what IN ('mark', 'flight')),
       count(*) FILTER (WHERE what = 'clear'),
       count(*) FILTER (WHERE what = 'refuse'),
       (SELECT min(visible_at) FROM moved)
FROM judged
