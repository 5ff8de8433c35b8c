//! Bad input is reported with its place. The rest runs, or nothing does.

mod support;

use support::{Folder, delayline, delayline_with};

/// Bad lines, each with its message.
const BAD: [(&str, &str); 24] = [
    ("{\"after\":\"1s\"", "malformed JSON: EOF while parsing an object (column 13)"),
    ("hello", "malformed JSON: expected value (column 1)"),
    ("17", "invalid type: integer `17`, expected an object such as {\"after\": \"5s\", \"payload\": 1} (column 2)"),
    (
        "[{\"after\":\"1s\"}]",
        "expected one object per line, found a JSON array (`jq -c '.[]'` turns an array into lines)",
    ),
    (
        "{\"after\":\"1s\",\"at\":\"2030-01-31T12:00:00Z\"}",
        "both `after` and `at` are given; expected exactly one of them",
    ),
    ("{\"payload\":1}", "neither `after` nor `at` is given; expected exactly one of them"),
    (
        "{\"afer\":\"1s\"}",
        "unknown field `afer`; expected `id`, `after`, `at`, `payload`, `group` or `expires` (column 7)",
    ),
    ("{\"after\":\"1s\",\"after\":\"2s\"}", "duplicate field `after` (column 21)"),
    (
        "{\"after\":\"soon\"}",
        "`after`: expected a duration such as 1500ms, 2h or 1h 30m, found \"soon\": expected number at 0",
    ),
    (
        "{\"after\":\"5\"}",
        "`after`: expected a duration such as 1500ms, 2h or 1h 30m, found \"5\": time unit needed, for example 5sec or 5ms",
    ),
    ("{\"after\":5}", "`after`: expected a string such as \"5s\" or \"5ms\", found 5"),
    ("{\"at\":\"tomorrow\"}", "`at`: expected an RFC 3339 time such as 2030-01-31T12:00:00Z, got `tomorrow`"),
    ("{\"after\":\"200y\"}", "the due time is more than 34 years ahead, which is the limit"),
    ("{\"at\":\"2300-01-01T00:00:00Z\"}", "the due time is more than 34 years ahead, which is the limit"),
    ("{\"after\":\"2s\",\"expires\":\"1s\"}", "the task expires before it is due"),
    ("{\"after\":\"2s\",\"expires\":\"1999-01-01T00:00:00Z\"}", "the task expires before it is due"),
    (
        "{\"after\":\"2s\",\"expires\":\"later\"}",
        "`expires`: expected a duration such as 2h or an RFC 3339 time such as 2030-01-31T12:00:00Z, found \"later\"",
    ),
    ("{\"after\":\"0\",\"id\":\"\"}", "a task id can't be empty"),
    ("{\"after\":\"0\",\"id\":\"a\\u0007b\"}", "task id `a\u{fffd}b` contains a control character"),
    ("{\"after\":\"0\",\"id\":17}", "`id`: expected a string, found the number 17; write \"17\""),
    ("{\"after\":\"0\",\"group\":\"\"}", "a group name can't be empty"),
    ("{\"after\":\"0\",\"group\":[1]}", "`group`: expected a string, found an array"),
    ("{\"after\":\"0\",\"id\":\"good\"}", "id `good` was used on line 1 already"),
    ("\"\u{1b}[31m", "malformed JSON: control character (\\u0000-\\u001F) found while parsing a string (column 2)"),
];

#[test]
fn each_bad_line_is_named_and_the_others_run() {
    let mut input = String::from("\u{feff}{\"id\":\"good\",\"after\":\"0\"}\r\n\n  \t\n");
    BAD.iter().for_each(|(line, _)| input.push_str(&format!("{line}\n")));
    input.push_str("{\"id\":\"last\",\"after\":\"0\"}");
    let folder = Folder::new();
    let file = folder.file("tasks.jsonl", &input);

    let ran = delayline(&["run", &file], b"");
    assert_eq!(ran.code, 3);
    assert_eq!(ran.ids(), ["good", "last"]);
    let said: Vec<&str> = ran.stderr.lines().collect();
    for (place, (line, says)) in BAD.iter().enumerate() {
        assert_eq!(said[place], format!("{file}:{}: {says}", place + 4), "{line}");
    }
    assert!(said[BAD.len()].starts_with("delayline: 2 delivered in "), "{}", ran.stderr);
    assert!(said[BAD.len()].contains(", 24 bad lines;"), "{}", ran.stderr);

    // The same through a pipe, and strictly: nothing runs.
    let piped = delayline(&["run", "-"], input.as_bytes());
    assert_eq!((piped.code, piped.ids().len()), (3, 2));
    assert!(piped.stderr.contains(&format!("stdin:4: {}\n", BAD[0].1)), "{}", piped.stderr);
    let strict = delayline(&["run", "--strict", &file], b"");
    assert_eq!((strict.code, strict.stdout.as_str()), (3, ""));
    assert_eq!(&strict.stderr.lines().collect::<Vec<_>>()[..BAD.len()], &said[..BAD.len()]);
    assert!(strict.stderr.ends_with(&format!("delayline: {file}: 24 bad lines, so nothing was run (--strict)\n")));
}

#[test]
fn lines_that_no_text_can_show_are_bad_too() {
    let large = format!("{{\"after\":\"0\",\"payload\":\"{}\"}}\n", "x".repeat(1024 * 1024 - 1));
    let long = format!("{{\"after\":\"0\",\"payload\":\"{}\"}}\n", "x".repeat(16 * 1024 * 1024));
    let whole = format!("{{\"after\":\"0\",\"id\":\"whole\",\"payload\":\"{}\"}}\n", "x".repeat(1024 * 1024 - 2));
    let mut input = b"{\"after\":\"0\",\"payload\":\"\xff\"}\n".to_vec();
    for line in [&large, &long, &whole] {
        input.extend_from_slice(line.as_bytes());
    }
    let ran = delayline(&["run", "-"], &input);
    assert_eq!((ran.code, ran.ids()), (3, vec!["whole".to_owned()]));
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        said[..3],
        [
            "stdin:1: not valid UTF-8 (byte 25)",
            "stdin:2: payload is 1048577 bytes; the limit is 1048576 bytes",
            "stdin:3: the line is longer than the limit of 16 MiB",
        ]
    );
}

#[test]
fn bad_rows_of_a_table_are_named_by_their_first_line() {
    let table = "id,after,payload\n\
                 a,0,\"two\nlines\"\n\
                 b,0\n\
                 c,1x,\n\
                 a,0,\n\
                 d,0,\"never closed\n\
                 e,0,x\n";
    let ran = delayline(&["run", "--format", "csv"], table.as_bytes());
    assert_eq!((ran.code, ran.ids()), (3, vec!["a".to_owned()]));
    for says in [
        "stdin:4: the row has 2 cells, the header row has 3\n",
        "stdin:5: `after`: expected a duration such as 1500ms, 2h or 1h 30m, found \"1x\"",
        "stdin:6: id `a` was used on line 2 already\n",
        "stdin:7: a quoted cell is still open at the end of the input, in line 8\n",
    ] {
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    }
    let header = delayline(&["run", "--format", "csv"], b"id,afer\na,0\n");
    assert_eq!((header.code, header.stdout.as_str()), (3, ""));
    assert!(header.stderr.starts_with("stdin:1: unknown column `afer` in the header row; expected "));
}

#[test]
fn strict_runs_a_good_input_and_takes_back_what_only_the_backend_refuses() {
    let good =
        delayline(&["run", "--strict", "-"], b"{\"id\":\"a\",\"after\":\"20ms\"}\n{\"id\":\"b\",\"after\":\"0\"}\n");
    assert_eq!((good.code, good.ids()), (0, vec!["b".to_owned(), "a".to_owned()]));
    let full =
        delayline(&["--backend", "memory:?max_tasks=2", "run", "--strict"], "{\"after\":\"0\"}\n".repeat(3).as_bytes());
    assert_eq!((full.code, full.stdout.as_str()), (3, ""));
    assert!(full.stderr.contains("stdin:3: "), "{}", full.stderr);
    assert!(full.stderr.contains("1 bad line, so nothing was run (--strict)"), "{}", full.stderr);
}

#[test]
fn a_backend_that_is_full_is_waited_for() {
    let ran = delayline(&["--backend", "memory:?max_tasks=10", "run"], "{\"after\":\"5ms\"}\n".repeat(500).as_bytes());
    assert_eq!((ran.code, ran.delivered().len()), (0, 500), "{}", ran.stderr);
}

#[test]
fn an_empty_input_is_nothing_to_do() {
    let folder = Folder::new();
    for content in ["", "\n \n\r\n", "\u{feff}"] {
        let file = folder.file("empty.jsonl", content);
        let ran = delayline(&["run", &file], b"");
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{content:?}");
        assert_eq!(ran.stderr, format!("delayline: {file} holds no tasks, so there is nothing to do\n"));
    }
    assert_eq!(delayline(&["run", "-q"], b"").stderr, "");
    let table = delayline(&["run", "--format", "csv"], b"id,after\n");
    assert_eq!((table.code, table.stdout.as_str()), (0, ""), "{}", table.stderr);
}

#[test]
fn what_can_not_start_says_so_in_one_line() {
    let folder = Folder::new();
    let here = folder.path("");
    let good = folder.file("tasks.jsonl", "{\"after\":\"0\"}\n");
    let missing = folder.path("missing.jsonl");
    let nowhere = folder.path("no/where.jsonl");
    for (args, says) in [
        (&["run", &missing][..], format!("cannot read {missing}: No such file or directory")),
        (&["run", &here], format!("cannot read {here}: it is a directory")),
        (
            &["run", &good, "--save-rest", &here],
            format!("cannot save the remaining tasks to {here}: it is a directory"),
        ),
        (
            &["run", &good, "--save-rest", &nowhere],
            format!("cannot save the remaining tasks to {nowhere}: No such file or directory"),
        ),
        (
            &["--backend", "kafka://me:hunter2@host", "run", &good],
            format!(
                "unknown URL scheme `kafka`; compiled in: memory{}{}{}",
                if cfg!(feature = "redis") { ", redis" } else { "" },
                if cfg!(feature = "postgres") { ", postgres" } else { "" },
                if cfg!(feature = "rabbitmq") { ", rabbitmq" } else { "" }
            ),
        ),
        (
            &["run", &good, "--backend", "memory:?max=1"],
            "a memory URL has no option `max`; there are max_tasks, max_bytes, max_queues, dead_letters_max and \
             payload_bytes_max"
                .to_owned(),
        ),
    ] {
        let ran = delayline(args, b"");
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}");
        assert_eq!(ran.stderr, format!("delayline: {says}\n"), "{args:?}");
    }
    let by_feature = [
        ("redis", cfg!(feature = "redis")),
        ("postgres", cfg!(feature = "postgres")),
        ("amqp", cfg!(feature = "rabbitmq")),
    ];
    for (scheme, _) in by_feature.into_iter().filter(|(_, compiled_in)| !compiled_in) {
        let url = format!("{scheme}://me:hunter2@host");
        let left_out = delayline_with(&["run", &good], b"", &[("DELAYLINE_BACKEND", &url)]);
        assert_eq!(left_out.code, 1);
        let says = format!("delayline: `{scheme}:` URLs need the Cargo feature");
        assert!(left_out.stderr.starts_with(&says) && !left_out.stderr.contains("hunter2"), "{}", left_out.stderr);
    }
    let log = delayline_with(&["run", &good], b"", &[("DELAYLINE_LOG", "no=such=level")]);
    assert_eq!(log.code, 1);
    assert!(log.stderr.starts_with("delayline: DELAYLINE_LOG is invalid"), "{}", log.stderr);
}

#[test]
fn a_wrong_command_line_ends_with_2_and_help_with_0() {
    for args in [&[][..], &["fly"], &["run", "--strictly"], &["run", "--concurrency", "3"], &["run", "--queue", "a b"]]
    {
        let ran = delayline(args, b"");
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty());
    }
    let secret = [("DELAYLINE_BACKEND", "redis://me:hunter2@host")];
    for args in [&["--help"][..], &["run", "--help"], &["run", "-h"], &["--version"]] {
        let ran = delayline_with(args, b"", &secret);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
        assert!(!ran.stdout.contains("hunter2"));
    }
    let help = delayline(&["run", "--help"], b"").stdout;
    for part in ["Examples:", "Input:", "Output:", "Exit codes:", "DELAYLINE_BACKEND", "DELAYLINE_ATTEMPT"] {
        assert!(help.contains(part), "{part}");
    }
}
