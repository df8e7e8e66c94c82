//! Latencies in fixed buckets: any number of them in the same memory, percentiles to within two percent.
//!
//! Pure.

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets for each doubling: the width of a bucket is at most 1/64 of its value.
const STEPS: usize = 64;
const STEPS_LOG: u32 = STEPS.trailing_zeros();
/// Durations of up to 2^43 ns, more than two hours.
const DOUBLINGS: usize = 38;

/// How often each duration was seen.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![0; STEPS * DOUBLINGS],
            count: 0,
            max_ns: 0,
        }
    }

    pub(super) fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        self.buckets[index(ns).min(last)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The duration that a share of all (0.5, 0.99) does not exceed.
    pub(super) fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_ns(index).min(self.max_ns) as f64 / 1e6;
            }
        }
        self.max_ns as f64 / 1e6
    }

    /// The percentiles that are reported, in milliseconds.
    pub(super) fn figures(&self) -> Value {
        let rounded = |ms: f64| (ms * 1e4).round() / 1e4;
        json!({
            "count": self.count,
            "p50": rounded(self.percentile_ms(0.5)),
            "p90": rounded(self.percentile_ms(0.9)),
            "p99": rounded(self.percentile_ms(0.99)),
            "p99_9": rounded(self.percentile_ms(0.999)),
            "max": rounded(self.max_ns as f64 / 1e6),
        })
    }
}

/// Below `STEPS` a bucket for each value; above, `STEPS` buckets for each doubling.
fn index(ns: u64) -> usize {
    let doubling = (u64::BITS - ns.leading_zeros()).saturating_sub(STEPS_LOG + 1);
    let step = (ns >> doubling) as usize;
    doubling as usize * STEPS + step
}

/// The largest value in a bucket.
fn upper_ns(index: usize) -> u64 {
    if index < 2 * STEPS {
        return index as u64;
    }
    let doubling = index / STEPS - 1;
    let step = (index - doubling * STEPS) as u64;
    ((step + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut previous = 0;
        for ns in (0..5_000)
            .chain((0..43).map(|bit| 1_u64 << bit))
            .chain((6..43).map(|bit| (1_u64 << bit) - 1))
        {
            let index = index(ns);
            let (lower, upper) = (
                if index == 0 { 0 } else { upper_ns(index - 1) + 1 },
                upper_ns(index),
            );
            assert!(
                (lower..=upper).contains(&ns),
                "{ns} in {index}: {lower}..={upper}"
            );
            assert!(upper - lower <= lower / 64, "{ns}: {lower}..={upper}");
            previous = previous.max(index);
        }
        assert!(previous < STEPS * DOUBLINGS);
    }

    #[test]
    fn percentiles_are_near() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        for (share, ms) in [(0.5, 0.5), (0.99, 0.99), (0.999, 0.999), (1.0, 1.0)] {
            let found = histogram.percentile_ms(share);
            assert!((found - ms).abs() <= ms * 0.02, "{share}: {found}");
        }
        assert_eq!(histogram.figures()["count"], 1000);
        assert_eq!(Histogram::new().percentile_ms(0.5), 0.0);
    }
}
