//! Runs a command beside a private server, which is gone afterwards. The command finds its URL in `DELAYLINE_TEST_REDIS`,
//! `DELAYLINE_TEST_POSTGRES` or `DELAYLINE_TEST_RABBITMQ`, and in `DELAYLINE_BACKEND`; a server that the first of these
//! names already is taken instead.
//! `cargo run -p delayline-conformance --features servers --example with_server postgres -- cargo run --example ...`
//!
//! With `--leaves-nothing` in front, the command fails (exit code 3) if the server holds more after it than before: keys, rows,
//! queues, messages, connections.

use std::process::{Command, ExitCode};
use std::time::Duration;

use delayline_conformance::Resources;
use delayline_conformance::servers::{self, Kind, Server};
use tokio::time::Instant;

/// How long a server may take to notice that its clients have gone.
const NOTICED: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("with_server: {e}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> Result<ExitCode, String> {
    let mut arguments = arguments.peekable();
    let leaves_nothing = arguments.next_if(|argument| argument == "--leaves-nothing").is_some();
    let name = arguments.next().unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.ok_or("name a server first: redis, postgres or rabbitmq")?;
    let mut command = arguments.skip_while(|argument| argument == "--");
    let program = command.next().ok_or("name a command to run")?;
    // One that is there already stays.
    let mut server = match servers::given(kind) {
        Some(_) if leaves_nothing => return Err("what a server holds that is used by others says nothing".into()),
        Some(_) => None,
        None => Some(servers::start(kind).map_err(|e| e.to_string())?),
    };
    let mut process = Command::new(&program);
    process.args(command);
    if let Some(server) = &server {
        eprintln!("with_server: {kind} {}", server.version());
        process.env(format!("DELAYLINE_TEST_{}", name.to_uppercase()), server.url());
        process.env("DELAYLINE_BACKEND", server.url());
    }
    let before = server.as_deref_mut().map(Server::resources).transpose().map_err(|e| e.to_string())?;
    let ended = process.status();
    let left = match (&mut server, before) {
        (Some(server), Some(before)) if leaves_nothing => left(&mut **server, &before)?,
        _ => Resources::default(),
    };
    drop(server);
    let code = ended.map_err(|e| format!("{program} can't be run: {e}"))?.code();
    if !left.is_empty() {
        eprintln!("with_server: left behind: {left}");
        return Ok(ExitCode::from(3));
    }
    // No code: a signal ended it.
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What the server holds beyond what it held before, once clients that have gone are noticed.
fn left(server: &mut dyn Server, before: &Resources) -> Result<Resources, String> {
    let began = Instant::now();
    loop {
        let left = server.resources().map_err(|e| e.to_string())?.beyond(before);
        if left.is_empty() || began.elapsed() > NOTICED {
            return Ok(left);
        }
    }
}
