//! Removes all queues and exchanges of a namespace, with the tasks and dead letters that are in them:
//!
//! ```text
//! cargo run -p delayline-rabbitmq --example remove_namespace -- 'amqp://user:password@host/virtual-host?namespace=exams'
//! ```

use std::process::ExitCode;

use delayline_rabbitmq::{RabbitBackend, RabbitConfig};

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("which one? give its URL, with `?namespace=` unless it is `delayline`");
        return ExitCode::from(2);
    };
    let removed = match RabbitConfig::from_url(&url) {
        Ok(config) => RabbitBackend::remove_namespace(config).await,
        Err(e) => Err(e),
    };
    match removed {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
