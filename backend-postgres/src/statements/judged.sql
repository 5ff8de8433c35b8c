-- What a change does to each row of `held`, in the statements that change some. A cancelled task whose lease has ended is gone.
    SELECT n, place, target,
           CASE WHEN old_visible_at IS NOT NULL AND visible_at > us / 1000
                    THEN CASE WHEN $4 = 'c' AND NOT cancelled THEN 'mark' ELSE 'flight' END
                WHEN cancelled THEN 'clear'
                WHEN $4 = 'c' THEN 'cancel'
                WHEN target > (us + $6 + 999) / 1000 THEN 'refuse'
                ELSE 'move' END AS what
    FROM clock, held, LATERAL (
        SELECT CASE WHEN $4 = 's' THEN greatest(0, visible_at + $5)
                    WHEN $5 < 0 THEN -1 - $5
                    ELSE (us + $5 + 999) / 1000 END AS target
    ) AS aim
