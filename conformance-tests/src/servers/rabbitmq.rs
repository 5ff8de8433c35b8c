//! RabbitMQ: one node, or a cluster of three on one machine, with a port mapper (`epmd`) of its own.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::{Result, ServerError, io};
use super::kind::Kind;
use super::release::Release;
use super::sandbox::{Process, Sandbox, free_port, run};
use super::server::{START_MAX, Server};
use crate::harness::Resources;

/// One RabbitMQ node.
#[derive(Debug)]
pub struct Rabbit {
    node: Node,
    version: String,
    process: Process,
    /// Ends with the sandbox.
    _mapper: Process,
    sandbox: Sandbox,
}

/// What a node is started with.
#[derive(Clone, Debug)]
struct Node {
    release: Release,
    name: String,
    port: u16,
    /// Where the nodes of a cluster talk to each other.
    cluster_port: u16,
    mapper_port: u16,
    /// Lines of `rabbitmq.conf`.
    settings: Vec<String>,
}

impl Rabbit {
    /// Starts one with further lines of `rabbitmq.conf`, such as `["consumer_timeout = 60000"]`.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(release: &Release, settings: &[&str]) -> Result<Self> {
        let mut sandbox = Sandbox::new(release)?;
        let mapper_port = free_port(None)?;
        let mapper = start_mapper(release, &mut sandbox, mapper_port)?;
        let node = Node::new(release, "delayline", mapper_port, settings)?;
        let mut process = node.spawn(&mut sandbox)?;
        node.wait_ready(&mut process)?;
        let version = node.version(&sandbox)?;
        Ok(Self { node, version, process, _mapper: mapper, sandbox })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.node.port
    }

    /// Runs `rabbitmqctl` with these arguments and answers what it said.
    ///
    /// # Errors
    /// [`ServerError::Failed`] with what it said.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        self.node.control(&self.sandbox, arguments)
    }
}

impl Node {
    fn new(release: &Release, name: &str, mapper_port: u16, settings: &[&str]) -> Result<Self> {
        Ok(Self {
            release: release.clone(),
            name: name.into(),
            port: free_port(None)?,
            cluster_port: free_port(None)?,
            mapper_port,
            settings: settings.iter().map(ToString::to_string).collect(),
        })
    }

    fn full_name(&self) -> String {
        format!("{}@localhost", self.name)
    }

    /// A program of the release with the environment that makes it ours and not the machine's.
    fn command(&self, program: &str, inside: &Path) -> Command {
        let mut command = self.release.command(program);
        let own = inside.join(&self.name);
        command
            // For the cookie, which nodes and tools share.
            .env("HOME", inside)
            .env("RABBITMQ_NODENAME", self.full_name())
            .env("RABBITMQ_MNESIA_BASE", own.join("data"))
            .env("RABBITMQ_LOG_BASE", own.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", own.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", own.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", own.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", own.join("env.conf"))
            .env("RABBITMQ_PID_FILE", own.join("pid"))
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_DIST_PORT", self.cluster_port.to_string())
            .env("RABBITMQ_SERVER_START_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("ERL_EPMD_PORT", self.mapper_port.to_string())
            // Two schedulers: a node for each core would starve the tests.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2")
            .env("LANG", "C.UTF-8")
            .current_dir("/");
        command
    }

    fn spawn(&self, sandbox: &mut Sandbox) -> Result<Process> {
        let own = sandbox.outside().join(&self.name);
        io(std::fs::create_dir_all(&own), || format!("making {}", own.display()))?;
        let mut config = format!("listeners.tcp.default = 127.0.0.1:{}\n", self.port);
        // The machine's disk and memory are not what is tested.
        config.push_str("disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.relative = 0.6\n");
        config.push_str("log.file.level = warning\nlog.console = false\n");
        self.settings.iter().for_each(|line| writeln!(config, "{line}").expect("a String takes text"));
        let files =
            [("rabbitmq.conf", config.as_str()), ("plugins", "[]."), ("env.conf", ""), ("advanced.config", "[].")];
        for (file, text) in files {
            sandbox.write(&format!("{}/{file}", self.name), text)?;
        }
        let command = self.command(&self.release.program, sandbox.inside());
        sandbox.spawn(&self.name, command)
    }

    /// Waits until it speaks AMQP, which it does when all of it is up.
    fn wait_ready(&self, process: &mut Process) -> Result<()> {
        process.wait_until(START_MAX, || speaks(self.port).then_some(()))
    }

    fn control(&self, sandbox: &Sandbox, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("rabbitmqctl", sandbox.inside());
        command.args(["-n", &self.full_name(), "-q"]).args(arguments);
        run(command, &format!("rabbitmqctl {}", arguments.first().unwrap_or(&"")))
    }

    fn version(&self, sandbox: &Sandbox) -> Result<String> {
        let text = self.control(sandbox, &["eval", "rabbit_misc:version()."])?;
        Ok(text.trim().trim_matches('"').to_string())
    }

    fn resources(&self, sandbox: &Sandbox) -> Result<Resources> {
        // Numbers in a fixed order, so that no Erlang term has to be read. What the queues and channels say themselves: the
        // broker's own sums are up to five seconds old.
        let names = ["queues", "exchanges", "bindings", "connections", "channels", "consumers", "ready", "unacked"];
        let text = self.control(
            sandbox,
            &[
                "eval",
                "Queues = rabbit_amqqueue:list(), \
                 Stats = [rabbit_amqqueue:stat(Q) || Q <- Queues], \
                 Unacked = [catch rabbit_channel:info(C, [messages_unacknowledged]) || C <- rabbit_channel:list()], \
                 Of = fun(F) -> lists:sum([length(F(V)) || V <- rabbit_vhost:list_names()]) end, \
                 lists:flatten(lists:join(32, [integer_to_list(N) || N <- [length(Queues), \
                    Of(fun rabbit_exchange:list/1), Of(fun rabbit_binding:list/1), \
                    length(rabbit_networking:connections()), length(rabbit_channel:list()), \
                    lists:sum([N || {ok, _, N} <- Stats]), lists:sum([N || {ok, N, _} <- Stats]), \
                    lists:sum([N || [{_, N}] <- Unacked])]])).",
            ],
        )?;
        let numbers: Vec<u64> = text.trim().trim_matches('"').split(' ').filter_map(|n| n.parse().ok()).collect();
        if numbers.len() != names.len() {
            return Err(ServerError::failed(format!("rabbitmqctl counted {text:?}")));
        }
        Ok(Resources(names.iter().map(ToString::to_string).zip(numbers).collect()))
    }

    fn disconnect(&self, sandbox: &Sandbox) -> Result<()> {
        self.control(sandbox, &["close_all_connections", "cut by the test"]).map(drop)
    }
}

/// Erlang's port mapper: ours, in the foreground, so that it ends with the sandbox and the machine's is left alone.
fn start_mapper(release: &Release, sandbox: &mut Sandbox, port: u16) -> Result<Process> {
    let mut command = match &release.root {
        Some(root) => {
            let mut command = Command::new("chroot");
            command.arg(root).arg("/usr/bin/epmd");
            command
        }
        None => Command::new("epmd"),
    };
    command.args(["-port", &port.to_string(), "-address", "127.0.0.1"]);
    let mut process = match sandbox.spawn("epmd", command) {
        Err(ServerError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(ServerError::Missing { program: "epmd".into(), kind: Kind::RabbitMq });
        }
        other => other?,
    };
    process.wait_until(START_MAX, || TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))?;
    Ok(process)
}

/// Whether somebody there answers AMQP's greeting with a method frame.
fn speaks(port: u16) -> bool {
    let greet = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    greet().is_ok_and(|kind| kind == 1)
}

impl Server for Rabbit {
    fn kind(&self) -> Kind {
        Kind::RabbitMq
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.node.port)
    }

    fn kill(&mut self) -> Result<()> {
        self.sandbox.kill(&mut self.process)
    }

    fn start(&mut self) -> Result<()> {
        self.process = self.node.spawn(&mut self.sandbox)?;
        self.node.wait_ready(&mut self.process)
    }

    fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }

    fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    fn disconnect(&mut self) -> Result<()> {
        self.node.disconnect(&self.sandbox)
    }

    fn resources(&mut self) -> Result<Resources> {
        self.node.resources(&self.sandbox)
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Three nodes that form a cluster.
#[derive(Debug)]
pub struct RabbitCluster {
    nodes: Vec<(Node, Process)>,
    _mapper: Process,
    sandbox: Sandbox,
}

impl RabbitCluster {
    /// Starts the nodes and joins them.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(release: &Release) -> Result<Self> {
        let mut sandbox = Sandbox::new(release)?;
        let mapper_port = free_port(None)?;
        let mapper = start_mapper(release, &mut sandbox, mapper_port)?;
        let mut cluster = Self { nodes: Vec::new(), _mapper: mapper, sandbox };
        for name in ["one", "two", "three"] {
            let node = Node::new(release, name, mapper_port, &[])?;
            let process = node.spawn(&mut cluster.sandbox)?;
            cluster.nodes.push((node, process));
        }
        for (node, process) in &mut cluster.nodes {
            node.wait_ready(process)?;
        }
        let first = cluster.nodes[0].0.full_name();
        for (node, process) in &mut cluster.nodes[1..] {
            for step in [&["stop_app"][..], &["reset"], &["join_cluster", &first], &["start_app"]] {
                node.control(&cluster.sandbox, step)?;
            }
            node.wait_ready(process)?;
        }
        Ok(cluster)
    }

    /// The URLs of the nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|(node, _)| format!("amqp://guest:guest@127.0.0.1:{}/%2f", node.port)).collect()
    }

    /// Kills a node as by `kill -9`.
    ///
    /// # Errors
    /// [`ServerError::Io`].
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.sandbox.kill(&mut self.nodes[node].1)
    }

    /// Starts a node again with its data.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        let (node, process) = &mut self.nodes[node];
        *process = node.spawn(&mut self.sandbox)?;
        node.wait_ready(process)
    }

    /// How many nodes run, as a node sees it.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    pub fn running(&self, seen_by: usize) -> Result<usize> {
        let text = self.nodes[seen_by].0.control(&self.sandbox, &["eval", "length(rabbit_nodes:list_running())."]);
        // The name of 3.10, which 4.x no longer has.
        let text = text.or_else(|_| {
            self.nodes[seen_by].0.control(&self.sandbox, &["eval", "length(rabbit_nodes:all_running())."])
        })?;
        text.trim().parse().map_err(|_| ServerError::failed(format!("rabbitmqctl answered {text:?}")))
    }
}
