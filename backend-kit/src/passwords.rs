//! Passwords that others than their server may read: they are warned of.

use std::collections::BTreeSet;
use std::net::IpAddr;

use parking_lot::Mutex;

/// A password that is sent unencrypted, or to a server whose certificate is not checked.
#[derive(Clone, Copy, Debug)]
pub struct ExposedPassword<'a> {
    /// Name or address of the server's host, or the directory of its Unix socket.
    pub host: &'a str,
    /// The server for people: `example.org:6379`. Never the URL, which holds the password.
    pub server: &'a str,
    /// How the password is sent: `unencrypted`.
    pub how: &'a str,
    /// What to set instead: `` `rediss://` ``.
    pub instead: &'a str,
}

impl ExposedPassword<'_> {
    /// Warns of it, once for each server in a process. A password that stays on this machine is not warned of: `localhost`,
    /// `127.0.0.0/8`, `::1` and Unix sockets. Names are not resolved.
    pub fn warn(&self) {
        static WARNED: Warned = Warned::new();
        if !is_this_machine(self.host) && WARNED.is_first(self.server) {
            let Self { server, how, instead, .. } = self;
            tracing::warn!(server, "the password is sent to this server {how}; use {instead}");
        }
    }
}

/// How many servers a process warns of. It says nothing of further ones, so that neither memory nor logs grow without limit.
const SERVERS_MAX: usize = 256;

/// The servers that were warned of.
struct Warned(Mutex<BTreeSet<String>>);

impl Warned {
    const fn new() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }

    fn is_first(&self, server: &str) -> bool {
        let mut warned = self.0.lock();
        warned.len() < SERVERS_MAX && warned.insert(server.to_owned())
    }
}

fn is_this_machine(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.starts_with('/') || host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_names_and_addresses() {
        for host in
            ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1", "/var/run"]
        {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "10.0.0.1", "128.0.0.1", "0.0.0.0", "::2", "[fe80::1]", ""]
        {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn each_server_is_warned_of_once_up_to_a_limit() {
        let warned = Warned::new();
        assert!(warned.is_first("a:1") && !warned.is_first("a:1") && warned.is_first("a:2"));
        let others = (0..SERVERS_MAX).filter(|n| warned.is_first(&format!("b:{n}"))).count();
        assert_eq!(others, SERVERS_MAX - 2);
        assert!(!warned.is_first("c:1"));
    }
}
