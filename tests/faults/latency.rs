//! How long records took, from the histories: from sending to acknowledgement, and to the consumers that read along.
//!
//! All clients share one clock, so it does not matter which library a history is of. It owns nothing but what it reads. A
//! record belongs to the window in which it was sent: one that was sent in trouble and came through late counts there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context;
use headwater_checker::{Event, Kind, each_line};
use serde_json::{Value, json};

const BUFFER_BYTES: usize = 1 << 20;

/// A span of a run, in microseconds of the clients' clock: from its beginning to before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) name: &'static str,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// Of the records of one window, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Latencies {
    pub(crate) acknowledged: Vec<u64>,
    /// One for each consumer.
    pub(crate) read: Vec<u64>,
}

/// Reads the histories of clients that ran along; answers for each window, in their order.
pub(crate) fn of(histories: &[PathBuf], windows: &[Window]) -> anyhow::Result<Vec<Latencies>> {
    let mut latencies = vec![Latencies::default(); windows.len()];
    let mut sent = Sent::default();
    for path in histories {
        each(path, |event| match event.event {
            Kind::Invoke => sent.invoke(event, windows),
            Kind::Ok => {
                if let Some((window, latency)) = sent.since(event.client, event) {
                    latencies[window].acknowledged.push(latency);
                }
            }
            _ => {}
        })?;
    }
    // A consumer's history may come before the producer's that it read from.
    for path in histories {
        each(path, |event| {
            if let (Kind::Read, Some(producer)) = (event.event, event.producer)
                && let Some((window, latency)) = sent.since(producer, event)
            {
                latencies[window].read.push(latency);
            }
        })?;
    }
    Ok(latencies)
}

/// The records of the windows: when they were sent, and the window, by producer, partition and sequence.
#[derive(Debug, Default)]
struct Sent {
    producers: BTreeMap<String, BTreeMap<(u32, u64), (u64, usize)>>,
}

impl Sent {
    fn invoke(&mut self, event: &Event<'_>, windows: &[Window]) {
        let (Some(sequence), Some(at)) = (event.sequence, event.at) else {
            return;
        };
        let is_inside = |window: &Window| (window.from..window.until).contains(&at);
        let Some(window) = windows.iter().position(is_inside) else {
            return;
        };
        if !self.producers.contains_key(event.client) {
            self.producers.insert(event.client.to_owned(), BTreeMap::new());
        }
        if let Some(records) = self.producers.get_mut(event.client) {
            records.insert((event.partition, sequence), (at, window));
        }
    }

    /// Which window's record an event is about, and how long after its sending the event came.
    fn since(&self, producer: &str, event: &Event<'_>) -> Option<(usize, u64)> {
        let records = self.producers.get(producer)?;
        let (sent, window) = records.get(&(event.partition, event.sequence?))?;
        Some((*window, event.at?.saturating_sub(*sent)))
    }
}

fn each(path: &PathBuf, mut hear: impl FnMut(&Event<'_>)) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("no {}", path.display()))?;
    each_line(BufReader::with_capacity(BUFFER_BYTES, file), |line| {
        let event = Event::parse(line).with_context(|| format!("a line of {}", path.display()))?;
        hear(&event);
        Ok(())
    })
}

/// What a share of the values is not above, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Figures {
    pub(crate) fn of(micros: &mut [u64]) -> Self {
        micros.sort_unstable();
        let at = |thousandths: usize| match micros.len() {
            0 => 0.0,
            count => micros[(count * thousandths).div_ceil(1000).clamp(1, count) - 1] as f64 / 1e3,
        };
        Self {
            count: micros.len(),
            p50: at(500),
            p99: at(990),
            p999: at(999),
            max: at(1000),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "count": self.count, "p50": self.p50, "p99": self.p99, "p999": self.p999, "max": self.max })
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            count,
            p50,
            p99,
            p999,
            max,
        } = self;
        write!(f, "{count:>9} {p50:>8.2} {p99:>8.2} {p999:>8.2} {max:>8.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_in_the_window_in_which_it_was_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, lines: &[&str]| {
            let path = folder.path().join(name);
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, text).expect("a history");
            path
        };
        let reader = write(
            "reader",
            &[
                r#"{"event":"read","client":"r","partition":0,"producer":"p","sequence":1,"offset":1,"at":1900}"#,
                r#"{"event":"read","client":"r","partition":0,"producer":"p","sequence":2,"offset":2,"at":9000}"#,
            ],
        );
        let producer = write(
            "producer",
            &[
                r#"{"event":"invoke","client":"p","partition":0,"sequence":0,"at":900}"#,
                r#"{"event":"invoke","client":"p","partition":0,"sequence":1,"at":1000}"#,
                r#"{"event":"ok","client":"p","partition":0,"sequence":0,"offset":0,"at":1400}"#,
                r#"{"event":"ok","client":"p","partition":0,"sequence":1,"offset":1,"at":2500}"#,
                r#"{"event":"invoke","client":"p","partition":0,"sequence":2,"at":2000}"#,
            ],
        );
        let window = |name, from, until| Window { name, from, until };
        let windows = [window("one", 1000, 2000), window("two", 2000, 3000)];
        let found = of(&[reader, producer], &windows).expect("histories");
        let expected = |acknowledged: &[u64], read: &[u64]| Latencies {
            acknowledged: acknowledged.to_vec(),
            read: read.to_vec(),
        };
        assert_eq!(found, [expected(&[1500], &[900]), expected(&[], &[7000])]);
    }

    #[test]
    fn figures_are_values_that_were_there() {
        let mut micros: Vec<u64> = (1..=1000).rev().map(|number| number * 1000).collect();
        let Figures {
            count,
            p50,
            p99,
            p999,
            max,
        } = Figures::of(&mut micros);
        assert_eq!(count, 1000);
        assert_eq!([p50, p99, p999, max], [500.0, 990.0, 999.0, 1000.0]);
        assert_eq!(Figures::of(&mut []).max, 0.0);
    }
}
