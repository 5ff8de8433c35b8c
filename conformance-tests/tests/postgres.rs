//! The suite on Postgres, a schema for each test.
#![cfg(feature = "servers")]

mod postgres_support;

use postgres_support::OnPostgres;

delayline_conformance::suite!(OnPostgres::shared());
