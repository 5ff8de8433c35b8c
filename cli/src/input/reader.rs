//! The thread that reads an input: lines to fields to tasks to batches. It reports each bad line.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::batch::{Batch, Batcher};
use super::csv::{Quotes, Table};
use super::format::Format;
use super::ids::Ids;
use super::jsonl;
use super::lines::{Found, LINE_BYTES_MAX, Lines, Watchful};
use super::opening::{Opening, Options};
use super::task::Fields;
use crate::console::Console;
use crate::exit::Failure;
use crate::signal::Stop;

/// The state of the thread.
pub(super) struct Reading {
    pub(super) name: String,
    pub(super) is_stream: bool,
    pub(super) options: Options,
    pub(super) console: Arc<Console>,
    pub(super) stop: Stop,
    pub(super) sender: mpsc::Sender<Result<Batch, Failure>>,
}

impl Reading {
    /// Reads to the end. Then the channel of the batches is closed.
    pub(super) fn run(self, opening: Opening) {
        let batcher = Rc::new(RefCell::new(Batcher::new(self.sender.clone())));
        let opened = match opening {
            Opening::Open(file) => Ok(file),
            Opening::Later(path) => File::open(path),
        };
        let read = opened.and_then(|file| {
            let to_the_end = self.options.to_the_end;
            let input = Watchful::new(file, self.is_stream, to_the_end, batcher.clone(), self.stop.clone());
            let mut rows =
                Rows { lines: Lines::new(input), batcher: batcher.clone(), ids: Ids::default(), reading: &self };
            match self.options.format {
                Format::Jsonl => rows.read_jsonl(),
                Format::Csv => rows.read_csv(),
            }
        });
        match read {
            Ok(()) => batcher.borrow_mut().flush(),
            Err(e) => batcher.borrow_mut().fail(Failure::io(format_args!("cannot read {}", self.name), &e)),
        }
    }
}

struct Rows<'a> {
    lines: Lines,
    batcher: Rc<RefCell<Batcher>>,
    ids: Ids,
    reading: &'a Reading,
}

impl Rows<'_> {
    fn read_jsonl(&mut self) -> io::Result<()> {
        loop {
            let found = self.lines.next()?;
            let line = self.lines.number();
            let text = match found {
                Found::End => return Ok(()),
                Found::TooLong => Err(too_long()),
                Found::Line if self.lines.line().trim_ascii().is_empty() => continue,
                Found::Line if self.is_cut() => Err(cut()),
                Found::Line => text(self.lines.line().trim_ascii_end()),
            };
            let fields = text.and_then(jsonl::fields);
            take(fields, line, &mut self.ids, self.reading, &self.batcher);
        }
    }

    fn read_csv(&mut self) -> io::Result<()> {
        let mut table = None;
        loop {
            let (line, found) = self.next_row()?;
            let text = match found {
                Row::End => return Ok(()),
                Row::Bad(problem) => Err(problem),
                Row::Whole if self.lines.line().trim_ascii().is_empty() => continue,
                Row::Whole if self.is_cut() => Err(cut()),
                Row::Whole => text(self.lines.line()),
            };
            let Some(table) = &mut table else {
                match text.and_then(Table::new) {
                    Ok(named) => table = Some(named),
                    Err(problem) => {
                        // Nothing that follows could be read.
                        self.reading.console.bad_line(&self.reading.name, line, &problem);
                        return Ok(());
                    }
                }
                continue;
            };
            let fields = text.and_then(|row| table.fields(row));
            take(fields, line, &mut self.ids, self.reading, &self.batcher);
        }
    }

    /// Reads the next row, which may span several lines. Returns its first line.
    fn next_row(&mut self) -> io::Result<(u64, Row)> {
        let mut found = self.lines.next()?;
        let first = self.lines.number();
        let mut quotes = Quotes::default();
        let mut looked_at = 0;
        loop {
            match found {
                Found::Line => {}
                Found::TooLong => return Ok((first, Row::Bad(too_long()))),
                Found::End if looked_at == 0 => return Ok((first, Row::End)),
                Found::End => {
                    let last = self.lines.number();
                    let problem = format!("a quoted cell is still open at the end of the input, in line {last}");
                    return Ok((first, Row::Bad(problem)));
                }
            }
            quotes.look_at(&self.lines.line()[looked_at..]);
            looked_at = self.lines.line().len();
            if !quotes.are_open() {
                return Ok((first, Row::Whole));
            }
            found = self.lines.next_too()?;
        }
    }

    fn is_cut(&self) -> bool {
        self.lines.was_left() && self.lines.line().last() != Some(&b'\n')
    }
}

enum Row {
    /// The row is in the lines' buffer.
    Whole,
    Bad(String),
    End,
}

/// Passes a line's task on, or reports what is wrong with the line.
fn take(fields: Result<Fields<'_>, String>, line: u64, ids: &mut Ids, reading: &Reading, batcher: &RefCell<Batcher>) {
    let task = fields.and_then(|fields| reading.options.rules.task(fields)).and_then(|task| match &task.id {
        Some(id) => ids.note(id, line).map_err(|before| repeated(id, before)).map(|()| task),
        None => Ok(task),
    });
    match task {
        Ok(task) => batcher.borrow_mut().push(line, task),
        Err(problem) => reading.console.bad_line(&reading.name, line, &problem),
    }
}

fn text(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|e| format!("not valid UTF-8 (byte {})", e.valid_up_to() + 1))
}

fn repeated(id: &delayline::TaskId, before: Option<u64>) -> String {
    match before {
        Some(line) => format!("id `{id}` was used on line {line} already"),
        None => format!("id `{id}` was used already"),
    }
}

fn too_long() -> String {
    format!("the line is longer than the limit of {} MiB", LINE_BYTES_MAX / 1024 / 1024)
}

fn cut() -> String {
    "the line is incomplete, because reading was interrupted".into()
}
