//! Fails if files of one crate use each other in a circle, or if a file is too long. `module-graph [DIR]` prints each circle:
//! its files, and the names by which one uses another.
//!
//! A file uses another if its code names an item that the other defines: in a `use` or in a path, in a macro's arguments too.
//! A name that is re-exported counts as one of the file that defines it, and re-exporting it is no use of it. Methods called on
//! values, comments and strings do not count, and neither does what stands under `#[cfg(test)]`; test modules that have a file
//! of their own are files like others.
//!
//! It reads tokens and resolves names by the rules of the language, as far as these need no types: what a macro defines is
//! taken to be in the module that the path names.

mod graph;
mod resolve;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

/// How long a file may be.
const LINES_MAX: usize = 600;

fn main() -> ExitCode {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    match report(&folder) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("module-graph: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints what is wrong, and says how much it is.
fn report(folder: &Path) -> Result<usize, String> {
    let mut files = Vec::new();
    find(folder, &mut files).map_err(|error| format!("{}: {error}", folder.display()))?;
    let shown = |file: &Path| file.strip_prefix(folder).unwrap_or(file).display().to_string();

    // Files that several targets compile would be told of several times.
    let mut circles = BTreeSet::new();
    let mut crates = 0;
    for manifest in files.iter().filter(|file| file.ends_with("Cargo.toml")) {
        for root in roots(manifest) {
            crates += 1;
            circles.extend(graph::circles(&resolve::edges(&source::read(&root)?)));
        }
    }
    for circle in &circles {
        println!("a circle of {} files:", circle.files().len());
        for (from, to, names) in &circle.0 {
            println!("  {} -> {}: {}", shown(from), shown(to), names.join(", "));
        }
    }

    let mut long = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        let lines = source::text(file)?.lines().count();
        if lines > LINES_MAX {
            println!("{}: {lines} lines, of {LINES_MAX} at most", shown(file));
            long += 1;
        }
    }
    println!("{crates} crates: {} circles of files, {long} files that are too long", circles.len());
    if crates == 0 { Err(format!("no crate in {}", folder.display())) } else { Ok(circles.len() + long) }
}

/// Every source file and manifest of a checkout.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                find(&path, files)?;
            }
        } else if name == "Cargo.toml" || name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The root files of a package's targets, where Cargo looks for them by itself.
fn roots(manifest: &Path) -> Vec<PathBuf> {
    let package = manifest.parent().expect("a manifest is in a folder");
    let mut roots: Vec<PathBuf> = ["src/lib.rs", "src/main.rs", "build.rs"].map(|file| package.join(file)).into();
    for folder in ["src/bin", "tests", "benches", "examples"] {
        for entry in fs::read_dir(package.join(folder)).into_iter().flatten().flatten() {
            roots.push(if entry.path().is_dir() { entry.path().join("main.rs") } else { entry.path() });
        }
    }
    roots.retain(|root| root.extension().is_some_and(|ending| ending == "rs") && root.is_file());
    roots.sort();
    roots
}
