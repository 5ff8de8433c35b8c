//! PgBouncer in front of a PostgreSQL server, which hands each transaction to another of its sessions.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Result, ServerError};
use super::kind::Kind;
use super::postgres::{PASSWORD, Postgres, ROLE, command, give_away};
use super::release::{Release, matrix_dir};
use super::sandbox::{Process, Sandbox, free_port};
use super::server::START_MAX;

/// The one that `scripts/servers install --matrix` brings.
const NEWER: &str = "pgbouncer-1.26";

/// A pooler in transaction mode with four sessions, each transaction on the next of them.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    /// Before the sandbox, whose files it uses.
    _process: Process,
    _sandbox: Sandbox,
}

impl PgBouncer {
    /// Starts one in front of a server.
    ///
    /// # Errors
    /// [`ServerError`]; [`ServerError::Missing`] names the command that installs it.
    pub fn start(server: &Postgres) -> Result<Self> {
        let release = chosen()?;
        let mut sandbox = Sandbox::new(&release)?;
        let port = free_port(None)?;
        give_away(&release, &sandbox)?;
        sandbox.write("users", &format!("\"{ROLE}\" \"{PASSWORD}\"\n"))?;
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 4\nserver_round_robin = 1\n",
            server.port(),
            sandbox.inside().join("users").display(),
        );
        sandbox.write("settings", &settings)?;
        // It refuses root, as PostgreSQL does.
        let mut serve = command(&release, &release.program)?;
        serve.arg(sandbox.inside().join("settings"));
        let mut process = sandbox.spawn("pgbouncer", serve)?;
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        process.wait_until(START_MAX, || TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok())?;
        Ok(Self { port, _process: process, _sandbox: sandbox })
    }

    /// The URL that a backend connects to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{ROLE}:{PASSWORD}@127.0.0.1:{}/{ROLE}", self.port)
    }
}

/// The one that `DELAYLINE_RELEASE_PGBOUNCER` names, or the installed one.
fn chosen() -> Result<Release> {
    let name = std::env::var("DELAYLINE_RELEASE_PGBOUNCER").unwrap_or_default();
    if name.is_empty() || name == "installed" {
        return installed();
    }
    let root = matrix_dir().join("sid");
    let (kind, program) = (Kind::Postgres, "pgbouncer".into());
    let release = Release { kind, name, root: Some(root), programs: "/usr/sbin".into(), program };
    if release.name == NEWER && release.is_there() {
        return Ok(release);
    }
    Err(ServerError::failed(format!(
        "there is no release `{}` of pgbouncer; scripts/servers install --matrix brings `{NEWER}`",
        release.name
    )))
}

/// The one that the machine's packages brought.
fn installed() -> Result<Release> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian puts it, which is not on everybody's path.
    let all = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
    let programs = all.into_iter().find(|folder| folder.join("pgbouncer").is_file()).ok_or_else(missing)?;
    let (kind, name, program) = (Kind::Postgres, "pgbouncer".into(), "pgbouncer".into());
    Ok(Release { kind, name, root: None, programs, program })
}

fn missing() -> ServerError {
    ServerError::failed("there is no `pgbouncer` on this machine; install it with: scripts/servers install pgbouncer")
}
