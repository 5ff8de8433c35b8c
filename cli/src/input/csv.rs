//! Tasks as CSV (RFC 4180): a header row that names the fields, then one row per task.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader};

use super::task::{FIELDS, Fields};
use crate::words::many;

/// Reads the rows of one file, whose columns the header row names.
#[derive(Debug)]
pub(super) struct Table {
    cells: Cells,
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Id,
    After,
    At,
    Payload,
    Group,
    Expires,
}

impl Table {
    /// Reads the header row, or says what is wrong with it.
    pub(super) fn new(header: &str) -> Result<Self, String> {
        if header.trim_start().starts_with(['{', '[']) {
            return Err("expected a header row such as `id,after,payload`, found JSON; use --format jsonl".into());
        }
        let (mut cells, mut columns) = (Cells::new(), Vec::new());
        cells.read(header)?;
        for name in cells.iter().map(str::trim) {
            let column = match name {
                "id" => Column::Id,
                "after" => Column::After,
                "at" => Column::At,
                "payload" => Column::Payload,
                "group" => Column::Group,
                "expires" => Column::Expires,
                _ => return Err(format!("unknown column `{name}` in the header row; expected {FIELDS}")),
            };
            if columns.contains(&column) {
                return Err(format!("the header row has the column `{name}` twice"));
            }
            columns.push(column);
        }
        if !columns.contains(&Column::After) && !columns.contains(&Column::At) {
            return Err("the header row has neither a column `after` nor a column `at`".into());
        }
        Ok(Self { cells, columns })
    }

    /// The fields of a row, or what is wrong with it. An empty cell is a missing field.
    pub(super) fn fields(&mut self, row: &str) -> Result<Fields<'_>, String> {
        self.cells.read(row)?;
        if self.cells.len() != self.columns.len() {
            let (cells, columns) = (self.cells.len(), self.columns.len());
            let hint = if cells > columns { "; quote a cell that contains a comma" } else { "" };
            let cells = many(cells as u64, "cell", "cells");
            return Err(format!("the row has {cells}, the header row has {columns}{hint}"));
        }
        let mut fields = Fields { payload: b"null".to_vec(), ..Fields::default() };
        for (column, cell) in self.columns.iter().zip(self.cells.iter()).filter(|(_, cell)| !cell.is_empty()) {
            let text = Some(Cow::Borrowed(cell));
            match column {
                Column::Id => fields.id = text,
                Column::After => fields.after = text,
                Column::At => fields.at = text,
                Column::Group => fields.group = text,
                Column::Expires => fields.expires = text,
                Column::Payload => {
                    fields.payload = serde_json::to_vec(cell).map_err(|e| format!("`payload`: {e}"))?;
                }
            }
        }
        Ok(fields)
    }
}

/// The cells of one row at a time, in buffers that are reused. The library's own reader would have to be set up for
/// each row, or would read rows without a limit.
#[derive(Debug)]
struct Cells {
    reader: Reader,
    text: String,
    ends: Vec<usize>,
}

impl Cells {
    fn new() -> Self {
        Self { reader: Reader::new(), text: String::new(), ends: Vec::new() }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.text[begin..*end])
    }

    /// Splits a whole row into cells.
    fn read(&mut self, row: &str) -> Result<(), String> {
        self.reader.reset();
        let mut text = std::mem::take(&mut self.text).into_bytes();
        // Cells are never longer than they are written, and each but the last is followed by something.
        text.resize(row.len() + 1, 0);
        self.ends.resize(row.len() + 1, 0);
        let (mut unread, mut text_len, mut ends_len) = (row.as_bytes(), 0, 0);
        loop {
            let (result, read, written, ended) =
                self.reader.read_record(unread, &mut text[text_len..], &mut self.ends[ends_len..]);
            (text_len, ends_len) = (text_len + written, ends_len + ended);
            unread = &unread[read..];
            match result {
                // The next call, with nothing to read, tells that this was all.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record | ReadRecordResult::End => break,
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    return Err("the row has more cells than characters".into());
                }
            }
        }
        text.truncate(text_len);
        self.ends.truncate(ends_len);
        self.text = String::from_utf8(text).map_err(|e| format!("malformed CSV: {e}"))?;
        // The library also ends a row at a lone carriage return; what follows it must not get lost.
        if !unread.trim_ascii().is_empty() {
            return Err("a carriage return within a row; quote the cell that contains it".into());
        }
        Ok(())
    }
}

/// Whether the row goes on in the next line, because a quoted cell is open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quotes {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    CellBegins,
    Plain,
    Quoted,
    /// A quote inside a quoted cell: the cell's end, or the first half of `""`.
    QuoteInQuoted,
}

impl Quotes {
    /// Looks at the next piece of the row.
    pub(super) fn look_at(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.state = match (self.state, byte) {
                (State::CellBegins | State::QuoteInQuoted, b'"') => State::Quoted,
                (State::Quoted, b'"') => State::QuoteInQuoted,
                (State::Quoted, _) => State::Quoted,
                (State::CellBegins | State::Plain | State::QuoteInQuoted, b',' | b'\n') => State::CellBegins,
                (State::CellBegins | State::Plain | State::QuoteInQuoted, _) => State::Plain,
            };
        }
    }

    pub(super) fn are_open(self) -> bool {
        self.state == State::Quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_read_by_their_header() {
        let mut table = Table::new("payload, id,after,group\r\n").unwrap();
        let fields = table.fields("\"say \"\"hi\"\",\nthen go\",a,5s,\r\n").unwrap();
        assert_eq!(fields.payload, br#""say \"hi\",\nthen go""#);
        assert_eq!((fields.id.as_deref(), fields.after.as_deref(), fields.group), (Some("a"), Some("5s"), None));
        assert_eq!(table.fields(",,0,").unwrap().payload, b"null");
        let mut narrow = Table::new("after").unwrap();
        assert_eq!(narrow.fields("5s").unwrap().after.as_deref(), Some("5s"));
        assert_eq!(narrow.fields("\"5s\"").unwrap().after.as_deref(), Some("5s"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (row, says) in [
            ("id,afer", "unknown column `afer`"),
            ("id,after,id", "column `id` twice"),
            ("id,payload", "neither a column `after` nor"),
            ("{\"after\": \"1s\"}", "found JSON; use --format jsonl"),
        ] {
            let e = Table::new(row).unwrap_err();
            assert!(e.contains(says), "{row}: {e}");
        }
        let e = Table::new("id,after").unwrap().fields("a,1s,oh").unwrap_err();
        assert_eq!(e, "the row has 3 cells, the header row has 2; quote a cell that contains a comma");
        let e = Table::new("id,after").unwrap().fields("a").unwrap_err();
        assert_eq!(e, "the row has 1 cell, the header row has 2");
        let e = Table::new("id,after").unwrap().fields("a,1s\rb,2s").unwrap_err();
        assert!(e.contains("carriage return"), "{e}");
    }

    #[test]
    fn open_quotes_are_seen() {
        for (row, open) in [
            ("a,\"b", true),
            ("a,\"b\"", false),
            ("a,\"b\"\"", true),
            ("a,\"b\"\"\"", false),
            ("a,b\"c", false),
            ("\"a\nb", true),
            ("\"a\nb\",\"", true),
            ("\"a\"b\"", false),
        ] {
            let mut quotes = Quotes::default();
            quotes.look_at(row.as_bytes());
            assert_eq!(quotes.are_open(), open, "{row}");
        }
    }

    proptest! {
        /// Our detection of open quotes agrees with the library's.
        #[test]
        fn what_the_library_writes_is_one_row_to_us(cells in proptest::collection::vec("[a\",\n\r ]{0,6}", 2..5)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&cells).unwrap();
            let row = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let mut quotes = Quotes::default();
            let mut lines = row.split_inclusive('\n').peekable();
            while let Some(line) = lines.next() {
                quotes.look_at(line.as_bytes());
                prop_assert_eq!(quotes.are_open(), lines.peek().is_some());
            }
            let mut read = Cells::new();
            read.read("something,before\n").unwrap();
            read.read(&row).unwrap();
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), cells);
        }
    }
}
