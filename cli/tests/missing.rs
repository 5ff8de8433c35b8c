//! A build without a feature refuses its commands and names the feature; `production` does not have `lab`.

#![cfg(not(feature = "lab"))]

mod support;

use support::delayline;

#[test]
fn what_was_left_out_is_refused_with_its_feature() {
    let missing = [
        (&["demo"][..], "lab", false),
        (&["bench", "--help"], "lab", false),
        (&["conform", "--backend", "memory:", "x"], "lab", false),
        (&["watch"], "tui", cfg!(feature = "tui")),
    ];
    for (command, feature, built) in missing {
        if built {
            continue;
        }
        let ended = delayline(command, b"");
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{command:?}: {ended:?}");
        let says = format!("without `{}`; build it with the feature `{feature}`", command[0]);
        assert!(ended.stderr.contains(&says), "{ended:?}");
    }
    let help = delayline(&["--help"], b"");
    assert!(help.stdout.contains("push") && !help.stdout.contains("conform "), "{help:?}");
}

#[test]
fn what_was_built_works() {
    let ended = delayline(&["run", "-"], b"{\"after\": \"1ms\", \"id\": \"anna\"}\n");
    assert!(ended.code == 0 && ended.stdout.contains("anna"), "{ended:?}");
}
