//! What clients are asked to tell of themselves (KIP-714).

use super::properties::{Kind, list_items};
use super::server::{BrokerConfig, ServerProperty, live};

pub(super) const PROPERTIES: &[ServerProperty] = &[
    live(
        "client.metrics",
        Kind::Text,
        "",
        "Which of their metrics clients are asked for: beginnings of names with commas between, `*` for all; empty: none.",
    ),
    live(
        "client.metrics.interval.ms",
        Kind::Ms {
            min: 100,
            max: 3_600_000,
        },
        "300000",
        "How often clients are asked to push them.",
    ),
];

impl BrokerConfig {
    /// The beginnings of the names of metrics that clients are asked for; an empty one is that of all.
    pub fn client_metrics(&self) -> Vec<String> {
        let value = self.value("client.metrics");
        let prefix = |item: &str| {
            if item == "*" {
                String::new()
            } else {
                item.to_owned()
            }
        };
        list_items(&value).map(prefix).collect()
    }

    pub fn client_metrics_interval_ms(&self) -> i32 {
        i32::try_from(self.number("client.metrics.interval.ms")).unwrap_or(i32::MAX)
    }
}
