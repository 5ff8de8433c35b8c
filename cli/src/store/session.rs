//! A connection to a store that outlives this process.

use std::sync::Arc;

use delayline::{DelayBackend, Durability, ErrorKind, QueueName, Support};

use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;

/// An example of a URL of a persistent store, if this build has one.
const PERSISTENT: Option<&str> = if cfg!(feature = "redis") {
    Some("redis://127.0.0.1")
} else if cfg!(feature = "postgres") {
    Some("postgres://127.0.0.1/app")
} else if cfg!(feature = "rabbitmq") {
    Some("amqp://127.0.0.1")
} else {
    None
};

/// The connection and console of a command on a store.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) backend: Arc<dyn DelayBackend>,
    pub(crate) console: Arc<Console>,
    command: &'static str,
}

impl Session {
    /// Connects for a command. A store that ends with this process is refused, because it starts empty and keeps
    /// nothing.
    pub(crate) async fn open(global: &Global, command: &'static str, console: Arc<Console>) -> Result<Self, Failure> {
        Self::over(connect(global).await?, command, console)
    }

    /// A command on a backend that is connected.
    pub(crate) fn over(
        backend: Arc<dyn DelayBackend>,
        command: &'static str,
        console: Arc<Console>,
    ) -> Result<Self, Failure> {
        let capabilities = backend.capabilities();
        if capabilities.durability == Durability::Process {
            let name = capabilities.name;
            let set = match PERSISTENT {
                Some(url) => format!("set a store with --backend URL or DELAYLINE_BACKEND, such as {url}"),
                None => "this build has no other; `cargo install delayline-cli --no-default-features --features \
                         production` builds a program with all stores, for --backend URL or DELAYLINE_BACKEND"
                    .to_owned(),
            };
            let why = format!(
                "`{command}` needs a store that outlives this process, and the {name} backend ends with it; {set}"
            );
            return Err(Failure::new(why).exit(Exit::Unsupported));
        }
        Ok(Self { backend, console, command })
    }

    /// Refuses what the backend declares that it lacks, before anything is asked or done.
    pub(crate) fn needs(&self, support: Support, what: &str) -> Result<(), Failure> {
        if support == Support::Unsupported {
            return Err(self.cannot(what));
        }
        Ok(())
    }

    /// The same as [`needs`](Self::needs), for an option of the command.
    pub(crate) fn needs_for(&self, option: &str, support: Support, what: &str) -> Result<(), Failure> {
        if support == Support::Unsupported {
            let (name, command) = (self.backend.capabilities().name, self.command);
            let why = format!("`{command} {option}` is not available: the {name} backend can't {what}");
            return Err(Failure::new(why).exit(Exit::Unsupported));
        }
        Ok(())
    }

    /// The failure for something that the backend lacks.
    pub(crate) fn cannot(&self, what: &str) -> Failure {
        let (name, command) = (self.backend.capabilities().name, self.command);
        Failure::new(format!("`{command}` is not available: the {name} backend can't {what}")).exit(Exit::Unsupported)
    }

    /// The failure of a call on a queue.
    pub(crate) fn failed(&self, queue: &QueueName, e: delayline::Error) -> Failure {
        hinted(e.context(format_args!("queue `{queue}`")))
    }

    /// Closes the connection, and ignores errors of closing.
    pub(crate) async fn close(&self) {
        let _ = self.backend.close().await;
    }
}

/// Connects. An error says what to do.
pub(crate) async fn connect(global: &Global) -> Result<Arc<dyn DelayBackend>, Failure> {
    delayline::connect(&global.backend).await.map_err(|e| global.explain(hinted(e)))
}

/// Adds to an error what to do about it, if its kind tells.
pub(crate) fn hinted(e: delayline::Error) -> Failure {
    let hint = match e.kind() {
        ErrorKind::Unavailable => "; check that the server is running and that --backend or DELAYLINE_BACKEND names it",
        ErrorKind::Denied => "; check user and password in --backend or DELAYLINE_BACKEND, and the user's permissions",
        ErrorKind::Ambiguous => "; it is unknown whether it took effect: check before you repeat it",
        ErrorKind::Busy | ErrorKind::Full => "; try again later",
        _ => "",
    };
    let failure = Failure::from(e);
    let exit = failure.exits();
    Failure::new(format!("{failure}{hint}")).exit(exit)
}
