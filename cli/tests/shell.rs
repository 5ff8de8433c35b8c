//! What needs no store: refusals without one, completions, manual pages.

mod support;

use support::{Folder, delayline};

#[test]
fn a_store_that_ends_with_the_process_is_refused_with_the_reason() {
    for command in [
        &["push"][..],
        &["work"],
        &["stats"],
        &["queues"],
        &["find", "a"],
        &["list"],
        &["cancel", "a"],
        &["cancel", "--group", "g", "--yes"],
        &["move", "a", "--after", "1s"],
        &["shift", "--group", "g", "--by", "1s"],
        &["pause"],
        &["resume"],
        &["dead", "list"],
        &["dead", "redrive"],
        &["dead", "purge", "--yes"],
        &["delete", "--queue", "q", "--yes"],
    ] {
        let ended = delayline(command, b"");
        assert_eq!((ended.code, ended.stdout.as_str()), (7, ""), "{command:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        let says = format!("`{}` needs a store that outlives this process", command[0]);
        assert!(ended.stderr.contains(&says) && ended.stderr.contains("DELAYLINE_BACKEND"), "{ended:?}");
    }
    assert!(delayline(&["ping"], b"").stdout.starts_with("memory answered in "));
}

#[test]
fn a_live_view_needs_a_terminal() {
    let ended = delayline(&["watch"], b"");
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
    assert!(ended.stderr.contains("`watch` needs a terminal") && ended.stderr.contains("delayline stats"), "{ended:?}");
}

#[test]
fn every_shell_has_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = delayline(&["completions", shell], b"");
        assert_eq!(ended.code, 0, "{ended:?}");
        for word in ["push", "until-empty", "redrive"] {
            assert!(ended.stdout.contains(word), "`{word}` for {shell}");
        }
    }
    assert_eq!(delayline(&["completions", "sh"], b"").code, 2);
}

#[test]
fn there_is_a_page_of_the_manual_for_each_command() {
    let program = delayline(&["man"], b"").stdout;
    assert!(program.contains(".TH delayline 1") && program.contains("Exit codes"), "{program}");
    let redrive = delayline(&["man", "dead", "redrive"], b"").stdout;
    assert!(redrive.contains("rate") && redrive.contains(".TH delayline-dead-redrive 1"), "{redrive}");
    let folder = Folder::new();
    let pages = folder.path("man1");
    assert_eq!(delayline(&["man", "--dir", &pages], b"").code, 0);
    for name in ["delayline", "delayline-run", "delayline-work", "delayline-dead-purge", "delayline-watch"] {
        assert!(std::fs::metadata(format!("{pages}/{name}.1")).is_ok_and(|page| page.len() > 200), "{name}");
    }
    let unknown = delayline(&["man", "nonsense"], b"");
    assert!(unknown.code == 2 && unknown.stderr.contains("no command `nonsense`"), "{unknown:?}");
}

#[test]
fn help_is_there_for_each_command() {
    for command in
        ["run", "push", "work", "watch", "stats", "find", "list", "cancel", "move", "shift", "dead", "delete"]
    {
        let help = delayline(&[command, "--help"], b"");
        assert!(help.code == 0 && help.stdout.contains("Usage: delayline "), "{help:?}");
    }
}
