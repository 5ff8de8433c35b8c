-- How many dead letters the queue $1 has, and the last number.
SELECT count(*), max(n) FROM {s}.dead WHERE queue = $1
