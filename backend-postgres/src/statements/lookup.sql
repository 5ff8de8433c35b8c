-- What is there under some ids: $1 queue  $2 ids. Answers number, seq, and when it was due.
SELECT i.n, t.seq, t.place
FROM unnest($2::bytea[]) WITH ORDINALITY AS i (id, n) CROSS JOIN LATERAL (
    SELECT seq, coalesce(old_visible_at, visible_at) AS place FROM {s}.task
    WHERE queue = $1 AND id = i.id AND NOT cancelled
    LIMIT 1
) AS t
