//! Runs a command beside a private server, which is gone afterwards. The command finds its URL in `DELAYLINE_TEST_REDIS`,
//! `DELAYLINE_TEST_POSTGRES` or `DELAYLINE_TEST_RABBITMQ`; a server that this names already is taken instead.
//! `cargo run -p delayline-conformance --features servers --example with_server postgres -- cargo run --example ...`

use std::process::{Command, ExitCode};

use delayline_conformance::servers::{self, Kind};

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("with_server: {e}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<ExitCode, String> {
    let name = arguments.next().unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.ok_or("name a server first: redis, postgres or rabbitmq")?;
    let mut command = arguments.skip_while(|argument| argument == "--");
    let program = command.next().ok_or("name a command to run")?;
    // One that is there already stays.
    let server =
        if servers::given(kind).is_some() { None } else { Some(servers::start(kind).map_err(|e| e.to_string())?) };
    let mut process = Command::new(&program);
    process.args(command);
    if let Some(server) = &server {
        process.env(format!("DELAYLINE_TEST_{}", name.to_uppercase()), server.url());
    }
    let ended = process.status();
    drop(server);
    let code = ended.map_err(|e| format!("{program} can't be run: {e}"))?.code();
    // No code: a signal ended it.
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
