-- Notes how far an operation has come.
--
-- $1 id  $2 piece  $3 last seq  $4 the seq it has come to  $5 to $8 the counts  $9 answers
UPDATE {s}.operation
SET until_seq = $3, after_seq = $4, changed = $5, in_flight = $6, not_found = $7, refused = $8, answers = $9
WHERE id = $1 AND piece = $2
