//! The Postgres backend of delayline.
