//! `delayline schema`.
#![cfg(feature = "postgres")]

mod support;

use support::delayline;

#[test]
fn the_tables_are_written_as_sql() {
    let ended = delayline(&["schema", "--schema", "exams"], b"");
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    for part in ["BEGIN;", "CREATE SCHEMA \"exams\"", "CREATE TABLE \"exams\".task", "GRANT USAGE", "COMMIT;"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains('{'), "nothing is left to fill in");
}

#[test]
fn what_can_not_be_a_schema_or_a_version_is_refused() {
    for (args, says) in
        [(["schema", "--schema", "a b"], "letters"), (["schema", "--from", "1000"], "must be 0 (no tables) to 1")]
    {
        let ended = delayline(&args, b"");
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
}
