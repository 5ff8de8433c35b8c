//! PostgreSQL: one server, with a role and a database of its own.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User};

use super::error::{Result, io};
use super::kind::Kind;
use super::release::Release;
use super::sandbox::{Process, Sandbox, free_port, run};
use super::server::{START_MAX, Server};
use crate::harness::Resources;

/// The role, which owns everything, and its password, which no error and no log line may show.
pub(super) const ROLE: &str = "delayline";
pub(super) const PASSWORD: &str = "s3cret-of-the-tests";

/// A PostgreSQL server with its default durability: what it acknowledged is on the disk.
#[derive(Debug)]
pub struct Postgres {
    release: Release,
    settings: Vec<String>,
    port: u16,
    version: String,
    process: Process,
    sandbox: Sandbox,
}

impl Postgres {
    /// Starts one with further settings, such as `["fsync=off"]`.
    ///
    /// # Errors
    /// [`ServerError`](super::ServerError).
    pub fn start(release: &Release, settings: &[&str]) -> Result<Self> {
        let mut sandbox = Sandbox::new(release)?;
        let port = free_port(None)?;
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        give_away(release, &sandbox)?;
        sandbox.write("password", PASSWORD)?;
        let mut init = command(release, "initdb")?;
        init.arg("-D").arg(sandbox.inside().join("data")).arg("--pwfile").arg(sandbox.inside().join("password"));
        init.args(["-U", ROLE, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]);
        run(init, "initdb")?;
        let process = sandbox.spawn("postgres", serve(release, &sandbox, port, &settings)?)?;
        let release = release.clone();
        let mut postgres = Self { release, settings, port, version: String::new(), process, sandbox };
        postgres.wait_ready()?;
        postgres.ask_in("postgres", &format!("CREATE DATABASE {ROLE}"))?;
        let version = postgres.ask("SHOW server_version")?;
        postgres.version = version.split_whitespace().next().unwrap_or_default().to_string();
        Ok(postgres)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL in its database, and answers its rows: a line each, columns separated by `|`.
    ///
    /// # Errors
    /// [`ServerError::Failed`](super::ServerError::Failed) with the server's error.
    pub fn ask(&self, sql: &str) -> Result<String> {
        self.ask_in(ROLE, sql)
    }

    fn ask_in(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = command(&self.release, "psql")?;
        psql.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", ROLE, "-d", database]);
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        psql.env("PGPASSWORD", PASSWORD).env("PGAPPNAME", "delayline harness").env("PGCONNECT_TIMEOUT", "10");
        Ok(run(psql, "psql")?.trim_end().to_string())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let mut probe = command(&self.release, "pg_isready")?;
        probe.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        self.process.wait_until(START_MAX, || probe.status().is_ok_and(|status| status.success()).then_some(()))
    }
}

/// One of its programs, as a user that PostgreSQL accepts: it refuses root.
pub(super) fn command(release: &Release, program: &str) -> Result<Command> {
    // In another root file system, the user is that one's; the numbers of Debian's `postgres` may differ there, so nobody.
    let mut command = match (&release.root, is_root()) {
        (Some(root), _) => {
            let (uid, gid) = owner(release);
            let mut command = Command::new("chroot");
            command.arg(format!("--userspec={uid}:{gid}")).arg(root).arg(release.programs.join(program));
            command
        }
        (None, true) => {
            let (uid, gid) = owner(release);
            let mut command = release.command(program);
            command.uid(uid.as_raw()).gid(gid.as_raw());
            command
        }
        (None, false) => release.command(program),
    };
    // It complains of a directory that its user may not enter.
    command.current_dir("/");
    Ok(command)
}

fn serve(release: &Release, sandbox: &Sandbox, port: u16, settings: &[String]) -> Result<Command> {
    let mut serve = command(release, "postgres")?;
    serve.arg("-D").arg(sandbox.inside().join("data")).args(["-p", &port.to_string()]);
    let sockets = format!("unix_socket_directories={}", sandbox.inside().display());
    for setting in ["listen_addresses=127.0.0.1", "max_connections=200", &sockets] {
        serve.args(["-c", setting]);
    }
    settings.iter().for_each(|setting| {
        serve.args(["-c", setting]);
    });
    Ok(serve)
}

fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Whom the data belongs to where we are root.
fn owner(release: &Release) -> (Uid, Gid) {
    let nobody = (Uid::from_raw(65_534), Gid::from_raw(65_534));
    match &release.root {
        Some(_) => nobody,
        None => User::from_name("postgres").ok().flatten().map_or(nobody, |user| (user.uid, user.gid)),
    }
}

pub(super) fn give_away(release: &Release, sandbox: &Sandbox) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let (uid, gid) = owner(release);
    let given = chown(sandbox.outside(), Some(uid.as_raw()), Some(gid.as_raw()));
    io(given, || "giving the directory to the server's user".into())
}

impl Server for Postgres {
    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn url(&self) -> String {
        format!("postgres://{ROLE}:{PASSWORD}@127.0.0.1:{}/{ROLE}", self.port)
    }

    fn kill(&mut self) -> Result<()> {
        self.sandbox.kill(&mut self.process)
    }

    fn start(&mut self) -> Result<()> {
        let serve = serve(&self.release, &self.sandbox, self.port, &self.settings)?;
        self.process = self.sandbox.spawn("postgres", serve)?;
        self.wait_ready()
    }

    fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }

    fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    fn disconnect(&mut self) -> Result<()> {
        let others = "backend_type = 'client backend' AND pid <> pg_backend_pid()";
        self.ask(&format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}")).map(drop)
    }

    fn resources(&mut self) -> Result<Resources> {
        // Our own sessions are left out, also those that are just ending; rows are counted, not estimated.
        let counts = self.ask(
            "WITH others AS (SELECT pid, state FROM pg_stat_activity \
                             WHERE backend_type = 'client backend' AND application_name <> 'delayline harness') \
             SELECT 'sessions', count(*) FROM others \
             UNION ALL SELECT 'idle transactions', count(*) FROM others WHERE state LIKE 'idle in transaction%' \
             UNION ALL SELECT 'locks', count(*) FROM pg_locks WHERE pid IN (SELECT pid FROM others) \
             UNION ALL SELECT 'prepared transactions', count(*) FROM pg_prepared_xacts \
             UNION ALL SELECT 'rows of ' || schemaname || '.' || relname, (xpath('/row/c/text()', query_to_xml( \
                 format('SELECT count(*) AS c FROM %I.%I', schemaname, relname), false, true, '')))[1]::text::bigint \
             FROM pg_stat_user_tables",
        )?;
        let line = |line: &str| {
            let (name, n) = line.rsplit_once('|')?;
            Some((name.to_string(), n.parse().ok()?))
        };
        Ok(Resources(counts.lines().filter_map(line).collect()))
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }
}
