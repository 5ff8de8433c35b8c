//! Reads the `--metrics` of a worker: deliveries and their lateness, which the store does not know.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use delayline::QueueName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum length of an answer.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The numbers of one worker, by queue.
pub(super) type Told = HashMap<QueueName, Sample>;

/// The counts of a worker for one queue, since the worker started.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) delivered: f64,
    /// By upper bound in microseconds: the number of deliveries that were no later.
    buckets: BTreeMap<u64, f64>,
}

/// Upper bounds of the lateness of 50 % and 99 % of the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantiles {
    pub(super) p50: Late,
    pub(super) p99: Late,
}

/// An upper bound of lateness, as fine as the buckets of the worker's histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    AtMost(Duration),
    /// More than the largest bound.
    More(Duration),
}

impl Sample {
    /// The increase since an earlier value. A restarted worker has less than before; then all of it is new.
    pub(super) fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier.filter(|earlier| earlier.delivered <= self.delivered) else { return self.clone() };
        let before = |bound: &u64| earlier.buckets.get(bound).copied().unwrap_or_default();
        let buckets = self.buckets.iter().map(|(bound, count)| (*bound, (count - before(bound)).max(0.0))).collect();
        Self { delivered: self.delivered - earlier.delivered, buckets }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += count;
        }
    }

    /// `None` if nothing was delivered.
    pub(super) fn quantiles(&self) -> Option<Quantiles> {
        let (largest, _) = self.buckets.iter().next_back()?;
        let at = |quantile: f64| {
            let wanted = self.delivered * quantile;
            match self.buckets.iter().find(|(_, count)| **count >= wanted) {
                Some((bound, _)) => Late::AtMost(Duration::from_micros(*bound)),
                None => Late::More(Duration::from_micros(*largest)),
            }
        };
        (self.delivered > 0.0).then(|| Quantiles { p50: at(0.5), p99: at(0.99) })
    }
}

/// Requests the metrics of a worker.
pub(super) async fn ask(address: &str) -> io::Result<Told> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(PATIENCE, ask).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(read(body)),
        Some(_) | None => Err(io::Error::other("the answer has no metrics")),
    }
}

/// Parses the text format of Prometheus, as far as needed here.
fn read(text: &str) -> Told {
    let mut told = Told::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("delayline_delivered_total{")
            && let Some((queue, _, value)) = sample(rest)
        {
            told.entry(queue).or_default().delivered = value;
        } else if let Some(rest) = line.strip_prefix("delayline_lateness_seconds_bucket{")
            && let Some((queue, Some(bound), value)) = sample(rest)
        {
            told.entry(queue).or_default().buckets.insert(bound, value);
        }
    }
    told
}

/// Of `queue="exam",le="0.5"} 17` the queue, the bound in microseconds unless it is infinite, and the value.
fn sample(rest: &str) -> Option<(QueueName, Option<u64>, f64)> {
    let (labels, value) = rest.split_once("} ")?;
    // Neither name can hold a comma or a quote.
    let label = |name: &str| {
        let of = |label: &str| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"').map(str::to_owned);
        labels.split(',').find_map(of)
    };
    let bound = label("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| le.is_finite());
    let bound = bound.map(|seconds| (seconds * 1e6).round() as u64);
    Some((QueueName::new(label("queue")?).ok()?, bound, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE delayline_delivered_total counter\n\
        delayline_delivered_total{queue=\"exam\"} 200\n\
        delayline_delivered_total{queue=\"mail\"} 3\n\
        delayline_lateness_seconds_bucket{queue=\"exam\",le=\"0.001\"} 120\n\
        delayline_lateness_seconds_bucket{queue=\"exam\",le=\"0.5\"} 190\n\
        delayline_lateness_seconds_bucket{queue=\"exam\",le=\"+Inf\"} 200\n\
        delayline_lateness_seconds_sum{queue=\"exam\"} 12.5\n\
        delayline_round_trips_total{backend=\"redis\"} 17\n\
        nonsense{ 12\n";

    #[test]
    fn hand_outs_and_lateness_are_read() {
        let told = read(TEXT);
        assert_eq!(told.len(), 2);
        let exam = &told[&QueueName::new("exam").unwrap()];
        assert_eq!(exam.delivered, 200.0);
        let late = |micros| Duration::from_micros(micros);
        let quantiles = exam.quantiles().unwrap();
        assert_eq!(quantiles, Quantiles { p50: Late::AtMost(late(1_000)), p99: Late::More(late(500_000)) });
        assert_eq!(told[&QueueName::new("mail").unwrap()].quantiles(), None, "no histogram");
    }

    #[test]
    fn what_came_since_is_the_difference_unless_it_began_anew() {
        let mut later = read(TEXT).remove(&QueueName::new("exam").unwrap()).unwrap();
        let earlier = later.clone();
        later.delivered += 10.0;
        later.buckets.values_mut().for_each(|count| *count += 10.0);
        let more = later.since(Some(&earlier));
        assert_eq!((more.delivered, more.buckets[&1_000]), (10.0, 10.0));
        assert_eq!(earlier.since(Some(&later)), earlier, "it has less than before");
        assert_eq!(later.since(None), later);
        let mut sum = more.clone();
        sum.add(&more);
        assert_eq!((sum.delivered, sum.buckets[&500_000]), (20.0, 20.0));
        assert_eq!(earlier.since(Some(&earlier)).quantiles(), None, "nothing was delivered");
    }
}
