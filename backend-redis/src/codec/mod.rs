//! Encoding of values and script arguments.

mod record;
mod text;

pub(crate) use record::{Life, Record, corrupt, number_bytes, read_id, read_letter, written};
pub(crate) use text::{due_text, receipt, seq_of, text};
