//! Processor time and memory of this process and of a server's processes, from `/proc`. On systems other than Linux
//! they are unknown, and not shown.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use procfs::WithCurrentSystemInfo as _;
use procfs::process::{Process, Stat, all_processes};
use tokio::time::Instant;

/// Interval of reading memory.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Processor time and memory used during a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// Seconds, in user and kernel mode.
    pub(super) client_cpu: f64,
    pub(super) server_cpu: Option<f64>,
    pub(super) samples: Vec<Sample>,
}

/// Bytes of memory at a moment, in seconds from the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: f64,
    pub(super) client: u64,
    pub(super) server: Option<u64>,
}

impl Measured {
    /// The maximum of the memory of one of them.
    pub(super) fn peak(&self, of: impl Fn(&Sample) -> Option<u64>) -> f64 {
        self.samples.iter().filter_map(of).max().map_or(f64::NAN, |bytes| bytes as f64)
    }
}

/// Measures this process and a server's processes until it is told to end.
#[derive(Debug)]
pub(super) struct Meter {
    begun: (f64, Option<f64>),
    server: Option<u32>,
    end: SyncSender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Meter {
    /// Starts measuring; `server` is the id of the server's first process. `None` if no thread can be started.
    pub(super) fn start(server: Option<u32>) -> Option<Self> {
        let (end, ended) = sync_channel(0);
        let look = move || {
            let origin = Instant::now();
            let mut samples = Vec::new();
            loop {
                if let Some(client) = memory(std::process::id()) {
                    let server = server.map(|pid| tree(pid).iter().filter_map(|stat| memory(stat.pid as u32)).sum());
                    samples.push(Sample { at: origin.elapsed().as_secs_f64(), client, server });
                }
                if !matches!(ended.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout)) {
                    return samples;
                }
            }
        };
        let begun = (client_cpu(), server.map(server_cpu));
        let thread = thread::Builder::new().name("meter".into()).spawn(look).ok()?;
        Some(Self { begun, server, end, thread })
    }

    /// Ends, and returns the measurements.
    pub(super) fn end(self) -> Measured {
        let Self { begun, server, end, thread } = self;
        drop(end);
        let samples = thread.join().unwrap_or_default();
        let server_cpu = server.zip(begun.1).map(|(pid, before)| (server_cpu(pid) - before).max(0.0));
        Measured { client_cpu: client_cpu() - begun.0, server_cpu, samples }
    }
}

/// Seconds of processor time that a server's processes have used.
pub(super) fn server_cpu(pid: u32) -> f64 {
    tree(pid).iter().map(cpu).sum()
}

fn client_cpu() -> f64 {
    Process::myself().and_then(|process| process.stat()).map_or(0.0, |stat| cpu(&stat))
}

/// With that of its children that have ended.
fn cpu(stat: &Stat) -> f64 {
    let ended = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    (stat.utime + stat.stime + ended) as f64 / procfs::ticks_per_second() as f64
}

/// Bytes in use, with a proportional share of memory that is shared with other processes: a Postgres session shares
/// most. If that may not be read, all resident bytes.
fn memory(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let share = process.smaps_rollup().ok().and_then(|rollup| {
        let maps = rollup.memory_map_rollup.0;
        maps.first().and_then(|map| map.extension.map.get("Pss").copied())
    });
    share.or_else(|| process.stat().ok().map(|stat| stat.rss_bytes().get()))
}

/// A process and its descendants.
fn tree(root: u32) -> Vec<Stat> {
    let all: Vec<Stat> =
        all_processes().into_iter().flatten().filter_map(|process| process.ok()?.stat().ok()).collect();
    let mut pids = vec![i32::try_from(root).unwrap_or(i32::MAX)];
    let mut next = 0;
    while let Some(parent) = pids.get(next).copied() {
        pids.extend(all.iter().filter(|stat| stat.ppid == parent).map(|stat| stat.pid));
        next += 1;
    }
    all.into_iter().filter(|stat| pids.contains(&stat.pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        // Less than what a test of the heap takes for certain to be its own.
        const BIG: usize = 16 << 20;
        // Measured as a server, too, so that both ways are gone.
        let meter = Meter::start(Some(std::process::id())).unwrap();
        let before = memory(std::process::id()).unwrap();
        let mut block = vec![1_u8; BIG];
        let ends = Instant::now() + Duration::from_millis(300);
        while Instant::now() < ends {
            block.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        let measured = meter.end();
        assert!(measured.client_cpu > 0.05 && measured.server_cpu.unwrap() > 0.05, "{measured:?}");
        assert!(measured.peak(|sample| sample.server) >= before as f64 + BIG as f64 / 2.0, "{measured:?}");
        assert_eq!(block.len(), BIG);
    }
}
