//! What the edge counts: requests and their latency by API, connections, bytes, what was refused.
//!
//! Handles are taken once; recording on the way of a request is a few atomic additions.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use headwater_protocol::kafka::ApiKey;

use crate::sys::clock::Clock;
use crate::telemetry::{Counter, Gauge, Histogram, Metrics, names};
use crate::transport::Carrier;

/// Lines about misbehaving peers are written this often at most.
const WARN_EVERY_MS: i64 = 1_000;

pub(super) struct Meters {
    apis: Vec<Option<Api>>,
    connections: [Gauge; 4],
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) refused: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) malformed: Counter,
    pub(super) idle_closed: Counter,
    warned_ms: AtomicI64,
    unwarned: AtomicU64,
}

/// One API's handles.
pub(super) struct Api {
    pub(super) requests: Counter,
    pub(super) seconds: Histogram,
}

const CARRIERS: [Carrier; 4] = [Carrier::Tcp, Carrier::Tls, Carrier::Quic, Carrier::Memory];

impl Meters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let mut apis = Vec::new();
        for key in super::dispatch::served() {
            let index = index(key);
            apis.resize_with(apis.len().max(index + 1), || None);
            apis[index] = Some(Api {
                requests: metrics.counter(&names::REQUESTS, &[key.name()]),
                seconds: metrics.histogram(&names::REQUEST_SECONDS, &[key.name()]),
            });
        }
        Self {
            apis,
            connections: CARRIERS.map(|carrier| metrics.gauge(&names::CONNECTIONS, &[carrier.name()])),
            bytes_in: metrics.counter(&names::REQUEST_BYTES, &[]),
            bytes_out: metrics.counter(&names::RESPONSE_BYTES, &[]),
            refused: metrics.counter(&names::CONNECTIONS_REFUSED, &[]),
            handshakes_failed: metrics.counter(&names::HANDSHAKES_FAILED, &[]),
            malformed: metrics.counter(&names::MALFORMED_REQUESTS, &[]),
            idle_closed: metrics.counter(&names::CONNECTIONS_IDLE_CLOSED, &[]),
            warned_ms: AtomicI64::new(i64::MIN),
            unwarned: AtomicU64::new(0),
        }
    }

    pub(super) fn connections(&self, carrier: Carrier) -> &Gauge {
        let at = CARRIERS
            .iter()
            .position(|known| *known == carrier)
            .expect("every carrier is listed");
        &self.connections[at]
    }

    /// The handles of a served API.
    pub(super) fn api(&self, key: ApiKey) -> Option<&Api> {
        self.apis.get(index(key))?.as_ref()
    }

    pub(super) fn answered(&self, key: ApiKey, took: Duration) {
        if let Some(api) = self.api(key) {
            api.requests.increment();
            api.seconds.record(took);
        }
    }

    /// Writes a line about a peer's fault, unless one was written a moment ago: a flood of faults must not become a
    /// flood of lines. `malformed` and its like count them all.
    pub(super) fn warn(&self, clock: &Clock, line: impl FnOnce()) {
        let now = clock.unix_ms();
        let last = self.warned_ms.load(Ordering::Relaxed);
        let due = now.saturating_sub(last) >= WARN_EVERY_MS || now < last;
        let mine = || {
            self.warned_ms
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if !due || !mine() {
            self.unwarned.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unwarned = self.unwarned.swap(0, Ordering::Relaxed);
        if unwarned > 0 {
            tracing::warn!(unwarned, "more faults of peers were not written down");
        }
        line();
    }
}

fn index(key: ApiKey) -> usize {
    usize::try_from(key as i16).expect("API keys are not negative")
}
