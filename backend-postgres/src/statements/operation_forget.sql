-- Forgets operations whose time is over, some at a time.
DELETE FROM {s}.operation
WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM {s}.operation
    WHERE expires_at < (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8)
    ORDER BY expires_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
))
