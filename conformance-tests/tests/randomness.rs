//! No test of the suite makes randomness of its own: tests run on one store with one seed, and two that draw the same operation
//! id or task id would be in each other's way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// What a test may not call; `Trial::rng`, `Trial::operation` and `fork` of what they give are the only sources.
const BANNED: [&str; 8] =
    ["with_seed(", "Rng::new(", "Rng::default(", "::random(", "new_v4(", "now_v7(", "RandomState", "DefaultHasher"];

#[test]
fn tests_draw_from_their_trial_alone() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for folder in ["tests", "dropping"] {
        find(&source.join(folder), &mut files);
    }
    assert!(files.len() > 30, "the suite's sources are not where they were: {files:?}");
    let mut found = Vec::new();
    for file in files {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if BANNED.iter().any(|banned| line.contains(banned)) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "randomness that is not the trial's:\n{}", found.join("\n"));
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}
