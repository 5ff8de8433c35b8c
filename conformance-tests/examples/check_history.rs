//! Checks a history that a test has written: `cargo run -p delayline-conformance --example check_history -- FILE`.
//!
//! Prints how much was checked, how late deliveries were, and what is violated; exits with 1 if anything is, and with 2 if
//! the file can't be read.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use delayline_conformance::check::check;
use delayline_conformance::history::Recording;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("which file? A test that fails names the one it wrote.");
        return ExitCode::from(2);
    };
    let read = File::open(&path)
        .map_err(|e| e.to_string())
        .and_then(|file| Recording::read(BufReader::new(file)).map_err(|e| e.to_string()));
    let recording = match read {
        Ok(recording) => recording,
        Err(e) => {
            eprintln!("{path}: {e}");
            return ExitCode::from(2);
        }
    };
    let header = &recording.header;
    println!("{} on {}, seed {:#018x}", header.test, header.backend, header.seed);
    let findings = check(&recording);
    println!("{}", findings.summary);
    println!("{}", findings.lateness);
    for violation in &findings.violations {
        println!("{violation}");
    }
    if findings.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
