//! The options of every command.

use clap::ArgAction;

use crate::exit::Failure;

/// The variable that gives the URL if `--backend` is not given.
const VARIABLE: &str = "DELAYLINE_BACKEND";

/// The stores: their URL schemes, their Cargo feature, and whether this build has them.
const STORES: [(&[&str], &str, bool); 4] = [
    (&["memory"], "memory", cfg!(feature = "memory")),
    (&["redis", "rediss"], "redis", cfg!(feature = "redis")),
    (&["postgres", "postgresql"], "postgres", cfg!(feature = "postgres")),
    (&["amqp", "amqps"], "rabbitmq", cfg!(feature = "rabbitmq")),
];

/// The options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = VARIABLE,
        default_value = "memory:",
        // It may hold a password.
        hide_env_values = true,
        help = backend_help()
    )]
    pub(crate) backend: String,

    /// Log to stderr: -v at level info, -vv debug, -vvv trace.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// Adds to a failure to connect where the URL is from, if not from the command line, and how to get a build that
    /// has its store.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        let from_variable = std::env::var(VARIABLE).is_ok_and(|url| url == self.backend);
        let source = if from_variable { format!("{VARIABLE}: ") } else { String::new() };
        let scheme = self.backend.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let left_out = STORES.iter().any(|(schemes, _, built)| !*built && schemes.contains(&scheme.as_str()));
        let hint = if left_out {
            "; `cargo install delayline-cli --no-default-features --features production` builds a program with all \
             stores"
        } else {
            ""
        };
        let exit = failure.exits();
        Failure::new(format!("{source}{failure}{hint}")).exit(exit)
    }
}

fn backend_help() -> String {
    let built: Vec<&str> = STORES.iter().filter(|(_, _, built)| *built).map(|(_, name, _)| *name).collect();
    format!(
        "URL of the store that keeps the tasks: `memory:` (ends with this process), `redis://HOST`, \
         `postgres://HOST/DATABASE` or `amqp://HOST` (RabbitMQ). In this build: {}",
        built.join(", ")
    )
}
