//! Numbers and durations in the form that people read.

use std::time::Duration;

/// A duration: exact if it is short, rounded if it is long.
pub(crate) fn span(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match time.as_secs() {
        0 if time.subsec_nanos() == 0 => "0s".to_owned(),
        0 if millis < 9.95 => format!("{millis:.1}ms"),
        0 if millis < 999.5 => format!("{millis:.0}ms"),
        0..10 if time.subsec_millis() == 0 => format!("{}s", time.as_secs()),
        0..10 => format!("{:.1}s", time.as_secs_f64()),
        seconds => {
            let exact = humantime::format_duration(Duration::from_secs(seconds)).to_string();
            // Its two largest units.
            exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
        }
    }
}

/// A number with its noun.
pub(crate) fn many(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_do() {
        for (micros, said) in [
            (0, "0s"),
            (412, "0.4ms"),
            (9_940, "9.9ms"),
            (12_345, "12ms"),
            (999_900, "1.0s"),
            (1_000_000, "1s"),
            (3_230_000, "3.2s"),
            (61_500_000, "1m 1s"),
            (7_384_000_000, "2h 3m"),
        ] {
            assert_eq!(span(Duration::from_micros(micros)), said);
        }
        assert_eq!(many(1, "task", "tasks"), "1 task");
        assert_eq!(many(0, "task", "tasks"), "0 tasks");
    }
}
