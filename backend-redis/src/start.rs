//! Checks before the first call: whether this backend can keep its promises on this server.

use std::collections::HashMap;

use delayline_core::{Durability, Error, ErrorKind, Result};
use redis::{Value, from_redis_value};

use crate::transport::{Connection, Script};
use crate::{RedisConfig, keys};

static PROBE: Script = Script::new("probe.lua", include_str!("scripts/probe.lua"), true);

/// The oldest supported version. It introduced `ZMSCORE`, `ZRANGESTORE` and `HELLO 3` for scripts.
const OLDEST: (u32, u32) = (6, 2);

/// Every command that the scripts call, in a form that has no effect on a missing key or that undoes the command before
/// it. `@` stands for that key, `#` for a channel.
const COMMANDS: &[&str] = &[
    "TIME",
    "EXISTS @",
    "TYPE @",
    "ZADD @ XX 0 x",
    "ZREM @ x",
    "ZRANGE @ 0 0",
    "ZRANGEBYSCORE @ 0 0",
    "ZRANGEBYLEX @ - +",
    "ZCARD @",
    "ZCOUNT @ 0 0",
    "ZLEXCOUNT @ - +",
    "ZSCORE @ x",
    "ZMSCORE @ x",
    "ZREMRANGEBYRANK @ 0 0",
    "ZPOPMIN @",
    "HGET @ x",
    "HMGET @ x",
    "HGETALL @",
    "HLEN @",
    "HEXISTS @ x",
    "HSCAN @ 0",
    "HSET @ x 1",
    "HINCRBY @ x 1",
    "HDEL @ x",
    "SET @ x XX",
    "GET @",
    "PEXPIRE @ 1",
    "PTTL @",
    "LPUSH @ x",
    "LLEN @",
    "LRANGE @ 0 0",
    "LTRIM @ 1 0",
    "RPUSH @ x",
    "DEL @",
    "UNLINK @",
    "PUBLISH # x",
];

/// Checks the server and the permissions of this user.
///
/// # Errors
/// - [`Denied`](ErrorKind::Denied) for a wrong password, and for a required command that this user may not run. The
///   error names the command.
/// - [`Incompatible`](ErrorKind::Incompatible) for a server that is not Redis, is too old, is a replica or is a cluster
///   node.
/// - [`Config`](ErrorKind::Config) for an eviction policy that deletes tasks, and for a server without the persistence
///   that durability `disk` requires.
/// - [`Unavailable`](ErrorKind::Unavailable).
pub(crate) async fn check(connection: &Connection, config: &RedisConfig) -> Result<()> {
    let server = config.server();
    let info = connection.read("INFO", &redis::cmd("INFO")).await.map_err(|e| e.context(&server))?;
    let info = info_text(info);
    check_info(&info).map_err(|e| e.context(&server))?;
    if config.durability == Durability::Disk {
        check_disk(connection, &info).await.map_err(|e| e.context(&server))?;
    }
    check_commands(connection, config).await.map_err(|e| e.context(&server))?;
    check_formats(connection, config).await.map_err(|e| e.context(&server))
}

/// Looks for queues of a newer format among the first keys of the server. This only reports the problem earlier: every
/// script checks the format of its queue again.
async fn check_formats(connection: &Connection, config: &RedisConfig) -> Result<()> {
    const PAGES: usize = 4;
    let pattern = keys::queues_pattern(&config.key_prefix);
    let mut cursor = 0u64;
    for _ in 0..PAGES {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1_000);
        let page = connection.read("SCAN", &scan).await?;
        let unreadable = |_| Error::new(ErrorKind::Corrupt, "unexpected reply to SCAN");
        let (next, found): (u64, Vec<Vec<u8>>) = from_redis_value(page).map_err(unreadable)?;
        for key in found {
            // Another program's key of that name does not matter until its queue is used.
            let Ok(Value::BulkString(layout)) = connection.read("HGET", redis::cmd("HGET").arg(&key).arg("n")).await
            else {
                continue;
            };
            if let Some(format) = keys::newer_format(&layout) {
                return Err(keys::newer(&String::from_utf8_lossy(&key), format));
            }
        }
        if next == 0 {
            break;
        }
        cursor = next;
    }
    Ok(())
}

fn info_text(value: Value) -> String {
    from_redis_value(value).unwrap_or_default()
}

fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Settings with which Redis acknowledges nothing before it is on disk.
const ON_DISK: [(&str, &str); 2] = [("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")];

/// Checks that what the server acknowledges survives a crash of the server, as far as this user may read the settings.
async fn check_disk(connection: &Connection, info: &str) -> Result<()> {
    let otherwise = |is: &str| {
        let wanted = "`appendonly yes`, `appendfsync always` and `no-appendfsync-on-rewrite no`";
        Error::new(ErrorKind::Config, format!("durability `disk` requires {wanted}, but {is}"))
    };
    if field(info, "aof_enabled") != Some("1") {
        return Err(otherwise("the server has no append-only file"));
    }
    for (name, wanted) in ON_DISK {
        let answer = match connection.read("CONFIG", redis::cmd("CONFIG").arg("GET").arg(name)).await {
            Ok(answer) => answer,
            // The user may not run CONFIG, or a managed service removed it: trust the declared durability.
            Err(e) if matches!(e.kind(), ErrorKind::Denied | ErrorKind::Incompatible) => {
                let what = "durability `disk` is declared unchecked: this user may not read the server's settings";
                tracing::warn!(error = %e, "{what}, grant `+config|get`");
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let settings: HashMap<String, String> = from_redis_value(answer).unwrap_or_default();
        if let Some(set) = settings.get(name).filter(|set| *set != wanted) {
            return Err(otherwise(&format!("`{name}` is `{set}`")));
        }
    }
    Ok(())
}

fn check_info(info: &str) -> Result<()> {
    let field = |name: &str| field(info, name);
    let Some(version) = field("redis_version") else {
        return Err(incompatible("Redis or Valkey required: INFO returned no `redis_version`"));
    };
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < OLDEST {
        let (a, b) = OLDEST;
        return Err(incompatible(format!(
            "Redis {a}.{b} or newer, or Valkey, required: the server is Redis {version}"
        )));
    }
    if field("cluster_enabled").is_some_and(|enabled| enabled != "0") {
        return Err(incompatible("the server is a cluster node (`cluster-enabled yes`), which is not supported yet"));
    }
    if field("role").is_some_and(|role| role != "master") {
        return Err(incompatible("the server is a read-only replica: connect to its master"));
    }
    if field("loading").is_some_and(|loading| loading != "0") {
        return Err(Error::new(ErrorKind::Unavailable, "the server is loading its data: try again later"));
    }
    match field("maxmemory_policy") {
        None | Some("noeviction") => Ok(()),
        Some(policy) => Err(Error::new(
            ErrorKind::Config,
            format!(
                "`maxmemory-policy` is `{policy}`, which deletes tasks when memory is short: set it to `noeviction`"
            ),
        )),
    }
}

async fn check_commands(connection: &Connection, config: &RedisConfig) -> Result<()> {
    let key = format!("{{{}:probe}}", config.key_prefix);
    // The channels of the queues begin with the prefix, too, but without the braces that the keys have.
    let channel = format!("{}:probe:w", config.key_prefix);
    let mut args = Vec::new();
    for command in COMMANDS {
        let words: Vec<_> = command.split(' ').map(|word| if word == "#" { &channel } else { word }).collect();
        args.push(words.len().to_string().into_bytes());
        args.extend(words.iter().map(|word| word.as_bytes().to_vec()));
    }
    // The backend needs EVALSHA and EVAL. On a server that has cached this script, EVALSHA alone wouldn't show that
    // EVAL is forbidden.
    let needs = || format!("user `{}` needs EVAL, EVALSHA and the keys `~{{{}:*`", config.user(), config.key_prefix);
    let denied = |e: Error| if e.kind() == ErrorKind::Denied { e.context(needs()) } else { e };
    let refused = connection.eval_text(&PROBE, &[key.as_bytes()], args).await.map_err(denied)?;
    connection.eval(&PROBE, &[key.as_bytes()], vec![]).await.map_err(denied)?;
    let refused: Vec<String> =
        from_redis_value(refused).map_err(|_| Error::new(ErrorKind::Corrupt, "unexpected reply to probe.lua"))?;
    for pair in refused.chunks_exact(2) {
        judge(&pair[0], &pair[1], config.user())?;
    }
    connection.may_subscribe(channel.as_bytes()).await
}

fn judge(command: &str, said: &str, user: &str) -> Result<()> {
    // Memory, disk and replicas may recover. Until then, the stored tasks can still be processed.
    let passing = ["OOM", "MISCONF", "NOREPLICAS"].iter().any(|code| said.contains(code));
    let forbidden = ["ACL", "NOPERM", "The user executing the script can't"].iter().any(|text| said.contains(text));
    match (passing, forbidden) {
        (true, _) => Ok(()),
        (_, true) => Err(Error::new(
            ErrorKind::Denied,
            format!("user `{user}` needs {command} on the backend's keys and channels: {said}"),
        )),
        _ => Err(incompatible(format!("{command} is required, but the server answered: {said}"))),
    }
}

fn incompatible(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Incompatible, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "redis_version:7.0.15\r\nrole:master\r\ncluster_enabled:0\r\nmaxmemory_policy:noeviction\r\nloading:0\r\n";

    #[test]
    fn clear_5_each_reason_not_to_start_is_told() {
        check_info(GOOD).unwrap();
        check_info("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n").unwrap();
        for (from, to, kind, says) in [
            ("redis_version:7.0.15", "redis_version:6.0.16", ErrorKind::Incompatible, "6.2 or newer"),
            ("redis_version:7.0.15", "nginx:1", ErrorKind::Incompatible, "Redis or Valkey required"),
            ("role:master", "role:slave", ErrorKind::Incompatible, "replica"),
            ("cluster_enabled:0", "cluster_enabled:1", ErrorKind::Incompatible, "cluster"),
            ("noeviction", "allkeys-lru", ErrorKind::Config, "`maxmemory-policy` is `allkeys-lru`"),
            ("loading:0", "loading:1", ErrorKind::Unavailable, "loading"),
        ] {
            let e = check_info(&GOOD.replace(from, to)).unwrap_err();
            assert!(e.kind() == kind && e.message().contains(says), "{to}: {e}");
        }
    }

    /// If the probe left out a command that a script calls, the server would refuse it only in the middle of an
    /// operation.
    #[test]
    fn every_command_of_the_scripts_is_probed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scripts");
        let mut found = 0;
        for script in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(script.unwrap().path()).unwrap();
            for call in text.split("call('").skip(1).chain(text.split("each('").skip(1)) {
                let name = call.split('\'').next().unwrap();
                found += 1;
                assert!(COMMANDS.iter().any(|command| command.split(' ').next() == Some(name)), "{name} is not probed");
            }
        }
        assert!(found > 20, "{found} calls were found");
    }
}
