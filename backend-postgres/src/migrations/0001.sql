-- The tables of delayline. The schema itself, and the table that notes versions, are there already.
--
-- Times are whole milliseconds since 1970 by the clock of this server. Texts that may hold any character are bytea, because
-- text can't hold a NUL.

-- Gives tasks their place among those that are visible at the same millisecond, and leases their fences. It begins at the
-- clock's microseconds, so that fences rise although the schema was dropped and made anew.
CREATE SEQUENCE {s}.task_seq AS int8 CACHE 1;
SELECT setval('{s}.task_seq', (extract(epoch FROM clock_timestamp()) * 1000000)::int8);

-- One row for each task that is pending or in flight. The order of the columns wastes no byte on alignment.
CREATE TABLE {s}.task (
    -- When it is handed out next: the due time, a retry's time, or the end of the lease it is under. Nobody needs to notice
    -- the end of a lease.
    visible_at      int8 NOT NULL CHECK (visible_at >= 0),
    seq             int8 NOT NULL,
    -- Of the last claim.
    fence           int8,
    -- Where it was before its claim. Set: it is under a lease, ended or not, and `fence` is that lease's.
    old_visible_at  int8,
    -- The last millisecond at which it may be handed out.
    expires_at      int8,
    -- Names the call that claimed it, by which a claim whose answer was lost is given back. On a task that waits, 0 says
    -- that it replaced another.
    claim           int8,
    attempt         int2 NOT NULL CHECK (attempt >= 0),
    attempts_max    int2 NOT NULL CHECK (attempts_max > 0),
    -- While it was in flight: it ends with its lease.
    cancelled       bool NOT NULL,
    queue           text COLLATE "C" NOT NULL,
    -- u and the 16 bytes of a UUID, or k and a text.
    id              bytea NOT NULL,
    grp             bytea,
    -- For each: 1 byte length, name, 2 bytes length, value.
    headers         bytea,
    payload         bytea NOT NULL,
    -- What the last attempt failed of.
    failure         bytea,
    CHECK (old_visible_at IS NULL OR fence IS NOT NULL)
) WITH (
    -- A queue's rows live briefly: vacuum often, and without pauses. `vacuum_index_cleanup` because the dead entries of the
    -- claim index are what costs, also where they are few.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.1,
    vacuum_index_cleanup = on,
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.autovacuum_vacuum_threshold = 2000,
    toast.autovacuum_vacuum_cost_delay = 0
);

-- What claims go along.
CREATE INDEX task_claim ON {s}.task (queue, visible_at, seq);
CREATE UNIQUE INDEX task_id ON {s}.task (queue, id);
CREATE INDEX task_group ON {s}.task (queue, grp, seq) WHERE grp IS NOT NULL;

-- Dead letters, in the order in which they were buried.
CREATE TABLE {s}.dead (
    n               int8 GENERATED ALWAYS AS IDENTITY,
    buried_at       int8 NOT NULL,
    due_at          int8 NOT NULL,
    attempt         int2 NOT NULL,
    attempts_max    int2 NOT NULL,
    -- 1 attempts used up, 2 expired, 3 buried by its handler.
    cause           int2 NOT NULL CHECK (cause BETWEEN 1 AND 3),
    queue           text COLLATE "C" NOT NULL,
    id              bytea NOT NULL,
    grp             bytea,
    headers         bytea,
    payload         bytea NOT NULL,
    reason          bytea,
    PRIMARY KEY (queue, n)
);

-- A row only while a queue is paused or a count is not zero.
CREATE TABLE {s}.queue (
    name            text COLLATE "C" PRIMARY KEY,
    paused          bool NOT NULL DEFAULT false,
    dead_dropped    int8 NOT NULL DEFAULT 0,
    set_aside       int8 NOT NULL DEFAULT 0
);

-- Rows that stood in `task` and that no version of ours wrote, at most 1,000 of a queue.
CREATE TABLE {s}.set_aside (
    n               int8 GENERATED ALWAYS AS IDENTITY,
    queue           text COLLATE "C" NOT NULL,
    at              int8 NOT NULL,
    what            text NOT NULL,
    PRIMARY KEY (queue, n)
);

-- Operation ids of changes, remembered for a while, so that a change that is repeated changes no task twice. Piece -1 stands
-- for the whole change and says which it was; the others hold what was answered.
CREATE TABLE {s}.operation (
    expires_at      int8 NOT NULL,
    -- Of a group: the last sequence that belongs to the change, and the one that it has come to.
    until_seq       int8,
    after_seq       int8,
    changed         int8 NOT NULL DEFAULT 0,
    in_flight       int8 NOT NULL DEFAULT 0,
    not_found       int8 NOT NULL DEFAULT 0,
    refused         int8 NOT NULL DEFAULT 0,
    id              uuid NOT NULL,
    piece           int4 NOT NULL,
    digest          bytea,
    -- Of tasks: a letter for each.
    answers         bytea,
    PRIMARY KEY (id, piece)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX operation_expiry ON {s}.operation (expires_at);

-- For people.
CREATE VIEW {s}.tasks AS
SELECT queue,
       CASE WHEN get_byte(id, 0) = 117 THEN encode(substr(id, 2), 'hex') ELSE encode(substr(id, 2), 'escape') END AS id,
       CASE WHEN old_visible_at IS NULL THEN 'pending'
            WHEN visible_at <= extract(epoch FROM clock_timestamp()) * 1000 THEN 'pending, its lease ended'
            WHEN cancelled THEN 'cancelling'
            ELSE 'in flight' END AS state,
       to_timestamp(visible_at / 1000.0) AS visible_at,
       to_timestamp(old_visible_at / 1000.0) AS was_due_at,
       to_timestamp(expires_at / 1000.0) AS expires_at,
       attempt, attempts_max, encode(grp, 'escape') AS "group", octet_length(payload) AS payload_bytes,
       encode(failure, 'escape') AS last_failure
FROM {s}.task
WHERE NOT (cancelled AND visible_at <= extract(epoch FROM clock_timestamp()) * 1000);
