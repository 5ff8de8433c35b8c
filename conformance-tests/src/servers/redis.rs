//! Redis and Valkey: one node, or a cluster of three masters with a replica each.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::{Result, ServerError, io};
use super::kind::Kind;
use super::release::Release;
use super::sandbox::{Process, Sandbox, free_port, wait_for};
use super::server::{START_MAX, Server};
use crate::harness::Resources;

/// Where a cluster's bus listens, above the port.
const BUS: u16 = 10_000;

/// A Redis server with an append-only file that is synced every second: what it acknowledged survives `kill -9` unless the disk
/// is slow to sync. With `["--appendfsync", "always"]` it survives for certain.
#[derive(Debug)]
pub struct Redis {
    release: Release,
    arguments: Vec<String>,
    port: u16,
    version: String,
    process: Process,
    sandbox: Sandbox,
}

impl Redis {
    /// Starts one with further arguments, such as `["--maxmemory", "100mb"]`; they come last and so win.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(release: &Release, arguments: &[&str]) -> Result<Self> {
        Self::on_port(release, free_port(None)?, arguments)
    }

    fn on_port(release: &Release, port: u16, arguments: &[&str]) -> Result<Self> {
        let mut sandbox = Sandbox::new(release)?;
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let process = sandbox.spawn("redis", command(release, &sandbox, port, &arguments))?;
        let release = release.clone();
        let mut redis = Self { release, arguments, port, version: String::new(), process, sandbox };
        redis.wait_ready()?;
        let info = redis.ask("INFO server")?;
        redis.version =
            field(&info, "valkey_version").or(field(&info, "redis_version")).unwrap_or_default().to_string();
        Ok(redis)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.sandbox.outside()
    }

    /// Sends one command, as it would be typed, and answers its reply as text; arrays as one line for each element.
    ///
    /// # Errors
    /// [`ServerError::Failed`] with the server's error.
    pub fn ask(&self, command: &str) -> Result<String> {
        ask(self.port, command)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let port = self.port;
        self.process.wait_until(START_MAX, || ask(port, "PING").is_ok_and(|pong| pong == "PONG").then_some(()))
    }
}

fn command(release: &Release, sandbox: &Sandbox, port: u16, arguments: &[String]) -> std::process::Command {
    let mut command = release.command(&release.program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(sandbox.inside());
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--daemonize", "no"]);
    command.args(["--maxmemory-policy", "noeviction", "--loglevel", "notice"]);
    command.args(arguments);
    command
}

impl Server for Redis {
    fn kind(&self) -> Kind {
        Kind::Redis
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) -> Result<()> {
        self.sandbox.kill(&mut self.process)
    }

    fn start(&mut self) -> Result<()> {
        let command = command(&self.release, &self.sandbox, self.port, &self.arguments);
        self.process = self.sandbox.spawn("redis", command)?;
        self.wait_ready()
    }

    fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }

    fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    fn disconnect(&mut self) -> Result<()> {
        for kind in ["normal", "pubsub"] {
            self.ask(&format!("CLIENT KILL TYPE {kind}"))?;
        }
        Ok(())
    }

    fn resources(&mut self) -> Result<Resources> {
        let clients = self.ask("INFO clients")?;
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        // Less the one that asks.
        let connected = field(&clients, "connected_clients").map_or(0, number).saturating_sub(1);
        let blocked = field(&clients, "blocked_clients").map_or(0, number);
        let channels = self.ask("PUBSUB CHANNELS")?.lines().count() as u64;
        let patterns = number(&self.ask("PUBSUB NUMPAT")?);
        let keys = number(&self.ask("DBSIZE")?);
        let counts = [
            ("clients", connected),
            ("blocked clients", blocked),
            ("subscribed channels", channels),
            ("subscribed patterns", patterns),
            ("keys", keys),
        ];
        Ok(Resources(counts.into_iter().map(|(name, n)| (name.to_string(), n)).collect()))
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A cluster of three masters with a replica each.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes and joins them.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(release: &Release) -> Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let port = free_port(Some(BUS))?;
            let arguments =
                ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout"];
            nodes.push(Redis::on_port(release, port, &[&arguments[..], &["2000"]].concat())?);
        }
        let cluster = Self { nodes };
        cluster.join()?;
        Ok(cluster)
    }

    /// The nodes; the first three started as masters.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// The URLs of all nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    fn join(&self) -> Result<()> {
        const SLOTS: u32 = 16_384;
        let (masters, replicas) = self.nodes.split_at(3);
        for (i, node) in self.nodes.iter().enumerate() {
            // Without an epoch of its own each, they would settle on one later, and slots might move meanwhile.
            node.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1))?;
        }
        for (i, master) in masters.iter().enumerate() {
            let (from, to) = (SLOTS * i as u32 / 3, SLOTS * (i as u32 + 1) / 3);
            let slots: Vec<String> = (from..to).map(|slot| slot.to_string()).collect();
            for some in slots.chunks(1_000) {
                master.ask(&format!("CLUSTER ADDSLOTS {}", some.join(" ")))?;
            }
        }
        for node in &self.nodes[1..] {
            node.ask(&format!("CLUSTER MEET 127.0.0.1 {}", self.nodes[0].port))?;
        }
        self.wait("every node to know the others", |node| {
            node.ask("CLUSTER INFO").is_ok_and(|info| field(&info, "cluster_known_nodes") == Some("6"))
        })?;
        for (replica, master) in replicas.iter().zip(masters) {
            let id = master.ask("CLUSTER MYID")?;
            replica.ask(&format!("CLUSTER REPLICATE {id}"))?;
        }
        self.wait_ready()
    }

    /// Waits until every slot is served and every replica is in step.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    pub fn wait_ready(&self) -> Result<()> {
        self.wait("the cluster", |node| {
            let ok = node.ask("CLUSTER INFO").is_ok_and(|info| field(&info, "cluster_state") == Some("ok"));
            let in_step = node.ask("INFO replication").is_ok_and(|info| {
                field(&info, "role") == Some("master") || field(&info, "master_link_status") == Some("up")
            });
            ok && in_step
        })
    }

    fn wait(&self, what: &str, holds: impl Fn(&Redis) -> bool) -> Result<()> {
        match wait_for(START_MAX, || self.nodes.iter().all(&holds)) {
            true => Ok(()),
            false => Err(ServerError::failed(format!("waiting for {what} took more than {START_MAX:?}"))),
        }
    }
}

/// The value of a field in what `INFO` answers.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn ask(port: u16, command: &str) -> Result<String> {
    let what = || format!("asking Redis on port {port}: {}", command.chars().take(40).collect::<String>());
    let mut stream = io(TcpStream::connect(("127.0.0.1", port)), what)?;
    io(stream.set_read_timeout(Some(Duration::from_secs(10))), what)?;
    io(stream.write_all(format!("{command}\r\n").as_bytes()), what)?;
    match reply(&mut BufReader::new(stream)) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(ServerError::failed(format!("{}: {error}", what()))),
        Err(e) => io(Err(e), what),
    }
}

/// One reply of the Redis protocol, version 2; the inner error is the server's.
fn reply(from: &mut impl BufRead) -> std::io::Result<std::result::Result<String, String>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let Some(kind) = line.chars().next() else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
    let rest = &line[1..];
    let length = || rest.parse::<i64>().map_err(std::io::Error::other);
    match kind {
        '+' | ':' => Ok(Ok(rest.to_string())),
        '-' => Ok(Err(rest.to_string())),
        '$' => {
            let Ok(length) = usize::try_from(length()?) else { return Ok(Ok(String::new())) };
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            Ok(Ok(String::from_utf8_lossy(&bytes[..length]).into_owned()))
        }
        '*' => {
            let mut lines = Vec::new();
            for _ in 0..length()? {
                match reply(from)? {
                    Ok(text) => lines.push(text),
                    Err(e) => return Ok(Err(e)),
                }
            }
            Ok(Ok(lines.join("\n")))
        }
        other => Err(std::io::Error::other(format!("a reply that begins with {other:?}"))),
    }
}
