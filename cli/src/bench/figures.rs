//! The measurements of a run, and how several runs are combined to one result.

use tokio::time::Instant;

use super::kinds::{KINDS, Kind, rounded};
use super::late::{Late, Micros, SLOT, histogram, quantile_ms};
use super::measure::{Measured, Sample};
use super::report::{Figure, Lateness, OverTime};

/// The result of one run.
#[derive(Debug)]
pub(super) struct Run {
    begun: Instant,
    pub(super) figures: Vec<(&'static str, f64)>,
    pub(super) micros: Micros,
    /// Pieces of time, the first of which is this one of the run.
    first_slot: usize,
    slots: Vec<Option<Micros>>,
    pub(super) bare: Micros,
    pub(super) problems: Vec<String>,
    pub(super) remarks: Vec<String>,
}

impl Run {
    /// A run without any result yet.
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            figures: Vec::new(),
            micros: histogram(),
            first_slot: 0,
            slots: Vec::new(),
            bare: histogram(),
            problems: Vec::new(),
            remarks: Vec::new(),
        }
    }

    pub(super) fn figure(&mut self, name: &'static str, value: f64) {
        if value.is_finite() {
            self.figures.push((name, value));
        }
    }

    /// Adds measured lateness, at its time in the run.
    pub(super) fn take_lateness(&mut self, late: &Late) {
        let before = late.origin().saturating_duration_since(self.begun).as_millis() / SLOT.as_millis();
        let (micros, slots) = late.measured();
        self.micros = micros;
        self.first_slot = before as usize;
        self.slots = slots;
    }

    /// Adds the figures of the lateness, and of what the processes used meanwhile.
    pub(super) fn add_measured(&mut self, measured: &Measured) {
        if !self.micros.is_empty() {
            for (quantile, late, above) in [
                (0.5, "lateness_p50", "above_sleep_p50"),
                (0.99, "lateness_p99", "above_sleep_p99"),
                (0.999, "lateness_p99_9", "above_sleep_p99_9"),
                (1.0, "lateness_max", "above_sleep_max"),
            ] {
                let ms = quantile_ms(&self.micros, quantile);
                self.figure(late, ms);
                if !self.bare.is_empty() {
                    self.figure(above, (ms - quantile_ms(&self.bare, quantile)).max(0.0));
                }
            }
        }
        self.figure("client_cpu", measured.client_cpu);
        self.figure("client_memory", measured.peak(|sample| Some(sample.client)));
        if let Some(cpu) = measured.server_cpu {
            self.figure("server_cpu", cpu);
            self.figure("server_memory", measured.peak(|sample| sample.server));
        }
    }

    /// Lateness and memory over time: for each piece of time its end in seconds, the lateness p50 and p99 of what came
    /// in it in milliseconds, and the bytes of client and server.
    pub(super) fn over_time(&self, samples: &[Sample]) -> Vec<OverTime> {
        let slot = SLOT.as_secs_f64();
        let len =
            (self.first_slot + self.slots.len()).max(samples.last().map_or(0, |last| (last.at / slot) as usize + 1));
        let row = |i: usize| {
            let late = i.checked_sub(self.first_slot).and_then(|i| self.slots.get(i)?.as_ref());
            let memory = samples.iter().rev().find(|sample| sample.at <= (i + 1) as f64 * slot);
            OverTime(
                (i + 1) as f64 * slot,
                late.map(|micros| rounded(quantile_ms(micros, 0.5))),
                late.map(|micros| rounded(quantile_ms(micros, 0.99))),
                memory.map(|sample| sample.client),
                memory.and_then(|sample| sample.server),
            )
        };
        (0..len).map(row).collect()
    }
}

/// The figures of several runs, each with its median and its extremes.
pub(super) fn gather(runs: &[Run]) -> std::collections::BTreeMap<String, Figure> {
    let of = |kind: &Kind| {
        let values = runs.iter().flat_map(|run| run.figures.iter().filter(|(name, _)| *name == kind.name));
        let values: Vec<f64> = values.map(|(_, value)| rounded(*value)).collect();
        Figure::of(kind, values).map(|figure| (kind.name.to_owned(), figure))
    };
    KINDS.iter().filter_map(of).collect()
}

/// The lateness of several runs together.
pub(super) fn lateness(runs: &[Run]) -> Option<Lateness> {
    let (mut all, mut bare) = (histogram(), histogram());
    for run in runs {
        // All have the same bounds.
        all.add(&run.micros).expect("they are of one kind");
        bare.add(&run.bare).expect("they are of one kind");
    }
    (!all.is_empty()).then(|| Lateness::of(&all, &bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_become_a_median_with_its_extremes() {
        let run = |value: f64| {
            let mut run = Run::new();
            run.figure("handled", value);
            run.figure("to_last", f64::NAN);
            run
        };
        let figures = gather(&[run(30.0), run(10.0), run(20.0)]);
        assert_eq!(figures.keys().collect::<Vec<_>>(), ["handled"]);
        let handled = &figures["handled"];
        assert_eq!((handled.median, handled.min, handled.max), (20.0, 10.0, 30.0));
        assert_eq!(handled.runs, [30.0, 10.0, 20.0]);
        assert_eq!(gather(&[run(10.0), run(20.0)])["handled"].median, 15.0);
    }
}
