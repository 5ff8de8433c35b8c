//! `conform`, `bench` and `demo` on a server: they work in a namespace of their own, and leave nothing of it behind.
#![cfg(any(feature = "redis", feature = "postgres", feature = "rabbitmq"))]

mod support;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use delayline_conformance::servers::{Kind, Server, start as start_server};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{delayline, parse, start};

/// Held by each test. In sequence the tests are as fast as in parallel, and a busy RabbitMQ 3.10 sometimes answers
/// INTERNAL_ERROR to a program that creates its namespace while another is being removed.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A private server for a test, on which every key, row and queue is counted.
struct Site {
    server: Box<dyn Server>,
    before: BTreeMap<String, u64>,
}

impl Site {
    fn new(kind: Kind) -> Self {
        let mut server = start_server(kind).unwrap_or_else(|e| panic!("{e}"));
        let before = counted(&mut *server);
        Self { server, before }
    }

    fn url(&self) -> String {
        self.server.url()
    }

    #[track_caller]
    fn nothing_is_left(&mut self) {
        assert_eq!(counted(&mut *self.server), self.before);
    }

    fn remove_left(&self, code: i32) -> Value {
        let ended = delayline(&["conform", "--remove-left", "--json", "--backend", &self.url()], b"");
        assert_eq!(ended.code, code, "{ended:?}");
        parse(&ended.stdout)
    }
}

/// The contents of the server, except clients that are disconnecting.
fn counted(server: &mut dyn Server) -> BTreeMap<String, u64> {
    let stays =
        |name: &String| !["clients", "sessions", "connections", "channels", "consumers"].contains(&name.as_str());
    server.resources().expect("it can be counted").0.into_iter().filter(|(name, _)| stays(name)).collect()
}

/// The name that a run writes to standard error.
fn told(line: &str) -> String {
    let at = ["conform", "bench", "demo"]
        .iter()
        .find_map(|name| line.find(&format!("{name}-")).or_else(|| line.find(&format!("{name}_"))));
    let name = &line[at.unwrap_or_else(|| panic!("no namespace in {line}"))..];
    name.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .collect::<String>()
        .replace('_', "-")
        .trim_end_matches('-')
        .to_owned()
}

fn leaves_nothing(kind: Kind) {
    let _alone = alone();
    let mut site = Site::new(kind);
    let url = site.url();
    let ended = delayline(&["conform", "--only", "order_1", "--only", "loss_1", "--backend", &url], b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("working in") && ended.stderr.contains("look with"), "{ended:?}");
    site.nothing_is_left();

    // Interrupted in the middle.
    let running = start(&["conform", "--backend", &url]);
    running.says("working in");
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!(ended.code, 130, "{ended:?}");
    site.nothing_is_left();

    // Kept, and removed by hand.
    let ended = delayline(&["conform", "--only", "order_1", "--keep", "--backend", &url], b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_ne!(counted(&mut *site.server), site.before, "it was to be kept");
    assert_eq!(site.remove_left(0), json!({ "removed": [told(&ended.stderr)], "in_use": [], "failed": [] }));
    site.nothing_is_left();
    assert_eq!(site.remove_left(0), json!({ "removed": [], "in_use": [], "failed": [] }));

    // Killed, while another goes on.
    let killed = start(&["conform", "--backend", &url]);
    let left = told(&killed.says("working in"));
    killed.signal(Signal::SIGKILL);
    drop(killed);
    let alive = start(&["demo", "--candidates", "10", "--exam", "1h", "--backend", &url]);
    let in_use = told(&alive.says("working in"));
    assert_eq!(site.remove_left(0), json!({ "removed": [left], "in_use": [in_use], "failed": [] }));
    alive.signal(Signal::SIGTERM);
    assert_eq!(alive.end().code, 143);
    site.nothing_is_left();

    let bench = ["bench", "--scenario", "herd", "--tasks", "300", "--repeats", "1", "--backend", &url];
    let ended = delayline(&bench, b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    site.nothing_is_left();
    let running = start(&bench);
    running.says("working in");
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().code, 130);
    site.nothing_is_left();
    let ended = delayline(&["demo", "--candidates", "50", "--exam", "1s", "--backend", &url], b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    site.nothing_is_left();
}

#[cfg(feature = "redis")]
#[test]
fn nothing_is_left_on_redis() {
    leaves_nothing(Kind::Redis);
}

#[cfg(feature = "postgres")]
#[test]
fn nothing_is_left_on_postgres() {
    leaves_nothing(Kind::Postgres);
}

#[cfg(feature = "rabbitmq")]
#[test]
fn nothing_is_left_on_rabbitmq() {
    leaves_nothing(Kind::RabbitMq);
}

/// A user who may not create a schema works in queues of the given one.
#[cfg(feature = "postgres")]
#[test]
fn without_the_right_to_make_a_schema_queues_are_told_apart_by_their_names() {
    use delayline_conformance::servers::{Postgres, Release};

    let _alone = alone();
    let mut server = Postgres::start(&Release::chosen(Kind::Postgres).unwrap(), &[]).unwrap();
    server.ask("CREATE ROLE plain LOGIN PASSWORD 'secret'").unwrap();
    server.ask("CREATE SCHEMA delayline AUTHORIZATION plain").unwrap();
    let url = server.url();
    let (scheme, rest) = url.split_once("://").unwrap();
    let url = format!("{scheme}://plain:secret@{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place));

    let left = |server: &mut Postgres| {
        let tables =
            ["task", "queue", "dead", "set_aside"].map(|table| format!("(SELECT count(*) FROM delayline.{table})"));
        server.ask(&format!("SELECT {}", tables.join(" + "))).unwrap().trim().parse::<u64>().unwrap()
    };
    let ended =
        delayline(&["conform", "--only", "order_1", "--only", "drop_3", "--only", "bound_2", "--backend", &url], b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("queues `conform-") && !ended.stderr.contains("secret"), "{ended:?}");
    assert_eq!(left(&mut server), 0);
    let ended = delayline(&["conform", "--only", "order_1", "--keep", "--backend", &url], b"");
    assert!(left(&mut server) > 0, "{ended:?}");
    let removed = delayline(&["conform", "--remove-left", "--backend", &url], b"");
    assert_eq!((removed.code, removed.stdout.trim()), (0, format!("removed {}", told(&ended.stderr)).as_str()));
    assert_eq!(left(&mut server), 0);

    // What belongs to somebody else stays, and is told.
    let others = delayline(&["conform", "--only", "order_1", "--keep", "--backend", &server.url()], b"");
    server.ask("GRANT CREATE ON DATABASE delayline TO plain").unwrap();
    let removed = delayline(&["conform", "--remove-left", "--json", "--backend", &url], b"");
    assert_eq!(removed.code, 1, "{removed:?}");
    let failed = parse(&removed.stdout)["failed"][0].take();
    assert_eq!(failed["name"], told(&others.stderr), "{removed:?}");
    assert!(failed["why"].as_str().is_some_and(|why| why.contains("denied")), "{failed}");
}
