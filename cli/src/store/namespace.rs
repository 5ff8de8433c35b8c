//! `remove-namespace`: removes what delayline has created on a RabbitMQ broker.

use std::sync::Arc;

use delayline::rabbitmq::{RabbitBackend, RabbitConfig};
use serde::Serialize;

use super::args::RemoveArgs;
use super::confirm::confirm;
use super::session::hinted;
use super::show::{out, out_json};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::global::Global;

/// Runs the command without a session, which would create the namespace again.
pub(super) async fn remove(global: &Global, args: &RemoveArgs, console: &Arc<Console>) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Removed<'a> {
        removed: &'a str,
    }
    let scheme = global.backend.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if !matches!(scheme.as_str(), "amqp" | "amqps") {
        let why = "`remove-namespace` works on RabbitMQ only: name the broker with --backend amqp://... or \
                   DELAYLINE_BACKEND; on other backends, `delete` removes a queue";
        return Err(Failure::new(why).exit(Exit::Unsupported));
    }
    let config = RabbitConfig::from_url(&global.backend)?;
    let place = config.place();
    let what = format!("remove {place}, its queues and exchanges, with all tasks and dead letters in them");
    confirm(args.yes, console, &what)?;
    RabbitBackend::remove_namespace(config).await.map_err(hinted)?;
    if args.output.json {
        out_json(&Removed { removed: &place })?;
    } else {
        out(&format!("{place} is removed"))?;
    }
    Ok(Exit::Done)
}
