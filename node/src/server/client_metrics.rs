//! What clients say of themselves (KIP-714): what they are asked for, and what the last push of each said.
//!
//! Owns the last values of each client instance, and shows them at `/metrics`. It must never hold more than a bounded
//! number of clients and of values: who writes them is nobody that is trusted.

pub(super) mod otlp;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_protocol::primitives::Uuid;
use headwater_protocol::record::crc32c;

use crate::config::BrokerConfig;
use crate::sys::clock::Clock;
use crate::telemetry::metrics::Scrape;
use crate::telemetry::{Counter, Metrics, names};

/// One push as it comes, and unfolded.
pub(super) const PUSH_BYTES_MAX: usize = 1 << 20;
pub(super) const UNFOLDED_BYTES_MAX: usize = 4 << 20;
/// Clients that are remembered; beyond it the longest silent is forgotten.
const CLIENTS_MAX: usize = 100;
/// Values of one client; what is behind them is passed over.
const POINTS_MAX: usize = 200;
/// Letters of a name that somebody else chose.
const NAME_LETTERS_MAX: usize = 200;
/// Silent for so many intervals, a client is gone.
const INTERVALS_SILENT: u32 = 3;

/// What all clients are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    /// Of metrics' names; an empty one means all, none at all means none.
    pub(super) prefixes: Vec<String>,
    pub(super) interval_ms: i32,
}

impl Subscription {
    pub(super) fn of(broker: &BrokerConfig) -> Self {
        Self {
            prefixes: broker.client_metrics(),
            interval_ms: broker.client_metrics_interval_ms(),
        }
    }

    /// Differs where what is asked for differs.
    pub(super) fn id(&self) -> i32 {
        crc32c(format!("{} {}", self.interval_ms, self.prefixes.join(",")).as_bytes()) as i32
    }

    pub(super) fn wants(&self, metric: &str) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| metric.starts_with(prefix.as_str()))
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.interval_ms).unwrap_or(0))
    }
}

/// One running client, as it calls itself.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) id: Uuid,
    pub(super) client: String,
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub(super) metric: String,
    /// What it is of, as NAME=VALUE with commas between; empty where there is one.
    pub(super) of: String,
    pub(super) value: f64,
}

pub(super) struct ClientMetrics {
    known: Arc<Mutex<Known>>,
    pub(super) accepted: Counter,
    pub(super) refused: Counter,
}

#[derive(Default)]
struct Known(BTreeMap<Uuid, Client>);

struct Client {
    name: String,
    pushed_at: Instant,
    gone_at: Instant,
    points: Vec<Point>,
}

impl ClientMetrics {
    pub(super) fn new(metrics: &Metrics, clock: &Clock) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        let (shown, clock) = (Arc::clone(&known), clock.clone());
        metrics.on_scrape(move |scrape| lock(&shown).show(clock.now(), scrape));
        Self {
            known,
            accepted: metrics.counter(&names::CLIENT_METRICS_PUSHES, &["accepted"]),
            refused: metrics.counter(&names::CLIENT_METRICS_PUSHES, &["refused"]),
        }
    }

    /// Whether a client may push now. It may come earlier than asked, but not twice as often; its last word is always taken.
    pub(super) fn admit(
        &self,
        instance: &Instance,
        subscription: &Subscription,
        is_last: bool,
        now: Instant,
    ) -> bool {
        let mut known = lock(&self.known);
        let interval = subscription.interval();
        if let Some(client) = known.0.get(&instance.id)
            && !is_last
            && now.duration_since(client.pushed_at) < interval / 2
        {
            return false;
        }
        let gone_at = now + interval * INTERVALS_SILENT;
        let client = known.0.entry(instance.id).or_insert_with(|| Client {
            name: shortened(&instance.client),
            pushed_at: now,
            gone_at,
            points: Vec::new(),
        });
        (client.pushed_at, client.gone_at) = (now, gone_at);
        if known.0.len() > CLIENTS_MAX {
            known.forget_longest_silent();
        }
        true
    }

    /// What a client that was admitted said.
    pub(super) fn put(&self, instance: &Instance, points: Vec<Point>) {
        if let Some(client) = lock(&self.known).0.get_mut(&instance.id) {
            client.points = points;
        }
    }

    pub(super) fn forget(&self, id: Uuid) {
        lock(&self.known).0.remove(&id);
    }
}

/// The guarded value is only ever changed whole.
fn lock(known: &Mutex<Known>) -> std::sync::MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn forget_longest_silent(&mut self) {
        let silent = self.0.iter().min_by_key(|(_, client)| client.pushed_at);
        if let Some(id) = silent.map(|(id, _)| *id) {
            self.0.remove(&id);
        }
    }

    fn show(&mut self, now: Instant, scrape: &mut Scrape) {
        self.0.retain(|_, client| client.gone_at > now);
        for (id, client) in &self.0 {
            let id = id.to_string();
            for point in &client.points {
                let labels = [client.name.as_str(), &id, &point.metric, &point.of];
                scrape.number(&names::CLIENT_METRIC, &labels, point.value);
            }
        }
    }
}

/// A name that somebody else chose, as it may stand in a label.
fn shortened(name: &str) -> String {
    let letters = name.chars().filter(|letter| !letter.is_control());
    letters.take(NAME_LETTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: u8) -> Instance {
        Instance {
            id: Uuid([id; 16]),
            client: format!("c{id}"),
        }
    }

    fn every(interval_ms: i32) -> Subscription {
        Subscription {
            prefixes: vec![String::new()],
            interval_ms,
        }
    }

    fn point(value: f64) -> Vec<Point> {
        vec![Point {
            metric: "m".to_owned(),
            of: "topic=t".to_owned(),
            value,
        }]
    }

    fn shown(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("headwater_client_metric{"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn the_last_value_of_each_client_is_shown_until_it_is_silent() {
        let (metrics, clock) = (Metrics::default(), Clock::manual(0));
        let clients = ClientMetrics::new(&metrics, &clock);
        let asked = every(1000);
        assert!(clients.admit(&instance(1), &asked, false, clock.now()));
        clients.put(&instance(1), point(1.5));
        let line = |value: &str| {
            let id = instance(1).id;
            format!(
                r#"headwater_client_metric{{client="c1",instance="{id}",metric="m",of="topic=t"}} {value}"#
            )
        };
        assert_eq!(shown(&metrics), [line("1.5")]);
        assert!(
            !clients.admit(&instance(1), &asked, false, clock.now()),
            "too early"
        );
        assert!(
            clients.admit(&instance(1), &asked, true, clock.now()),
            "its last word"
        );
        clock.advance(Duration::from_millis(500));
        assert!(clients.admit(&instance(1), &asked, false, clock.now()));
        clients.put(&instance(1), point(-2.0));
        clock.advance(Duration::from_millis(2999));
        assert_eq!(shown(&metrics), [line("-2")]);
        clock.advance(Duration::from_millis(1));
        assert!(shown(&metrics).is_empty(), "three intervals without a word");
    }

    #[test]
    fn the_longest_silent_make_room() {
        let (metrics, clock) = (Metrics::default(), Clock::manual(0));
        let clients = ClientMetrics::new(&metrics, &clock);
        for id in 0..=CLIENTS_MAX as u8 {
            assert!(clients.admit(&instance(id), &every(60_000), false, clock.now()));
            clients.put(&instance(id), point(id.into()));
            clock.advance(Duration::from_millis(1));
        }
        let shown = shown(&metrics);
        assert_eq!(shown.len(), CLIENTS_MAX);
        assert!(!shown.iter().any(|line| line.contains(r#"client="c0""#)));
    }

    #[test]
    fn subscriptions_differ_by_what_they_ask_for() {
        let some = |prefixes: &[&str]| Subscription {
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            interval_ms: 1000,
        };
        let asked = some(&["org.apache.kafka.producer.", "a"]);
        assert!(asked.wants("org.apache.kafka.producer.x") && !asked.wants("org.apache.kafka.consumer.x"));
        assert!(every(1).wants("anything") && !some(&[]).wants("anything"));
        assert_eq!(asked.id(), some(&["org.apache.kafka.producer.", "a"]).id());
        assert_ne!(asked.id(), some(&["a"]).id());
        assert_ne!(every(1).id(), every(2).id());
        assert_eq!(shortened(&"a\n".repeat(300)), "a".repeat(NAME_LETTERS_MAX));
    }
}
