//! Interrupted runs: they report what is left, and can save it.

mod support;

use std::collections::HashSet;
use std::io::Write;

use nix::sys::signal::Signal;
use support::{Folder, delayline, parse, read, start, text};

#[test]
fn ctrl_c_saves_what_is_left_and_a_second_run_delivers_it() {
    let folder = Folder::new();
    let rest = folder.path("rest.jsonl");
    let mut tasks = String::from("{\"id\":\"first\",\"after\":\"0\"}\n");
    for id in 0..3000 {
        let after = 1000 + id % 7 * 10;
        tasks.push_str(&format!(
            "{{\"id\":\"{id}\",\"after\":\"{after}ms\",\"payload\":{{\"n\":{id}}},\"group\":\"g {}\",\"expires\":\"1h\"}}\n",
            id % 3
        ));
    }
    let run = start(&["run", &folder.file("tasks.jsonl", tasks), "--save-rest", &rest]);
    assert_eq!(text(&parse(&run.line()), "id"), "first");
    run.signal(Signal::SIGINT);
    let ended = run.end();
    assert_eq!(ended.code, 130);
    let left = 3000 - ended.delivered().len();
    assert!(
        ended.stderr.contains(&format!("interrupted; {left} tasks are left, the next is due ")),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains(&format!("saved to {rest}, ")), "{}", ended.stderr);
    assert_eq!(read(&rest).lines().count(), left);
    let first = read(&rest).lines().next().unwrap().to_owned();
    assert!(first.contains(",\"expires\":\"20") && first.contains(",\"group\":\"g "), "{first}");

    let again = delayline(&["run", &rest], b"");
    assert_eq!(again.code, 0, "{}", again.stderr);
    let all: Vec<_> = ended.delivered().into_iter().chain(again.delivered()).collect();
    let ids: HashSet<_> = all.iter().map(|line| text(line, "id").to_owned()).collect();
    assert_eq!((all.len(), ids.len()), (3000, 3000), "each once");
    for line in &all {
        let id: u64 = text(line, "id").parse().unwrap();
        assert_eq!((&line["payload"]["n"], text(line, "group")), (&id.into(), format!("g {}", id % 3).as_str()));
    }
}

#[test]
fn without_a_file_it_says_how_the_rest_could_have_been_kept() {
    let mut run = start(&["run", "-"]);
    run.stdin.as_mut().unwrap().write_all(b"{\"after\":\"0\"}\n{\"after\":\"2h\"}\n").unwrap();
    run.line();
    run.signal(Signal::SIGINT);
    let ended = run.end();
    assert_eq!(ended.code, 130);
    let says =
        "delayline: interrupted; 1 task is left, due in 1h 59m; lost with this process (--save-rest FILE would save";
    assert!(ended.stderr.contains(says), "{}", ended.stderr);
}

#[test]
fn what_was_read_strictly_and_not_yet_scheduled_is_saved_too() {
    let folder = Folder::new();
    let rest = folder.path("rest.jsonl");
    let mut run = start(&["run", "--strict", "--save-rest", &rest]);
    // The bad line tells that those before it were read. The last one is not whole.
    let input = b"{\"id\":\"a\",\"after\":\"0\",\"payload\":\"x\"}\n{\"after\":\"1h\"}\nbad\n{\"id\":\"cut";
    run.stdin.as_mut().unwrap().write_all(input).unwrap();
    run.says("stdin:3: expected a JSON object");
    run.signal(Signal::SIGINT);
    let ended = run.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (130, ""));
    assert!(ended.stderr.contains("interrupted; 2 tasks are left; saved to "), "{}", ended.stderr);
    let saved = read(&rest);
    let lines: Vec<_> = saved.lines().map(parse).collect();
    assert_eq!((lines.len(), text(&lines[0], "id"), text(&lines[0], "payload")), (2, "a", "x"));
    assert!(lines[1].get("id").is_none(), "{saved}");
}

#[test]
fn with_nothing_left_no_file_is_written() {
    let folder = Folder::new();
    let rest = folder.path("rest.jsonl");
    let ran = delayline(&["run", "--save-rest", &rest], b"{\"after\":\"0\"}\n");
    assert_eq!(ran.code, 0);
    let mut run = start(&["run", "--save-rest", &rest]);
    run.stdin.as_mut().unwrap().write_all(b"{\"after\":\"0\"}\n").unwrap();
    run.line();
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert_eq!(ended.code, 143);
    assert!(ended.stderr.contains("terminated; nothing is left\n"), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(folder.as_path()).unwrap().count(), 0, "no file is left behind");
}
