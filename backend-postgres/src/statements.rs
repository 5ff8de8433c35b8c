//! Every statement, from `statements/*.sql`, with the schema's name and the settings of this configuration filled in.
//!
//! In the files, `{s}` stands for the schema. `{async ...}` turns off the wait for the disk, if the configuration says
//! so for that class of commits. `{lock_timeout}` sets the time limit for a wait on a locked row.

use std::sync::Arc;

use crate::config::server::Flush;
use crate::schema::Schema;

/// Time limit of a batch for a locked row.
const LOCK_TIMEOUT: &str = "2s";
/// Time limit of a single task that is tried alone afterwards.
const LOCK_TIMEOUT_ALONE: &str = "100ms";

macro_rules! statements {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug)]
        pub(crate) struct Statements {
            $(pub(crate) $name: Arc<str>,)*
        }

        impl Statements {
            /// For one schema, with its settings.
            fn expanded(schema: &Schema, settings: &Settings) -> Self {
                Self {
                    $($name: settings.expand(schema, include_str!(concat!("statements/", stringify!($name), ".sql"))),)*
                }
            }
        }
    };
}

statements!(
    aside_trim,
    change_group,
    change_tasks,
    claim,
    complete,
    dead_list,
    dead_purge,
    dead_redrive,
    dead_span,
    dead_trim,
    delete_rest,
    delete_tasks,
    extend,
    find,
    give_back,
    list,
    lookup,
    notify,
    operation_begin,
    operation_forget,
    operation_note,
    pause,
    queues,
    resume,
    schedule,
    seqs,
    settle,
    stats,
);

/// Settings of the transaction that a statement runs in.
struct Settings {
    flush: Flush,
    lock_timeout: Option<&'static str>,
}

impl Statements {
    /// The statements for batches.
    pub(crate) fn new(schema: &Schema, flush: Flush) -> Self {
        Self::expanded(schema, &Settings { flush, lock_timeout: Some(LOCK_TIMEOUT) })
    }

    /// The statements for a task that is tried alone, because its batch did not get the locks in time.
    pub(crate) fn alone(schema: &Schema, flush: Flush) -> Self {
        Self::expanded(schema, &Settings { flush, lock_timeout: Some(LOCK_TIMEOUT_ALONE) })
    }

    /// The statements for the caller's transaction, whose settings stay as they are.
    pub(crate) fn inside(schema: &Schema) -> Self {
        let flush = Flush { accepting: true, claims: true, completions: true };
        Self::expanded(schema, &Settings { flush, lock_timeout: None })
    }
}

impl Settings {
    fn expand(&self, schema: &Schema, file: &str) -> Arc<str> {
        let judged = include_str!("statements/judged.sql");
        let sql = without_comments(&file.replace("{judged}", &format!("\n{judged}")));
        let relaxed =
            |waits: bool| if waits { "" } else { ", set_config('synchronous_commit', 'off', true) AS relaxed" };
        let patience = match self.lock_timeout {
            Some(time) => format!(", set_config('lock_timeout', '{time}', true) AS patience"),
            None => String::new(),
        };
        let sql = sql
            .replace("{async accepting}", relaxed(self.flush.accepting))
            .replace("{async claims}", relaxed(self.flush.claims))
            .replace("{async completions}", relaxed(self.flush.completions))
            .replace("{lock_timeout}", &patience);
        schema.expand(&sql)
    }
}

/// Removes comments, which the server does not need.
fn without_comments(sql: &str) -> String {
    let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
    lines.fold(String::with_capacity(sql.len()), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        let schema = Schema::new("exams").unwrap();
        let strict = Flush { accepting: true, claims: true, completions: true };
        let relaxed = Flush { accepting: false, claims: false, completions: false };
        for all in [
            Statements::new(&schema, strict),
            Statements::new(&schema, relaxed),
            Statements::alone(&schema, strict),
            Statements::inside(&schema),
        ] {
            let text = format!("{all:?}");
            assert!(!text.contains("{s}") && !text.contains("{async") && !text.contains("_timeout}"), "{text}");
            assert!(!text.contains("{judged}") && !text.contains("--"), "{text}");
        }
        let claim = |flush| Statements::new(&schema, flush).claim.contains("synchronous_commit");
        assert!(claim(relaxed) && !claim(strict));
        assert!(!Statements::inside(&schema).schedule.contains("set_config"));
    }
}
