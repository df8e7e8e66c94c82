//! Counters, gauges and histograms: atomic cells behind cheap handles, written out as Prometheus text.
//!
//! A handle is taken once and kept; recording is one or two atomic additions, without a lock or an allocation.
//! Names are declared in `names` and nowhere else.

use super::names::{self, Family, Kind};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The registry. Cheap to clone.
///
/// - The same family and labels always give the same cell.
/// - A labelled cell that nobody holds any more disappears with the next scrape: what it counted is gone.
#[derive(Clone, Default)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cells: Mutex<BTreeMap<&'static str, BTreeMap<Vec<String>, Cell>>>,
    collectors: Mutex<Vec<Collector>>,
}

type Collector = Box<dyn Fn(&mut Scrape) + Send + Sync>;

#[derive(Clone)]
enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// A number that only rises.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

/// A number that rises and falls.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

/// How often durations of each size occurred.
#[derive(Debug, Clone, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// One more than `BOUNDS`: the last is everything longer.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

/// Upper bounds in microseconds: two buckets per doubling would be finer than anyone reads.
const BOUNDS: [u64; 21] = [
    16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288,
    1_048_576, 2_097_152, 4_194_304, 8_388_608, 16_777_216,
];

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // The index of the first bound that is not below: bounds are 16 times the powers of two.
        let bucket = match us {
            0..=16 => 0,
            _ => (64 - ((us - 1) / 16).leading_zeros() as usize).min(BOUNDS.len()),
        };
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_ns.fetch_add(
            u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    pub fn count(&self) -> u64 {
        self.0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

impl Metrics {
    /// The counter of `family` with these label values. Panics if the family is of another kind, or has another
    /// number of labels: both are written in the source.
    pub fn counter(&self, family: &'static Family, labels: &[&str]) -> Counter {
        match self.cell(family, labels) {
            Cell::Counter(counter) => counter,
            Cell::Gauge(_) | Cell::Histogram(_) => panic!("{} is not declared as a counter", family.name),
        }
    }

    /// As `counter`, for a gauge.
    pub fn gauge(&self, family: &'static Family, labels: &[&str]) -> Gauge {
        match self.cell(family, labels) {
            Cell::Gauge(gauge) => gauge,
            Cell::Counter(_) | Cell::Histogram(_) => panic!("{} is not declared as a gauge", family.name),
        }
    }

    /// As `counter`, for a histogram.
    pub fn histogram(&self, family: &'static Family, labels: &[&str]) -> Histogram {
        match self.cell(family, labels) {
            Cell::Histogram(histogram) => histogram,
            Cell::Counter(_) | Cell::Gauge(_) => panic!("{} is not declared as a histogram", family.name),
        }
    }

    fn cell(&self, family: &'static Family, labels: &[&str]) -> Cell {
        assert_eq!(
            labels.len(),
            family.labels.len(),
            "{} takes the labels {:?}",
            family.name,
            family.labels
        );
        let mut cells = self.shared.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let cell = cells
            .entry(family.name)
            .or_default()
            .entry(key)
            .or_insert_with(|| match family.kind {
                Kind::Counter => Cell::Counter(Counter::default()),
                Kind::Gauge => Cell::Gauge(Gauge::default()),
                Kind::Histogram => Cell::Histogram(Histogram::default()),
            });
        cell.clone()
    }

    /// Asks `collect` at every scrape, for values that are cheaper to look up than to keep.
    pub fn on_scrape(&self, collect: impl Fn(&mut Scrape) + Send + Sync + 'static) {
        self.shared
            .collectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(collect));
    }

    /// Adds up a family of counters or gauges over all its labels; what is only looked up at a scrape is not in it.
    pub fn total(&self, family: &'static Family) -> u64 {
        let cells = self.shared.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let series = cells.get(family.name).into_iter().flat_map(BTreeMap::values);
        series.map(Cell::count).sum()
    }

    /// Everything as Prometheus text.
    pub fn render(&self) -> String {
        let mut scrape = Scrape::default();
        for collect in self
            .shared
            .collectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            collect(&mut scrape);
        }
        let mut cells = self.shared.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(16 * 1024);
        for family in names::ALL {
            if let Some(series) = cells.get_mut(family.name) {
                series.retain(|labels, cell| labels.is_empty() || !cell.is_abandoned());
            }
            let held = cells.get(family.name).filter(|series| !series.is_empty());
            let collected = scrape.values.get(family.name);
            if held.is_none() && collected.is_none() {
                continue;
            }
            let _ = writeln!(
                text,
                "# HELP {} {}\n# TYPE {} {}",
                family.name, family.help, family.name, family.kind
            );
            for (labels, cell) in held.into_iter().flatten() {
                cell.render(&mut text, family, labels);
            }
            for (labels, value) in collected.into_iter().flatten() {
                sample(&mut text, family, "", labels, None, value);
            }
        }
        text
    }
}

/// Takes the values of one scrape.
#[derive(Default)]
pub struct Scrape {
    values: BTreeMap<&'static str, Vec<(Vec<String>, String)>>,
}

impl Scrape {
    /// Reports one value of a gauge or counter.
    pub fn value(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.put(family, labels, value.to_string());
    }

    /// As `value`, of one that may be below zero or between two numbers.
    pub fn number(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        self.put(family, labels, value.to_string());
    }

    fn put(&mut self, family: &'static Family, labels: &[&str], value: String) {
        debug_assert_eq!(
            labels.len(),
            family.labels.len(),
            "{} takes {:?}",
            family.name,
            family.labels
        );
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.values.entry(family.name).or_default().push((labels, value));
    }
}

impl Cell {
    /// A gauge below zero counts as nothing, as does a histogram.
    fn count(&self) -> u64 {
        match self {
            Self::Counter(counter) => counter.value(),
            Self::Gauge(gauge) => u64::try_from(gauge.value()).unwrap_or(0),
            Self::Histogram(_) => 0,
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Counter(counter) => Arc::strong_count(&counter.0) == 1,
            Self::Gauge(gauge) => Arc::strong_count(&gauge.0) == 1,
            Self::Histogram(histogram) => Arc::strong_count(&histogram.0) == 1,
        }
    }

    fn render(&self, text: &mut String, family: &Family, labels: &[String]) {
        match self {
            Self::Counter(counter) => sample(text, family, "", labels, None, &counter.value().to_string()),
            Self::Gauge(gauge) => sample(text, family, "", labels, None, &gauge.value().to_string()),
            Self::Histogram(histogram) => histogram.render(text, family, labels),
        }
    }
}

impl Histogram {
    fn render(&self, text: &mut String, family: &Family, labels: &[String]) {
        let mut count = 0;
        for (index, cell) in self.0.counts.iter().enumerate() {
            count += cell.load(Ordering::Relaxed);
            let bound = BOUNDS
                .get(index)
                .map_or_else(|| "+Inf".to_owned(), |us| seconds(us * 1_000));
            sample(text, family, "_bucket", labels, Some(&bound), &count.to_string());
        }
        sample(
            text,
            family,
            "_sum",
            labels,
            None,
            &seconds(self.0.sum_ns.load(Ordering::Relaxed)),
        );
        sample(text, family, "_count", labels, None, &count.to_string());
    }
}

fn seconds(ns: u64) -> String {
    (ns as f64 / 1e9).to_string()
}

fn sample(
    text: &mut String,
    family: &Family,
    suffix: &str,
    labels: &[String],
    bound: Option<&str>,
    value: &str,
) {
    text.push_str(family.name);
    text.push_str(suffix);
    let pairs = family
        .labels
        .iter()
        .copied()
        .zip(labels.iter().map(String::as_str));
    let mut separator = '{';
    for (name, label) in pairs.chain(bound.map(|bound| ("le", bound))) {
        let _ = write!(text, "{separator}{name}=\"");
        for letter in label.chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_recorded() {
        let metrics = Metrics::default();
        let bytes = metrics.counter(&names::TOPIC_BYTES_IN, &["or\"ders"]);
        bytes.add(41);
        metrics.counter(&names::TOPIC_BYTES_IN, &["or\"ders"]).increment();
        let sync = metrics.histogram(&names::SYNC_SECONDS, &[]);
        for us in [1, 16, 17, 32, 33, 20_000_000] {
            sync.record(Duration::from_micros(us));
        }
        metrics.on_scrape(|scrape| scrape.value(&names::PARTITIONS, &[], 3));
        let text = metrics.render();
        for line in [
            "# TYPE headwater_topic_bytes_in_total counter",
            "headwater_topic_bytes_in_total{topic=\"or\\\"ders\"} 42",
            "headwater_partitions 3",
            "headwater_log_sync_seconds_bucket{le=\"0.000016\"} 2",
            "headwater_log_sync_seconds_bucket{le=\"0.000032\"} 4",
            "headwater_log_sync_seconds_bucket{le=\"0.000064\"} 5",
            "headwater_log_sync_seconds_bucket{le=\"16.777216\"} 5",
            "headwater_log_sync_seconds_bucket{le=\"+Inf\"} 6",
            "headwater_log_sync_seconds_count 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert_eq!(metrics.total(&names::TOPIC_BYTES_IN), 42);
    }

    #[test]
    fn a_labelled_series_goes_with_its_last_holder() {
        let metrics = Metrics::default();
        drop(metrics.counter(&names::TOPIC_BYTES_IN, &["gone"]));
        let kept = metrics.counter(&names::TOPIC_BYTES_IN, &["kept"]);
        let text = metrics.render();
        assert!(!text.contains("gone") && text.contains("kept"), "{text}");
        drop(kept);
    }

    #[test]
    fn every_bucket_holds_what_lies_at_and_below_its_bound() {
        for (index, bound) in BOUNDS.into_iter().enumerate() {
            let histogram = Histogram::default();
            histogram.record(Duration::from_micros(bound));
            histogram.record(Duration::from_micros(bound + 1));
            assert_eq!(histogram.0.counts[index].load(Ordering::Relaxed), 1, "{bound}");
            assert_eq!(
                histogram.0.counts[index + 1].load(Ordering::Relaxed),
                1,
                "{bound}"
            );
        }
    }
}
