//! Bad input is reported with its place. The rest runs, or nothing does.

mod support;

use support::{Folder, delayline, delayline_with};

/// Bad lines, each with its message.
const BAD: [(&str, &str); 31] = [
    (
        "{\"after\":\"1s\"",
        "the object does not end on this line; expected one object per line (`jq -c .` writes it so)",
    ),
    ("hello", "expected a JSON object, found \"hello\"; is it CSV? use --format csv"),
    ("after,payload", "expected a JSON object, found \"after,payload\"; is it CSV? use --format csv"),
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
        "`after`: expected a duration such as 1500ms, 2h or 1h 30m, found \"soon\": each unit needs a number in front of it",
    ),
    (
        "{\"after\":\"5\"}",
        "`after`: expected a duration such as 1500ms, 2h or 1h 30m, found \"5\": the unit is missing, as in 5s or 5ms",
    ),
    (
        "{\"after\":\"1H\"}",
        "`after`: expected a duration such as 1500ms, 2h or 1h 30m, found \"1H\": the unit `H` is unknown; use ms, s, m \
         (minutes), h, d or w",
    ),
    ("{\"after\":-1}", "`after`: expected a duration such as \"5s\", not negative, found -1"),
    (
        "{\"at\":1700000000}",
        "`at`: expected an RFC 3339 time such as \"2030-01-31T12:00:00Z\", found the number 1700000000 (as seconds since \
         1970: \"2023-11-14T22:13:20.000Z\")",
    ),
    (
        "{\"at\":\"2026-02-30T00:00:00Z\"}",
        "`at`: expected an RFC 3339 time such as 2030-01-31T12:00:00Z, got `2026-02-30T00:00:00Z`: there is no such day",
    ),
    ("{\"at\":\"9999-12-31T23:59:59Z\"}", "`at`: the time is more than 34 years ahead, which is the limit"),
    (
        "{\"after\":\"2s\",\"expires\":\"9999-12-31T23:59:59Z\"}",
        "`expires`: the time is more than 34 years ahead, which is the limit",
    ),
    ("{\"after\":5}", "`after`: expected a string such as \"5s\" or \"5ms\", found 5"),
    ("{\"at\":\"tomorrow\"}", "`at`: expected an RFC 3339 time such as 2030-01-31T12:00:00Z, got `tomorrow`"),
    ("{\"after\":\"200y\"}", "`after`: the time is more than 34 years ahead, which is the limit"),
    ("{\"at\":\"2300-01-01T00:00:00Z\"}", "`at`: the time is more than 34 years ahead, which is the limit"),
    ("{\"after\":\"2s\",\"expires\":\"1s\"}", "`expires`: the task expires before it is due"),
    ("{\"after\":\"2s\",\"expires\":\"1999-01-01T00:00:00Z\"}", "`expires`: the task expires before it is due"),
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
    assert!(said[BAD.len()].contains(", 31 bad lines;"), "{}", ran.stderr);

    // The same through a pipe, and strictly: nothing runs.
    let piped = delayline(&["run", "-"], input.as_bytes());
    assert_eq!((piped.code, piped.ids().len()), (3, 2));
    assert!(piped.stderr.contains(&format!("stdin:4: {}\n", BAD[0].1)), "{}", piped.stderr);
    let strict = delayline(&["run", "--strict", &file], b"");
    assert_eq!((strict.code, strict.stdout.as_str()), (3, ""));
    assert_eq!(&strict.stderr.lines().collect::<Vec<_>>()[..BAD.len()], &said[..BAD.len()]);
    assert!(strict.stderr.ends_with(&format!("delayline: {file}: 31 bad lines, so nothing was run (--strict)\n")));
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
    let wide = delayline(&["run", "--format", "csv"], b"id,after\nf,0,g\nh\n");
    assert_eq!(wide.code, 3);
    for says in [
        "stdin:2: the row has 3 cells, the header row has 2; quote a cell that contains a comma\n",
        "stdin:3: the row has 1 cell, the header row has 2\n",
    ] {
        assert!(wide.stderr.contains(says), "{says}: {}", wide.stderr);
    }
    let json = delayline(&["run", "--format", "csv"], b"{\"after\":\"0\"}\n");
    assert!(json.stderr.contains("stdin:1: expected a header row such as ") && json.code == 3, "{json:?}");
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
    let built = format!(
        "memory{}{}{}",
        if cfg!(feature = "redis") { ", redis" } else { "" },
        if cfg!(feature = "postgres") { ", postgres" } else { "" },
        if cfg!(feature = "rabbitmq") { ", rabbitmq" } else { "" }
    );
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
            format!("unknown URL scheme `kafka`; compiled in: {built}"),
        ),
        (
            &["--backend", "localhost:6379", "run", &good],
            format!("`localhost:6379` has no URL scheme: did you mean redis://localhost:6379? (compiled in: {built})"),
        ),
        (
            &["--backend", "rabbitmq://me:hunter2@host", "run", &good],
            format!("unknown URL scheme `rabbitmq`; for RabbitMQ, use `amqp://`; compiled in: {built}"),
        ),
        (
            &["run", &good, "--backend", "memory:?max=x"],
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
        let says = format!("delayline: DELAYLINE_BACKEND: `{scheme}:` URLs need the Cargo feature");
        assert!(left_out.stderr.starts_with(&says) && !left_out.stderr.contains("hunter2"), "{}", left_out.stderr);
        assert!(left_out.stderr.contains("--features production` builds a program"), "{}", left_out.stderr);
    }
    for command in [&["run", &good][..], &["stats"], &["ping"]] {
        let unknown = delayline_with(command, b"", &[("DELAYLINE_BACKEND", "kafka://me:hunter2@host")]);
        assert_eq!(unknown.code, 1);
        let says = "delayline: DELAYLINE_BACKEND: unknown URL scheme `kafka`; ";
        assert!(unknown.stderr.starts_with(says) && !unknown.stderr.contains("hunter2"), "{}", unknown.stderr);
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
