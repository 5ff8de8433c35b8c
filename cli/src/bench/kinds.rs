//! All figures: the name, unit and meaning of each.

use serde::{Deserialize, Serialize};

/// The direction in which a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Higher,
    Lower,
    /// It only describes the run.
    Neither,
}

/// A kind of figure.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    /// For people.
    pub(super) title: &'static str,
}

const fn kind(name: &'static str, unit: &'static str, better: Better, title: &'static str) -> Kind {
    Kind { name, unit, better, title }
}

use Better::{Higher, Lower, Neither};

/// Every figure, in the order in which they are shown. `docs/bench.md` lists them, and none is removed.
pub(super) const KINDS: &[Kind] = &[
    kind("schedule_batched", "tasks/s", Higher, "scheduled, in batches"),
    kind("claim_batched", "tasks/s", Higher, "claimed, in batches"),
    kind("complete_batched", "tasks/s", Higher, "completed, in batches"),
    kind("schedule_single", "tasks/s", Higher, "scheduled, by single callers"),
    kind("claim_single", "tasks/s", Higher, "claimed, by single callers"),
    kind("complete_single", "tasks/s", Higher, "completed, by single callers"),
    kind("to_last", "s", Lower, "from the instant to the last completion"),
    kind("handled", "tasks/s", Higher, "delivered and settled, from the instant on"),
    kind("rate_in_time", "tasks/s", Higher, "highest rate with p99 below 50 ms"),
    kind("cancel_p50", "ms", Lower, "a cancel takes, p50"),
    kind("cancel_p99", "ms", Lower, "a cancel takes, p99"),
    kind("cancelled", "tasks", Neither, "cancelled in time"),
    kind("touch_replace", "tasks/s", Higher, "touched, by replacing"),
    kind("touch_move", "tasks/s", Higher, "touched, by moving"),
    kind("cancel_batched", "tasks/s", Higher, "cancelled, in batches"),
    kind("pending", "tasks", Neither, "pending for later"),
    kind("bytes_per_task", "bytes", Lower, "of the store, a pending task"),
    kind("near_p99_alone", "ms", Lower, "lateness p99 of near tasks, by themselves"),
    kind("near_p99_beside", "ms", Lower, "lateness p99 of near tasks, beside those pending"),
    kind("near_rate_alone", "tasks/s", Higher, "near tasks handled, by themselves"),
    kind("near_rate_beside", "tasks/s", Higher, "near tasks handled, beside those pending"),
    kind("lateness_p50", "ms", Lower, "lateness p50"),
    kind("lateness_p99", "ms", Lower, "lateness p99"),
    kind("lateness_p99_9", "ms", Lower, "lateness p99.9"),
    kind("lateness_max", "ms", Lower, "lateness max"),
    kind("above_sleep_p50", "ms", Lower, "lateness p50 above a bare sleep"),
    kind("above_sleep_p99", "ms", Lower, "lateness p99 above a bare sleep"),
    kind("above_sleep_p99_9", "ms", Lower, "lateness p99.9 above a bare sleep"),
    kind("above_sleep_max", "ms", Lower, "lateness max above a bare sleep"),
    kind("store_empty", "bytes", Neither, "of the store, before"),
    kind("store_full", "bytes", Neither, "of the store, with all sessions"),
    kind("store_touched", "bytes", Neither, "of the store, after all touches"),
    kind("store_drained", "bytes", Neither, "of the store, when all was gone"),
    kind("idle_commands", "1/s", Lower, "commands of the server while idle"),
    kind("idle_server_cpu", "ms/s", Lower, "processor time of the server while idle"),
    kind("client_cpu", "s", Lower, "processor time of the client"),
    kind("client_memory", "bytes", Lower, "memory of the client, peak"),
    kind("server_cpu", "s", Lower, "processor time of the server"),
    kind("server_memory", "bytes", Lower, "memory of the server, peak"),
];

/// The kind of this name.
pub(super) fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Rounds to five digits, because more are not significant.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let unit = 10_f64.powi(4 - value.abs().log10().floor() as i32);
    if unit.is_finite() && unit >= 1.0 { (value * unit).round() / unit } else { value.round() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_rounding_keeps_five_digits() {
        for (i, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[i + 1..].iter().all(|other| other.name != kind.name), "{}", kind.name);
        }
        for (value, shown) in [(0.0, 0.0), (0.123_456_7, 0.123_46), (12_345.678, 12_346.0), (9_876_543.2, 9_876_543.0)]
        {
            assert_eq!(rounded(value), shown);
        }
    }
}
