//! Live resources: blocks and bytes of the heap, tasks of the runtime, file descriptors, and the harness's counts.
//!
//! The counting allocator counts the whole process, so tests that look at the heap run alone in theirs
//! ([`leak_suite!`](crate::leak_suite!)).

mod counting;

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use self::counting::{BLOCKS, BYTES};
use crate::harness::Resources;
use crate::trial::Trial;

pub use self::counting::{Counting, is_counting};

/// Time limit for released resources to end.
const SETTLED_MAX: Duration = Duration::from_secs(20);

/// The live resources at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alive {
    /// Blocks of the heap; zero if the counting allocator is not this process's.
    pub blocks: i64,
    /// Bytes of the heap.
    pub bytes: i64,
    /// Tasks of the tokio runtime.
    pub tasks: usize,
    /// Open file descriptors; zero where they can't be counted.
    pub descriptors: usize,
    /// What the harness counts of its clients and its server.
    pub resources: Resources,
}

impl Alive {
    /// Measures, after the runtime's other tasks have had their turn.
    ///
    /// # Panics
    /// If the harness can't read its server.
    pub async fn now(t: &Trial) -> Self {
        // What was told to end gets the chance to.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(if t.is_virtual() { 1 } else { 100 })).await;
        let resources = t.harness().resources().await.expect("the harness's resources");
        Self {
            blocks: BLOCKS.load(Ordering::Relaxed),
            bytes: BYTES.load(Ordering::Relaxed),
            tasks: Handle::current().metrics().num_alive_tasks(),
            descriptors: descriptors(),
            resources,
        }
    }

    /// Measures until the counts no longer fall, and returns them: the resources when none is still being released.
    /// Under virtual time, one measurement is enough.
    ///
    /// # Panics
    /// If the harness can't read its server.
    pub async fn settled(t: &Trial) -> Self {
        let mut now = Self::now(t).await;
        let gives_up = Instant::now() + SETTLED_MAX;
        while !t.is_virtual() && Instant::now() < gives_up {
            let next = Self::now(t).await;
            let is_less = next.blocks < now.blocks || next.tasks < now.tasks || !now.goes_beyond(&next).is_empty();
            now = next;
            if !is_less {
                break;
            }
        }
        now
    }

    fn goes_beyond(&self, baseline: &Self) -> Resources {
        self.resources.beyond(&baseline.resources)
    }

    /// Measures until the harness's server holds no more than in `baseline`, as
    /// [`assert_back_soon`](Self::assert_back_soon) does, but ignores the heap.
    ///
    /// # Panics
    /// If there is more after the longest that a busy machine takes, or if the harness can't read its server.
    pub async fn assert_nothing_more_soon(t: &Trial, baseline: &Self, what: &str) {
        let gives_up = Instant::now() + SETTLED_MAX;
        let mut more = Self::now(t).await.goes_beyond(baseline);
        while !more.is_empty() && !t.is_virtual() && Instant::now() < gives_up {
            more = Self::now(t).await.goes_beyond(baseline);
        }
        assert!(more.is_empty(), "{what} left {more}");
    }

    /// Measures until there is no more than in `baseline`, except some slack of the heap, and then checks it with
    /// [`assert_back`](Self::assert_back): resources that a client of a server has released may take time to end. Under
    /// virtual time they do not, and one measurement is enough.
    ///
    /// # Panics
    /// If there is more after the longest that a busy machine takes, or if the harness can't read its server.
    pub async fn assert_back_soon(t: &Trial, baseline: &Self, slack: Slack, what: &str) {
        let gives_up = Instant::now() + if t.is_virtual() { Duration::ZERO } else { SETTLED_MAX };
        let mut now = Self::now(t).await;
        while !now.is_back(baseline, slack) && Instant::now() < gives_up {
            now = Self::now(t).await;
        }
        now.assert_back(baseline, slack, what);
    }

    fn is_back(&self, baseline: &Self, slack: Slack) -> bool {
        self.blocks - baseline.blocks <= slack.blocks
            && self.bytes - baseline.bytes <= slack.bytes
            && self.tasks <= baseline.tasks
            && self.descriptors <= baseline.descriptors
            && self.goes_beyond(baseline).is_empty()
    }

    /// Checks that there is no more than in `baseline`, except some slack of the heap, and returns what there is.
    ///
    /// # Panics
    /// If there is more.
    pub fn assert_back(&self, baseline: &Self, slack: Slack, what: &str) {
        let (blocks, bytes) = (self.blocks - baseline.blocks, self.bytes - baseline.bytes);
        let more = self.goes_beyond(baseline);
        println!("{what}: {blocks:+} blocks, {bytes:+} bytes; {self}");
        assert!(blocks <= slack.blocks && bytes <= slack.bytes, "{what} left {blocks} blocks with {bytes} bytes");
        assert!(self.tasks <= baseline.tasks, "{what} left {} tasks of the runtime", self.tasks - baseline.tasks);
        assert!(
            self.descriptors <= baseline.descriptors,
            "{what} left {} file descriptors",
            self.descriptors - baseline.descriptors
        );
        assert!(more.is_empty(), "{what} left {more}");
    }
}

impl fmt::Display for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, bytes, tasks, descriptors, resources } = self;
        write!(f, "{blocks} blocks, {bytes} bytes, {tasks} tasks, {descriptors} descriptors")?;
        if !resources.is_empty() {
            write!(f, ", {resources}")?;
        }
        Ok(())
    }
}

/// What any amount of work may leave on the heap: structures keep some memory for the next task. It does not grow with
/// the work.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    /// Blocks.
    pub blocks: i64,
    /// Bytes.
    pub bytes: i64,
}

impl Default for Slack {
    fn default() -> Self {
        Self { blocks: 100, bytes: 64 * 1024 }
    }
}

fn descriptors() -> usize {
    // The descriptor that reads the folder is counted too, the same each time.
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
