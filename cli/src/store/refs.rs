//! A task's `ref`: text that identifies exactly one task. Backends that can't find a task by its id alone need it, and
//! so do users who mean this task and not a later one with the same id.
//!
//! `DUE/RECEIPT/ID`: the due time in RFC 3339 or `-`, the store's receipt in hexadecimal, which may be empty, and the
//! id. For users it is opaque.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use delayline::{Receipt, TaskId, TaskRef};
use serde_json::{Deserializer, Value};

use crate::exit::{Exit, Failure};

/// The maximum of tasks that one command takes from a file.
const TASKS_MAX: usize = 10_000_000;

/// Writes a `ref`.
pub(crate) fn text(task: &TaskRef) -> String {
    let due = task.due_at.map_or_else(|| "-".to_owned(), |due| due.to_string());
    format!("{due}/{}/{}", task.receipt, task.id.to_text())
}

/// Reads a `ref`.
pub(crate) fn parse(text: &str) -> Result<TaskRef, String> {
    let mut parts = text.splitn(3, '/');
    let (Some(due), Some(receipt), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("not a `ref` as --json writes it".to_owned());
    };
    let mut task = TaskRef::from(TaskId::new(id).map_err(|e| e.message().to_owned())?);
    let no_ref = |_: delayline::Error| "not a `ref` as --json writes it".to_owned();
    task.due_at = if due == "-" { None } else { Some(due.parse().map_err(no_ref)?) };
    task.receipt = receipt.parse::<Receipt>().map_err(no_ref)?;
    Ok(task)
}

/// Reads the tasks in a JSON file: every object with a `ref` or an `id`, in arrays and in `task` and `tasks`, too.
pub(super) fn read(path: &Path) -> Result<Vec<TaskRef>, Failure> {
    let name = if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() };
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|e| Failure::io(format_args!("cannot read {name}"), &e))?)
    };
    let mut tasks = Vec::new();
    for value in Deserializer::from_reader(BufReader::new(input)).into_iter::<Value>() {
        let value = value.map_err(|e| bad(&name, &format!("not JSON: {e}")))?;
        collect(&value, &mut tasks).map_err(|what| bad(&name, &what))?;
        if tasks.len() > TASKS_MAX {
            return Err(bad(&name, &format!("more than the limit of {TASKS_MAX} tasks")));
        }
    }
    if tasks.is_empty() {
        return Err(bad(&name, "expected objects with a `ref` or an `id`, found none"));
    }
    Ok(tasks)
}

fn bad(name: &str, what: &str) -> Failure {
    Failure::new(format!("{name}: {what}; nothing was done")).exit(Exit::BadLines)
}

fn collect(value: &Value, tasks: &mut Vec<TaskRef>) -> Result<(), String> {
    match value {
        Value::Object(object) => match (object.get("ref"), object.get("id")) {
            (Some(Value::String(text)), _) => tasks.push(parse(text).map_err(|e| format!("`{text}` is {e}"))?),
            (Some(_), _) => return Err("expected a string as `ref`, found another value".to_owned()),
            (None, Some(Value::String(id))) => {
                tasks.push(TaskId::new(id).map_err(|e| e.message().to_owned())?.into());
            }
            (None, Some(_)) => return Err("expected a string as `id`, found another value".to_owned()),
            // The output of `list` and `find`. Payloads are skipped, because they may contain anything.
            (None, None) => {
                for field in ["task", "tasks"] {
                    object.get(field).map_or(Ok(()), |inner| collect(inner, tasks))?;
                }
            }
        },
        Value::Array(values) => values.iter().try_for_each(|value| collect(value, tasks))?,
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err("expected an object, found another value".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use delayline::Timestamp;

    #[test]
    fn a_ref_survives_the_trip_through_text() {
        let due = Timestamp::from_unix_micros(1_800_000_000_123_456);
        for (id, receipt) in [("a/b/c", Receipt::from_words([7, u64::MAX])), ("ä b", Receipt::NONE)] {
            let with_due = TaskRef::new(TaskId::new(id).unwrap(), due, receipt.clone());
            let mut without = TaskRef::from(TaskId::new(id).unwrap());
            without.receipt = receipt;
            for task in [with_due, without] {
                assert_eq!(parse(&text(&task)), Ok(task));
            }
        }
        for text in ["", "x", "-/", "-/zz/id", "soon//id", "-//"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_our_commands_write_is_read() {
        let mut tasks = Vec::new();
        let listed = r#"{"queue":"q","tasks":[{"id":"a","ref":"-//a","payload":{"id":"no"}},{"id":"b"}]}"#;
        let found = r#"[{"task":{"id":"c"}},{"task":null}]"#;
        for text in [listed, found] {
            collect(&serde_json::from_str(text).unwrap(), &mut tasks).unwrap();
        }
        assert_eq!(tasks.iter().map(|task| task.id.to_text().into_owned()).collect::<Vec<_>>(), ["a", "b", "c"]);
        for text in ["17", r#"{"id":1}"#, r#"{"ref":"x"}"#] {
            assert!(collect(&serde_json::from_str(text).unwrap(), &mut tasks).is_err(), "{text}");
        }
    }
}
