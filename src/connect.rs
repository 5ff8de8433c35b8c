//! Opening a backend from a URL.

use std::sync::Arc;

use delayline_core::{DelayBackend, Error, ErrorKind, Result};

/// A kind of store, its URL schemes, and the Cargo feature that enables it.
struct Family {
    schemes: &'static [&'static str],
    feature: &'static str,
}

const MEMORY: Family = Family { schemes: &["memory"], feature: "memory" };
const REDIS: Family = Family { schemes: &["redis", "rediss"], feature: "redis" };
const POSTGRES: Family = Family { schemes: &["postgres", "postgresql"], feature: "postgres" };
const RABBITMQ: Family = Family { schemes: &["amqp", "amqps"], feature: "rabbitmq" };

/// Opens the backend that a URL names.
///
/// - `memory:` creates a new, empty store in this process. Each call creates another one.
/// - `redis://` and `rediss://` (TLS) connect to a Redis server, and check that delayline can work with it.
/// - `postgres://` and `postgresql://` connect to a PostgreSQL server, check it, and create missing tables.
/// - `amqp://` and `amqps://` (TLS) connect to RabbitMQ, and declare the queues that all clients of a namespace share.
///
/// TLS needs the Cargo feature `tls-ring` (default) or `tls-aws-lc-rs`. A password that is sent to another machine
/// unencrypted, or to a Postgres whose certificate is not checked, is logged as a warning, once for each server in a process.
///
/// # Errors
/// [`Config`](ErrorKind::Config) for a malformed URL, an unknown scheme, or a scheme or TLS whose Cargo feature is not
/// enabled; the message names that feature. A message never repeats the URL, which may contain a password. Servers also
/// cause [`Unavailable`](ErrorKind::Unavailable), [`Denied`](ErrorKind::Denied) and
/// [`Incompatible`](ErrorKind::Incompatible).
///
/// # Cancel safety
/// A dropped call leaves nothing open.
pub async fn connect(url: &str) -> Result<Arc<dyn DelayBackend>> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(config(format!("expected a URL that starts with a scheme, such as `memory:`; {}", compiled_in())));
    };
    let scheme = scheme.to_ascii_lowercase();
    if MEMORY.schemes.contains(&scheme.as_str()) {
        return memory(&format!("memory:{rest}"));
    }
    if REDIS.schemes.contains(&scheme.as_str()) {
        return redis(&format!("{scheme}:{rest}")).await;
    }
    if RABBITMQ.schemes.contains(&scheme.as_str()) {
        return rabbitmq(&format!("{scheme}:{rest}")).await;
    }
    if POSTGRES.schemes.contains(&scheme.as_str()) {
        return postgres(&format!("{scheme}:{rest}")).await;
    }
    if let Some(guess) = with_scheme(&scheme, rest) {
        let what = format!("`{scheme}:{rest}` has no URL scheme: did you mean {guess}? ({})", compiled_in());
        return Err(config(what));
    }
    let instead = if scheme == "rabbitmq" { "; for RabbitMQ, use `amqp://`" } else { "" };
    Err(config(format!("unknown URL scheme `{}`{instead}; {}", shown(&scheme), compiled_in())))
}

#[cfg(feature = "memory")]
fn memory(url: &str) -> Result<Arc<dyn DelayBackend>> {
    let config = delayline_memory::MemoryConfig::from_url(url)?;
    Ok(Arc::new(delayline_memory::MemoryBackend::with_config(config)))
}

#[cfg(not(feature = "memory"))]
fn memory(_url: &str) -> Result<Arc<dyn DelayBackend>> {
    Err(left_out(&MEMORY))
}

#[cfg(feature = "redis")]
async fn redis(url: &str) -> Result<Arc<dyn DelayBackend>> {
    let config = delayline_redis::RedisConfig::from_url(url)?;
    Ok(Arc::new(delayline_redis::RedisBackend::connect(config).await?))
}

#[cfg(not(feature = "redis"))]
async fn redis(_url: &str) -> Result<Arc<dyn DelayBackend>> {
    Err(left_out(&REDIS))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Result<Arc<dyn DelayBackend>> {
    let config = delayline_postgres::PostgresConfig::from_url(url)?;
    Ok(Arc::new(delayline_postgres::PostgresBackend::connect(config).await?))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_url: &str) -> Result<Arc<dyn DelayBackend>> {
    Err(left_out(&POSTGRES))
}

#[cfg(feature = "rabbitmq")]
async fn rabbitmq(url: &str) -> Result<Arc<dyn DelayBackend>> {
    let config = delayline_rabbitmq::RabbitConfig::from_url(url)?;
    Ok(Arc::new(delayline_rabbitmq::RabbitBackend::connect(config).await?))
}

#[cfg(not(feature = "rabbitmq"))]
async fn rabbitmq(_url: &str) -> Result<Arc<dyn DelayBackend>> {
    Err(left_out(&RABBITMQ))
}

#[cfg_attr(
    all(feature = "memory", feature = "redis", feature = "postgres", feature = "rabbitmq"),
    expect(dead_code, reason = "nothing is left out")
)]
fn left_out(family: &Family) -> Error {
    let (scheme, feature) = (family.schemes[0], family.feature);
    config(format!("`{scheme}:` URLs need the Cargo feature `{feature}`; {}", compiled_in()))
}

fn compiled_in() -> String {
    let all = [
        ("memory", cfg!(feature = "memory")),
        ("redis", cfg!(feature = "redis")),
        ("postgres", cfg!(feature = "postgres")),
        ("rabbitmq", cfg!(feature = "rabbitmq")),
    ];
    let names: Vec<_> = all.into_iter().filter(|(_, here)| *here).map(|(name, _)| name).collect();
    if names.is_empty() { "no backend is compiled in".into() } else { format!("compiled in: {}", names.join(", ")) }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// The URL that was probably meant by `HOST:PORT`, by the port's usual service. Other numbers may be part of a secret.
fn with_scheme(host: &str, port: &str) -> Option<String> {
    if host.is_empty() || shown(host) != host {
        return None;
    }
    let scheme = match port {
        "6379" => "redis",
        "5432" => "postgres",
        "5671" => "amqps",
        "5672" => "amqp",
        _ => return None,
    };
    Some(format!("{scheme}://{host}:{port}"))
}

/// The scheme, if a message may show it. Text that is not a scheme may be part of a secret.
fn shown(scheme: &str) -> &str {
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    if scheme.len() <= 32 && scheme.bytes().all(is_scheme) { scheme } else { "..." }
}
