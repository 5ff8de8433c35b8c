//! What needs a server, and a network that fails.

mod backend;
mod connection;
mod faults;
mod notify;
mod start;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use delayline_conformance::proxy::Proxy;
use delayline_conformance::servers::{Kind, Redis, Release, Server};

use crate::RedisConfig;
use crate::transport::{Connection, Script};

static ECHO: Script = Script::new("echo", "return ARGV[1]", true);
static COUNT: Script = Script::new("count", "return redis.call('INCR', KEYS[1])", false);

/// A server of one's own; outside the runtime's threads, because starting it blocks.
async fn server(arguments: &'static [&'static str]) -> Redis {
    let start = move || Redis::start(&Release::chosen(Kind::Redis).unwrap(), arguments).unwrap();
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn config(url: &str) -> RedisConfig {
    RedisConfig::from_url(url).unwrap().response_timeout(Duration::from_millis(400))
}

fn connection(url: &str) -> Connection {
    Connection::new(&config(url)).unwrap()
}

async fn proxied(server: &Redis) -> (Proxy, String) {
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let url = proxy.url(&server.url());
    (proxy, url)
}

async fn echo(connection: &Connection, text: &str) -> delayline_core::Result<String> {
    let answer = connection.eval(&ECHO, &[], vec![text.into()]).await?;
    Ok(redis::from_redis_value(answer).unwrap())
}

async fn count(connection: &Connection) -> delayline_core::Result<u64> {
    let answer = connection.eval(&COUNT, &[b"{delayline}:count"], vec![]).await?;
    Ok(redis::from_redis_value(answer).unwrap())
}
