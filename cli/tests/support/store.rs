//! A store that outlives the program, for tests: a private server, started once per test binary.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::atomic::{AtomicU32, Ordering};

use delayline_conformance::servers::{self, Kind};
use serde_json::Value;

use super::{Ended, Running, delayline, parse, start};

/// A queue for one test on a server, and the program on it.
pub(crate) struct Store {
    pub(crate) url: String,
    pub(crate) queue: String,
}

impl Store {
    /// A queue that no other test uses.
    pub(crate) fn on(kind: Kind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let url = servers::given(kind).unwrap_or_else(|| {
            let server = servers::shared(kind).unwrap_or_else(|e| panic!("{e}"));
            let server = server.lock();
            server.url()
        });
        let queue = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { url, queue }
    }

    /// `delayline ARGS --backend URL --queue QUEUE`, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, b"")
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ended {
        delayline(&self.args(args), stdin)
    }

    /// The same, which has to end well.
    pub(crate) fn ok(&self, args: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{args:?}: {ended:?}");
        ended
    }

    /// What `ARGS --json` answers: one JSON document, and this exit code.
    pub(crate) fn json(&self, args: &[&str], code: i32) -> Value {
        let ended = self.run(&[args, &["--json"]].concat());
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
        assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
        parse(&ended.stdout)
    }

    /// Pushes these lines.
    pub(crate) fn push(&self, lines: &str) -> Ended {
        let ended = self.run_with(&["push"], lines.as_bytes());
        assert_eq!(ended.code, 0, "{ended:?}");
        ended
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        start(&self.args(args))
    }

    /// The one queue's counts.
    pub(crate) fn stats(&self) -> Value {
        self.json(&["stats"], 0)["queues"][0].take()
    }

    pub(crate) fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [args, &["--backend", &self.url, "--queue", &self.queue]].concat()
    }
}

/// Runs tests, which are functions of a [`Store`], on every store that is compiled in.
#[allow(unused_macros, reason = "each test file uses its part")]
macro_rules! on_every_store {
    ($($test:ident)*) => {
        #[cfg(feature = "redis")]
        mod redis {
            use delayline_conformance::servers::Kind;
            $(#[test] fn $test() { super::$test(&crate::support::store::Store::on(Kind::Redis)); })*
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            use delayline_conformance::servers::Kind;
            $(#[test] fn $test() { super::$test(&crate::support::store::Store::on(Kind::Postgres)); })*
        }
    };
}
#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use on_every_store;
