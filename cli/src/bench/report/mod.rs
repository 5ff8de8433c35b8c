//! The result: the JSON that `docs/bench.md` promises, and from it the [`table`] and the [`page`].

pub(super) mod page;
mod plot;
pub(super) mod table;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;

use delayline::{Capabilities, Order};
use serde::{Deserialize, Serialize};

use super::args::BenchArgs;
use super::kinds::{Better, Kind, rounded};
use super::late::{Micros, quantile_ms};

/// The version of the JSON. It changes if anything but an added field changes.
pub(super) const FORMAT: u32 = 1;

const QUANTILES: [f64; 9] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0];

/// The whole result. `docs/bench.md` lists the fields, and none is removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) format: u32,
    /// The version of this program.
    pub(super) delayline: String,
    pub(super) started_at: String,
    pub(super) seconds: f64,
    pub(super) command: String,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) backends: Vec<Backend>,
    pub(super) results: Vec<Outcome>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_bytes: Option<u64>,
    pub(super) kernel: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) tasks: Option<u32>,
    pub(super) payload_bytes: u32,
    pub(super) producers: u32,
    pub(super) concurrency: u32,
    pub(super) duration_seconds: f64,
    pub(super) repeats: u32,
    /// Whether it is a debug build, which makes figures of the client meaningless.
    pub(super) debug_build: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Backend {
    pub(super) name: String,
    /// Without password and options.
    pub(super) url: String,
    pub(super) version: Option<String>,
    /// Whether the server was started for this run.
    pub(super) private: bool,
    pub(super) capabilities: BTreeMap<String, String>,
}

/// The result of one scenario on one backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) backend: String,
    pub(super) scenario: String,
    pub(super) verdict: Verdict,
    /// What is broken, lacking, or went wrong.
    pub(super) problems: Vec<String>,
    pub(super) remarks: Vec<String>,
    pub(super) repeats: usize,
    pub(super) figures: BTreeMap<String, Figure>,
    pub(super) lateness: Option<Lateness>,
    pub(super) over_time: Vec<OverTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Every run kept the promises that the books can check.
    Clean,
    /// A run broke a promise. There are no figures.
    Broken,
    /// The backend lacks what the scenario needs.
    Unsupported,
    /// A run broke off. There are no figures.
    Failed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) unit: String,
    pub(super) better: Better,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) runs: Vec<f64>,
}

/// The lateness of all runs together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lateness {
    /// Quantiles, and milliseconds.
    pub(super) percentiles: Vec<(f64, f64)>,
    /// Milliseconds, and how many were not later than that and later than the one before.
    pub(super) histogram: Vec<(f64, u64)>,
    pub(super) bare_percentiles: Vec<(f64, f64)>,
}

/// Seconds from the beginning; lateness p50 and p99 in milliseconds of what came since the one before; bytes of the
/// client, and of the server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct OverTime(
    pub(super) f64,
    pub(super) Option<f64>,
    pub(super) Option<f64>,
    pub(super) Option<u64>,
    pub(super) Option<u64>,
);

impl Report {
    /// The result of a backend's scenario, if there is one.
    pub(super) fn outcome(&self, backend: &str, scenario: &str) -> Option<&Outcome> {
        self.results.iter().find(|outcome| outcome.backend == backend && outcome.scenario == scenario)
    }
}

impl Settings {
    pub(super) fn of(args: &BenchArgs) -> Self {
        Self {
            tasks: args.tasks,
            payload_bytes: args.payload,
            producers: args.producers,
            concurrency: args.concurrency,
            duration_seconds: args.duration.as_secs_f64(),
            repeats: args.repeats,
            debug_build: cfg!(debug_assertions),
        }
    }
}

impl Machine {
    /// This one, as far as `/proc` tells.
    pub(super) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib =
            value(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.map(|kib| kib * 1024),
            kernel: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()).trim().to_owned(),
        }
    }
}

impl Backend {
    pub(super) fn new(caps: &Capabilities, url: String, version: Option<String>, private: bool) -> Self {
        let order = match caps.order {
            Order::Exact => "exact".to_owned(),
            Order::PerShard(shards) => format!("exact in each of {shards} shards"),
            Order::Within(window) => format!("within {}", humantime::format_duration(window)),
            _ => "any".to_owned(),
        };
        let capabilities = [
            ("durability", caps.durability.as_str()),
            ("order", &order),
            ("lease_hold", caps.lease_hold.as_str()),
            ("cancel", caps.cancel.as_str()),
            ("reschedule", caps.reschedule.as_str()),
            ("replace", caps.replace.as_str()),
            ("groups", caps.groups.as_str()),
        ];
        let capabilities = capabilities.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { name: caps.name.to_owned(), url, version, private, capabilities }
    }
}

impl Outcome {
    /// One without figures.
    pub(super) fn without(backend: &str, scenario: &str, verdict: Verdict, problems: Vec<String>) -> Self {
        Self {
            backend: backend.to_owned(),
            scenario: scenario.to_owned(),
            verdict,
            problems,
            remarks: Vec::new(),
            repeats: 0,
            figures: BTreeMap::new(),
            lateness: None,
            over_time: Vec::new(),
        }
    }
}

impl Figure {
    /// The values of several runs; `None` if there is none.
    pub(super) fn of(kind: &Kind, runs: Vec<f64>) -> Option<Self> {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1].midpoint(sorted[middle]) };
        Some(Self { unit: kind.unit.to_owned(), better: kind.better, median: rounded(median), min, max, runs })
    }
}

impl Lateness {
    pub(super) fn of(all: &Micros, bare: &Micros) -> Self {
        let percentiles = |micros: &Micros| {
            let row = |&quantile: &f64| (quantile, rounded(quantile_ms(micros, quantile)));
            if micros.is_empty() { Vec::new() } else { QUANTILES.iter().map(row).collect() }
        };
        let mut histogram = Vec::new();
        let mut from = 0;
        for edge in edges_us(all.max()) {
            histogram.push((edge as f64 / 1000.0, all.count_between(from, edge)));
            from = edge + 1;
        }
        Self { percentiles: percentiles(all), histogram, bare_percentiles: percentiles(bare) }
    }
}

/// Steps of a logarithmic scale, four to a factor of ten, from 0.1 ms to what holds the largest.
fn edges_us(max: u64) -> Vec<u64> {
    let mut edges = Vec::new();
    for step in 0.. {
        let edge = (100.0 * 10_f64.powf(f64::from(step) / 4.0)).round() as u64;
        edges.push(edge);
        if edge >= max {
            break;
        }
    }
    edges
}
