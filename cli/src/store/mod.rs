//! The commands that inspect or change a store that outlives the process. Each makes one or a few calls, and ends.
//!
//! | module | what is in it |
//! |---|---|
//! | [`args`] | the arguments |
//! | [`session`] | connecting, and refusing stores that end with the process |
//! | `look` | `stats`, `queues`, `find`, `list`, `ping` |
//! | `change` | `cancel`, `move`, `shift` |
//! | `admin` | `pause`, `resume`, `dead`, `delete` |
//! | `namespace` | `remove-namespace`, of RabbitMQ |
//! | [`refs`] | a task's `ref` as text |
//! | `show` | tasks, counts and dead letters, as tables and as JSON |

mod admin;
pub(crate) mod args;
mod change;
mod confirm;
mod look;
#[cfg(feature = "rabbitmq")]
mod namespace;
pub(crate) mod refs;
pub(crate) mod session;
pub(crate) mod show;

use self::args::{DeadCommand, StoreCommand};
use self::session::Session;
use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::start::{self, Logs, Threads};

/// Runs one of the commands.
pub(crate) fn main(global: &Global, command: StoreCommand) -> Result<Exit, Failure> {
    let console = start::console(global, false, Logs::Usual)?;
    start::runtime(Threads::None)?.block_on(async {
        if let StoreCommand::Ping(args) = &command {
            return look::ping(global, args).await;
        }
        #[cfg(feature = "rabbitmq")]
        if let StoreCommand::RemoveNamespace(args) = &command {
            return namespace::remove(global, args, &console).await;
        }
        let session = Session::open(global, name(&command), console).await?;
        let done = run(&session, command).await;
        session.close().await;
        done
    })
}

async fn run(session: &Session, command: StoreCommand) -> Result<Exit, Failure> {
    match command {
        StoreCommand::Stats(args) => look::stats(session, args).await,
        StoreCommand::Queues(args) => look::queues(session, &args).await,
        StoreCommand::Find(args) => look::find(session, &args).await,
        StoreCommand::List(args) => look::list(session, &args).await,
        StoreCommand::Cancel(args) => change::cancel(session, args).await,
        StoreCommand::Move(args) => change::move_to(session, args).await,
        StoreCommand::Shift(args) => change::shift(session, &args).await,
        StoreCommand::Pause(args) => admin::pause(session, &args).await,
        StoreCommand::Resume(args) => admin::resume(session, &args).await,
        StoreCommand::Dead(DeadCommand::List(args)) => admin::dead_list(session, &args).await,
        StoreCommand::Dead(DeadCommand::Redrive(args)) => admin::redrive(session, args).await,
        StoreCommand::Dead(DeadCommand::Purge(args)) => admin::purge(session, args).await,
        StoreCommand::Delete(args) => admin::delete(session, &args).await,
        // These run before a session is opened.
        StoreCommand::Ping(_) => Ok(Exit::Done),
        #[cfg(feature = "rabbitmq")]
        StoreCommand::RemoveNamespace(_) => Ok(Exit::Done),
    }
}

fn name(command: &StoreCommand) -> &'static str {
    match command {
        StoreCommand::Stats(_) => "stats",
        StoreCommand::Queues(_) => "queues",
        StoreCommand::Find(_) => "find",
        StoreCommand::List(_) => "list",
        StoreCommand::Cancel(_) => "cancel",
        StoreCommand::Move(_) => "move",
        StoreCommand::Shift(_) => "shift",
        StoreCommand::Pause(_) => "pause",
        StoreCommand::Resume(_) => "resume",
        StoreCommand::Dead(_) => "dead",
        StoreCommand::Delete(_) => "delete",
        StoreCommand::Ping(_) => "ping",
        #[cfg(feature = "rabbitmq")]
        StoreCommand::RemoveNamespace(_) => "remove-namespace",
    }
}
