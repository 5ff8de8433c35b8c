//! `delayline schema`: what makes the tables in Postgres, for applications that may not make tables themselves.

use std::io::{self, Write};

use delayline::postgres::PostgresBackend;

use crate::exit::{Exit, Failure};

/// Writes the SQL that makes the tables in Postgres to stdout.
///
/// An application whose user may make tables needs none of it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  delayline schema | psql -1 'postgres://owner@db/app'
  delayline schema --schema exams > tables.sql

Then connect with the option `migrate=off`. Who works with the tables without
owning them needs the rights that are named at the top of the text.")]
pub(crate) struct SchemaArgs {
    /// The schema that the tables are in.
    #[arg(long, value_name = "NAME", default_value = "delayline")]
    schema: String,

    /// The version of the tables that are there; 0 if there are none.
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
