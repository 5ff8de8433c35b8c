-- Gives $1 seqs, rising.
SELECT nextval('{s}.task_seq') FROM generate_series(1, $1::int8)
