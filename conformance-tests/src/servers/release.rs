//! Which server programs there are on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Result, ServerError, io};
use super::kind::Kind;

/// The programs of one version of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Whose.
    pub kind: Kind,
    /// Its name: `installed`, or such as `redis-6.2`.
    pub name: String,
    /// The root file system that it runs in, where that is not ours.
    pub root: Option<PathBuf>,
    /// The folder of its programs, as seen from that root.
    pub programs: PathBuf,
    /// The program that starts it.
    pub program: String,
}

/// Where `scripts/servers install --matrix` puts what: name, kind, folder of a root file system, folder of its programs
/// within, the program.
const MATRIX: [(&str, Kind, Option<&str>, &str, &str); 9] = [
    ("redis-6.2", Kind::Redis, None, "redis-6.2/bin", "redis-server"),
    ("redis-8.0", Kind::Redis, Some("sid"), "/usr/bin", "redis-server"),
    ("valkey-8.1", Kind::Redis, Some("trixie"), "/usr/bin", "valkey-server"),
    ("valkey-9.1", Kind::Redis, Some("sid"), "/usr/bin", "valkey-server"),
    ("postgres-14", Kind::Postgres, None, "postgres-14/bin", "postgres"),
    ("postgres-17", Kind::Postgres, Some("trixie"), "/usr/lib/postgresql/17/bin", "postgres"),
    ("postgres-18", Kind::Postgres, None, "postgres-18/bin", "postgres"),
    ("rabbitmq-4.0", Kind::RabbitMq, Some("trixie"), "/usr/lib/rabbitmq/bin", "rabbitmq-server"),
    ("rabbitmq-4.3", Kind::RabbitMq, Some("sid"), "/usr/lib/rabbitmq/bin", "rabbitmq-server"),
];

impl Release {
    /// The release that `DELAYLINE_RELEASE_...` names, or the installed one.
    ///
    /// # Errors
    /// [`ServerError::NoRelease`], [`ServerError::Missing`].
    pub fn chosen(kind: Kind) -> Result<Self> {
        match std::env::var(format!("DELAYLINE_RELEASE_{}", kind.name().to_uppercase())) {
            Ok(name) if !name.is_empty() => Self::named(kind, &name),
            _ => Self::installed(kind),
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    /// [`ServerError::NoRelease`], [`ServerError::Missing`] for `installed`.
    pub fn named(kind: Kind, name: &str) -> Result<Self> {
        if name == "installed" {
            return Self::installed(kind);
        }
        let all = Self::all(kind);
        let known = all.iter().map(|release| release.name.clone()).collect::<Vec<_>>().join(", ");
        let found = all.into_iter().find(|release| release.name == name);
        found.ok_or_else(|| ServerError::NoRelease { name: name.into(), kind, known })
    }

    /// The one that the machine's packages brought.
    ///
    /// # Errors
    /// [`ServerError::Missing`], with the command to install it.
    pub fn installed(kind: Kind) -> Result<Self> {
        let (program, folders) = match kind {
            Kind::Redis if on_path("redis-server").is_none() => ("valkey-server", vec![]),
            Kind::Redis => ("redis-server", vec![]),
            Kind::Postgres => ("postgres", debian_postgres()),
            // The wrapper in sbin refuses whoever is neither root nor its own user; this one doesn't.
            Kind::RabbitMq => ("rabbitmq-server", vec![PathBuf::from("/usr/lib/rabbitmq/bin")]),
        };
        let here = folders.into_iter().find(|folder| folder.join(program).is_file()).or_else(|| on_path(program));
        match here {
            Some(programs) => {
                Ok(Self { kind, name: "installed".into(), root: None, programs, program: program.into() })
            }
            None => Err(ServerError::Missing { program: program.into(), kind }),
        }
    }

    /// Every release of a kind that is on this machine.
    #[must_use]
    pub fn all(kind: Kind) -> Vec<Self> {
        let base = matrix_dir();
        let others = MATRIX.iter().filter(|entry| entry.1 == kind).map(|(name, kind, root, programs, program)| Self {
            kind: *kind,
            name: (*name).into(),
            root: root.map(|root| base.join(root)),
            programs: if root.is_some() { PathBuf::from(programs) } else { base.join(programs) },
            program: (*program).into(),
        });
        Self::installed(kind).ok().into_iter().chain(others.filter(Self::is_there)).collect()
    }

    pub(super) fn is_there(&self) -> bool {
        self.outside(&self.programs.join(&self.program)).is_file()
    }

    /// A path of its root file system as we see it.
    #[must_use]
    pub fn outside(&self, inside: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(inside.strip_prefix("/").unwrap_or(inside)),
            None => inside.to_path_buf(),
        }
    }

    /// Runs one of its programs, in its root.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        match &self.root {
            Some(root) => {
                let mut command = Command::new("chroot");
                command.arg(root).arg(path);
                command
            }
            None => Command::new(path),
        }
    }

    /// What it says of its version.
    ///
    /// # Errors
    /// [`ServerError::Io`], if it can't be run.
    pub fn version(&self) -> Result<String> {
        let output = match self.kind {
            Kind::Redis | Kind::Postgres => self.command(&self.program).arg("--version").output(),
            // Without a node, this is known by its package alone.
            Kind::RabbitMq => self.command("rabbitmqctl").arg("version").output(),
        };
        let output = io(output, || format!("running {} --version", self.program))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let digits = |word: &&str| word.chars().any(|c| c.is_ascii_digit()) && word.contains('.');
        let word = text.split(|c: char| c.is_whitespace() || c == '=').find(digits);
        Ok(word.unwrap_or(text.trim()).to_string())
    }
}

/// Debian keeps PostgreSQL's programs off the path, one folder a version; the newest first.
fn debian_postgres() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return vec![] };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, bin)| bin).collect()
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| folder.join(program).is_file())
}

/// Where other versions are kept: `DELAYLINE_SERVERS_DIR`, or `delayline/servers` in the user's cache; for root in
/// `/var/cache`, because its own can't be read by the users that servers run as.
#[must_use]
pub fn matrix_dir() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("DELAYLINE_SERVERS_DIR").unwrap_or_else(|| {
        let own = || var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache")));
        let cache = if nix::unistd::Uid::effective().is_root() { Some("/var/cache".into()) } else { own() };
        cache.unwrap_or_else(std::env::temp_dir).join("delayline").join("servers")
    })
}
