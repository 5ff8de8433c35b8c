//! Running a command for each task: its input, the meaning of its exit, and that no command can hang the run.

mod support;

use nix::sys::signal::Signal;
use support::{Folder, delayline, start};

#[test]
fn a_command_gets_the_payload_and_the_task() {
    let input = r#"{"id":"text","after":"0","payload":"a \"b\"\tc","group":"g"}
{"id":"json","after":"30ms","payload":{"b": [1.0], "a": null}}
{"id":"none","after":"60ms"}
{"id":"null","after":"90ms","payload":null}
"#;
    let say = "printf '%s %s %s %s[%s]\\n' $DELAYLINE_ID $DELAYLINE_QUEUE $DELAYLINE_ATTEMPT \"${DELAYLINE_GROUP-}\" \"$(cat)\"; \
               case $DELAYLINE_DUE_AT in 20*T*Z) ;; *) exit 1;; esac";
    let ran = delayline(&["run", "--queue", "q", "--exec", say, "--concurrency", "1"], input.as_bytes());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout, "text q 1 g[a \"b\"\tc]\njson q 1 [{\"b\":[1.0],\"a\":null}]\nnone q 1 []\nnull q 1 []\n");
    assert!(ran.stderr.starts_with("delayline: 4 completed in "), "{}", ran.stderr);
}

#[test]
fn what_fails_is_tried_again_and_then_listed_as_dead() {
    let input = r#"{"id":"good","after":"0"}
{"id":"flaky","after":"0"}
{"id":"bad","after":"0"}
{"id":"killed","after":"0"}
{"id":"late","after":"0","expires":"0"}
{"id":"wrong","afer":"0"}
"#;
    let command = r#"case $DELAYLINE_ID in
        good) ;;
        flaky) [ $DELAYLINE_ATTEMPT = 2 ] ;;
        bad) echo 'first words' >&2; printf 'the disk \033[31m is full\n\n' >&2; exit 7 ;;
        killed) kill -9 $$ ;;
    esac"#;
    // The one slot is taken by `good` when `late` is due, so that it expires.
    let args = ["run", "--exec", command, "--retry-delay", "1ms", "--max-attempts", "3", "--concurrency", "1"];
    let ran = delayline(&args, input.as_bytes());
    assert_eq!(ran.code, 4, "dead letters come before bad lines: {}", ran.stderr);
    assert_eq!(ran.stdout, "");
    for says in [
        "stdin:6: unknown field `afer`",
        "the disk \x1b[31m is full\n",
        "delayline: dead letter: bad after 3 attempts: exit code 7: the disk \u{fffd}[31m is full\n",
        "delayline: dead letter: killed after 3 attempts: killed by SIGKILL\n",
        "delayline: dead letter: late after 0 attempts: expired\n",
        "delayline: 2 completed in ",
        ", 5 retries, 3 dead letters, 1 bad line; lateness p50 ",
    ] {
        assert!(ran.stderr.contains(says), "{says}: {}", ran.stderr);
    }
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    // Both sleeps hold our output open: only when both are dead does it end.
    let command = "echo going >&2; sleep 1000 & sleep 1000";
    let ran = delayline(
        &["run", "--exec", command, "--timeout", "100ms", "--max-attempts", "1"],
        b"{\"after\":\"0\",\"id\":\"a\"}",
    );
    assert_eq!(ran.code, 4);
    let says = "delayline: dead letter: a after 1 attempt: timed out after 100ms: going\n";
    assert!(ran.stderr.contains(says), "{}", ran.stderr);
}

#[test]
fn a_command_that_can_not_be_found_is_a_failure_like_others() {
    let ran =
        delayline(&["run", "--exec", "/no/such/command", "--max-attempts", "1"], b"{\"after\":\"0\",\"id\":\"a\"}");
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.contains("dead letter: a after 1 attempt: exit code 127: "), "{}", ran.stderr);
}

#[test]
fn no_command_can_make_it_hang() {
    let large = format!("{{\"after\":\"0\",\"payload\":\"{}\"}}\n", "x".repeat(1024 * 1024 - 2));
    // It reads nothing of its input.
    let ran = delayline(&["run", "--exec", "true"], large.repeat(4).as_bytes());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // It writes more than any pipe holds, on both of its outputs, before it reads.
    let loud = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; cat >/dev/null";
    let ran = delayline(&["run", "--exec", loud], large.as_bytes());
    assert_eq!((ran.code, ran.stdout.len()), (0, 3_000_000));
    assert!(ran.stderr.len() > 3_000_000);
    // What it leaves running does not keep its task, and is let go.
    let ran = delayline(&["run", "--exec", "sleep 2 >/dev/null & exit 0"], b"{\"after\":\"0\"}");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("delayline: 1 completed in "), "{}", ran.stderr);
}

#[test]
fn commands_run_at_once_as_many_as_may() {
    // Each of three waits for the two others.
    let folder = Folder::new();
    let place = folder.path("");
    let meet = "touch $DELAYLINE_ID; until [ -e a ] && [ -e b ] && [ -e c ]; do sleep 0.01; done";
    let command = format!("cd '{place}'; {meet}");
    let input = b"{\"after\":\"0\",\"id\":\"a\"}\n{\"after\":\"0\",\"id\":\"b\"}\n{\"after\":\"0\",\"id\":\"c\"}\n";
    let ran = delayline(&["run", "--exec", &command, "--concurrency", "3", "--timeout", "20s"], input);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn ctrl_c_lets_running_commands_end_and_keeps_the_rest() {
    let folder = Folder::new();
    let (rest, gate) = (folder.path("rest.jsonl"), folder.path("gate"));
    let file = folder.file(
        "tasks.jsonl",
        "{\"id\":\"runs\",\"after\":\"0\"}\n{\"id\":\"waits\",\"after\":\"1h\",\"payload\":[1]}\n",
    );
    let command = format!("echo started; until [ -e '{gate}' ]; do sleep 0.01; done; echo ended");
    let run = start(&["run", &file, "--exec", &command, "--save-rest", &rest]);
    assert_eq!(run.line(), "started\n");
    run.signal(Signal::SIGINT);
    run.says("waiting up to 10s for 1 command to end; Ctrl-C again kills");
    folder.file("gate", "");
    let ended = run.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (130, "ended\n"));
    assert!(ended.stderr.contains("interrupted; 1 task is left, due in 59m"), "{}", ended.stderr);
    let saved = support::read(&rest);
    assert!(saved.starts_with("{\"id\":\"waits\",\"at\":\"20") && saved.ends_with("Z\",\"payload\":[1]}\n"), "{saved}");
}

#[test]
fn the_grace_has_an_end_and_what_was_killed_is_left() {
    let folder = Folder::new();
    let rest = folder.path("rest.jsonl");
    let file = folder.file("tasks.jsonl", "{\"id\":\"runs\",\"after\":\"0\"}\n");
    let args = ["run", &file, "--exec", "echo started; sleep 1000", "--grace", "50ms", "--save-rest", &rest];
    let run = start(&args);
    assert_eq!(run.line(), "started\n");
    run.signal(Signal::SIGTERM);
    // Ends only when the sleep is dead, because it holds the output.
    let ended = run.end();
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    assert!(ended.stderr.contains("terminated; 1 task is left, due "), "{}", ended.stderr);
    let again = delayline(&["run", &rest], b"");
    assert_eq!((again.code, again.ids()), (0, vec!["runs".to_owned()]));
}

#[test]
fn the_second_ctrl_c_ends_at_once_and_leaves_nothing_running() {
    let mut run = start(&["run", "--exec", "trap '' TERM; echo started; sleep 1000", "--grace", "1h"]);
    std::io::Write::write_all(run.stdin.as_mut().unwrap(), b"{\"after\":\"0\"}\n").unwrap();
    assert_eq!(run.line(), "started\n");
    run.signal(Signal::SIGINT);
    run.says("Ctrl-C again kills");
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().code, 130);
}
