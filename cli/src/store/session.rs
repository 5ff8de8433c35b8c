//! A connection to a store that outlives this process.

use std::sync::Arc;

use delayline::{DelayBackend, Durability, ErrorKind, QueueName, Support};

use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;

/// What every command on a store works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) backend: Arc<dyn DelayBackend>,
    pub(crate) console: Arc<Console>,
    command: &'static str,
}

impl Session {
    /// Connects for a command. A store that ends with this process is refused: nothing could be in it, and nothing would
    /// stay.
    pub(crate) async fn open(global: &Global, command: &'static str, console: Arc<Console>) -> Result<Self, Failure> {
        let backend = connect(global).await?;
        let capabilities = backend.capabilities();
        if capabilities.durability == Durability::Process {
            let name = capabilities.name;
            let why = format!(
                "`{command}` needs a store that outlives this process, and the {name} backend is in it: nothing could be \
                 there, and nothing would stay; say which store with --backend URL or DELAYLINE_BACKEND, such as \
                 redis://127.0.0.1"
            );
            return Err(Failure::new(why).exit(Exit::Unsupported));
        }
        Ok(Self { backend, console, command })
    }

    /// Refuses what the backend declares that it has not, before anything is asked or done.
    pub(crate) fn needs(&self, support: Support, what: &str) -> Result<(), Failure> {
        if support == Support::Unsupported {
            return Err(self.cannot(what));
        }
        Ok(())
    }

    /// As [`needs`](Self::needs), for an option of the command.
    pub(crate) fn needs_for(&self, option: &str, support: Support, what: &str) -> Result<(), Failure> {
        if support == Support::Unsupported {
            let (name, command) = (self.backend.capabilities().name, self.command);
            let why = format!("the {name} backend can't {what}, so there is no `{command} {option}` for it");
            return Err(Failure::new(why).exit(Exit::Unsupported));
        }
        Ok(())
    }

    /// The failure for something that the backend has not.
    pub(crate) fn cannot(&self, what: &str) -> Failure {
        let (name, command) = (self.backend.capabilities().name, self.command);
        Failure::new(format!("the {name} backend can't {what}, so there is no `{command}` for it"))
            .exit(Exit::Unsupported)
    }

    /// A failure of a call for a queue.
    pub(crate) fn failed(&self, queue: &QueueName, e: delayline::Error) -> Failure {
        hinted(e.context(format_args!("queue `{queue}`")))
    }

    /// Lets the connection go; what stands in the way of that is nobody's concern any more.
    pub(crate) async fn close(&self) {
        let _ = self.backend.close().await;
    }
}

/// Connects, with a word on what to do where that fails.
pub(crate) async fn connect(global: &Global) -> Result<Arc<dyn DelayBackend>, Failure> {
    delayline::connect(&global.backend).await.map_err(hinted)
}

/// An error with what to do about it, where its kind tells.
pub(crate) fn hinted(e: delayline::Error) -> Failure {
    let hint = match e.kind() {
        ErrorKind::Unavailable => "; see that the server runs and that --backend or DELAYLINE_BACKEND names it",
        ErrorKind::Denied => "; see user, password and permissions in --backend or DELAYLINE_BACKEND",
        ErrorKind::Ambiguous => "; whether it took effect is not known, look before you repeat it",
        ErrorKind::Busy | ErrorKind::Full => "; try again later",
        _ => "",
    };
    let failure = Failure::from(e);
    let exit = failure.exits();
    Failure::new(format!("{failure}{hint}")).exit(exit)
}
