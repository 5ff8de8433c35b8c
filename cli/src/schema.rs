//! `delayline schema`: the SQL that creates the tables in Postgres, for applications whose user may not create tables.

use std::io::{self, Write};

use delayline::postgres::PostgresBackend;

use crate::exit::{Exit, Failure};

/// Write the SQL that creates the tables in Postgres to stdout.
///
/// An application whose user may create tables does not need this command: delayline creates them when it connects.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  delayline schema | psql -1 'postgres://owner@db/app'
  delayline schema --schema exams > tables.sql

Then connect with the option `migrate=off`. A user who works with the tables
without owning them needs the rights listed at the top of the SQL.")]
pub(crate) struct SchemaArgs {
    /// Schema of the tables.
    #[arg(long, value_name = "NAME", default_value = "delayline")]
    schema: String,

    /// Version of the existing tables; 0 if there are none.
    #[arg(long, value_name = "VERSION", default_value = "0")]
    from: i32,
}

/// Runs the command.
pub(crate) fn main(args: &SchemaArgs) -> Result<Exit, Failure> {
    let sql = PostgresBackend::schema_sql(&args.schema, args.from)?;
    let written = io::stdout().lock().write_all(sql.as_bytes());
    written.map_err(|e| Failure::io("writing to stdout", &e))?;
    Ok(Exit::Done)
}
