-- Stops the delivery of the queue $1.
INSERT INTO {s}.queue AS q (name, paused) VALUES ($1, true)
ON CONFLICT (name) DO UPDATE SET paused = true
