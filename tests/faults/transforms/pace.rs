//! How far the pipelines are, by what the nodes' HTTP API says: whether all have gone on since a fault, and whether all is done.
//!
//! It owns the rule of what going on is. A pipeline has gone on when it has committed a record that entered its source after the
//! fault: restored is not gone on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_tests::{Http, PATIENCE, until, within};
use serde_json::Value;
use tokio::task::JoinSet;

use super::stages::{NAMES, PARTITIONS};

/// A node that sleeps does not answer; the others are not to wait for it.
const ANSWER: Duration = Duration::from_secs(1);

/// Transform and partition.
type Pipeline = (String, i64);

/// Where a pipeline is, and where its source ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    position: i64,
    end: i64,
    /// What it has not dealt with of all that it reads.
    lag: i64,
}

/// The nodes to ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    nodes: Arc<[Http]>,
}

/// After which time all pipelines had gone on, and which was the last.
#[derive(Debug)]
pub(super) struct GoneOn {
    pub(super) took: Duration,
    pub(super) last: String,
}

/// Who has gone on since a fault.
#[derive(Debug, Default)]
struct Since {
    /// Where sources ended when that was first heard after the fault.
    ends: BTreeMap<Pipeline, i64>,
    gone_on: Vec<Pipeline>,
}

impl Since {
    /// Takes in what was asked for after the fault. Whether all have gone on.
    fn hear(&mut self, places: impl IntoIterator<Item = (Pipeline, Place)>) -> bool {
        for (pipeline, place) in places {
            let end = *self.ends.entry(pipeline.clone()).or_insert(place.end);
            if place.position > end && !self.gone_on.contains(&pipeline) {
                self.gone_on.push(pipeline);
            }
        }
        self.gone_on.len() == NAMES.len() * PARTITIONS as usize
    }

    fn left(&self) -> String {
        let left = self
            .ends
            .iter()
            .filter(|(pipeline, _)| !self.gone_on.contains(pipeline));
        let left: Vec<String> = left
            .map(|((name, partition), end)| format!("{name} {partition} behind {end}"))
            .collect();
        format!(
            "{} of {} are known to have gone on, not yet: {}",
            self.gone_on.len(),
            NAMES.len() * PARTITIONS as usize,
            left.join(", ")
        )
    }
}

impl Pace {
    pub(super) fn new(nodes: Vec<Http>) -> Self {
        Self { nodes: nodes.into() }
    }

    /// Asks the nodes one after the other until one answers.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut last = anyhow::anyhow!("there are no nodes");
        for node in &*self.nodes {
            match within(ANSWER, path, node.get(path))
                .await
                .and_then(|answer| answer?.json())
            {
                Ok(answer) => return Ok(answer),
                Err(why) => last = why,
            }
        }
        Err(last.context(path.to_owned()))
    }

    /// Tells the first node, which is up.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let node = self.nodes.first().context("there are no nodes")?;
        node.post(path, body).await?.json()?;
        Ok(())
    }

    /// Where the pipelines are, as all nodes that answer say.
    async fn places(&self) -> Vec<(Pipeline, Place)> {
        let mut asked = JoinSet::new();
        for &node in &*self.nodes {
            asked.spawn(async move {
                let answer = within(ANSWER, "transforms", node.get("/api/v1/transforms")).await??;
                answer.json()
            });
        }
        let answers = asked.join_all().await;
        // One that is down says nothing.
        answers
            .into_iter()
            .flatten()
            .flat_map(|answer| places(&answer))
            .collect()
    }

    /// Watches from now on, in the background, until all have gone on since a fault that has begun. Dropped, it ends.
    pub(super) fn gone_on(
        &self,
        begun: Instant,
        limit: Duration,
    ) -> impl Future<Output = anyhow::Result<GoneOn>> + use<> {
        let pace = self.clone();
        let mut watching = JoinSet::new();
        watching.spawn(async move {
            let since = Mutex::new(Since::default());
            let heard = until(limit, "all pipelines to go on", || async {
                let places = pace.places().await;
                let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
                anyhow::ensure!(since.hear(places), since.left());
                let (name, partition) = since.gone_on.last().context("nobody is the last")?;
                Ok(Some(format!("{name} {partition}")))
            });
            let last = heard.await?;
            anyhow::Ok(GoneOn {
                took: begun.elapsed(),
                last,
            })
        });
        async move { watching.join_next().await.context("nobody watches")?? }
    }

    /// Waits until all transforms have dealt with everything, those that write first.
    pub(super) async fn all_settled(&self, limit: Duration) -> anyhow::Result<()> {
        for transform in NAMES {
            self.settled(transform, limit).await?;
        }
        Ok(())
    }

    /// Waits until a transform has dealt with all that its sources hold.
    async fn settled(&self, transform: &str, limit: Duration) -> anyhow::Result<()> {
        until(limit, &format!("{transform} to deal with everything"), || async {
            let places = self.places().await;
            let mine: Vec<_> = places.iter().filter(|((name, _), _)| name == transform).collect();
            let is_done = mine.len() == PARTITIONS as usize
                && mine
                    .iter()
                    .all(|(_, place)| place.end > 0 && place.position >= place.end && place.lag == 0);
            anyhow::ensure!(is_done, "it is at {mine:?}");
            Ok(Some(()))
        })
        .await
    }

    /// Which node coordinates the transactions of this id.
    pub(super) async fn coordinator(&self, id: &str) -> anyhow::Result<u8> {
        until(PATIENCE, "a coordinator", || async {
            let described = self.get(&format!("/api/v1/transactions/{id}")).await?;
            let node = described["coordinator"].as_u64();
            Ok(node.and_then(|node| u8::try_from(node).ok()))
        })
        .await
    }
}

/// Pipelines that run, of one node's answer.
fn places(answer: &Value) -> Vec<(Pipeline, Place)> {
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for transform in each(answer) {
        for partition in each(&transform["partitions"]) {
            let number = |name: &str| partition[name].as_i64();
            if let (Some(index), Some(position), Some(end), Some(lag), Some("running")) = (
                number("partition"),
                number("position"),
                number("high_watermark"),
                number("lag"),
                partition["state"].as_str(),
            ) {
                let name = transform["name"].as_str().unwrap_or_default().to_owned();
                found.push(((name, index), Place { position, end, lag }));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gone_on_is_who_has_committed_what_came_after_the_fault() {
        let mut since = Since::default();
        let all = |position, end| {
            let pipelines = NAMES
                .iter()
                .flat_map(|name| (0..i64::from(PARTITIONS)).map(|p| ((*name).to_owned(), p)));
            pipelines
                .map(move |pipeline| {
                    (
                        pipeline,
                        Place {
                            position,
                            end,
                            lag: 0,
                        },
                    )
                })
                .collect::<Vec<_>>()
        };
        assert!(!since.hear(all(5, 7)), "it was running before");
        assert!(!since.hear(all(7, 9)), "what it has done by now was there before");
        let mut places = all(8, 9);
        let slow = places.pop();
        assert!(
            !since.hear(places) && since.left().contains("joined 2 behind 7"),
            "{}",
            since.left()
        );
        assert!(since.hear(slow));
    }

    #[test]
    fn only_a_pipeline_that_runs_says_where_it_is() {
        let partition = |index, state| json!({ "partition": index, "state": state, "position": 3, "high_watermark": 4, "lag": 1 });
        let answer =
            json!([{ "name": "late", "partitions": [partition(0, "running"), partition(1, "starting")] }]);
        let place = Place {
            position: 3,
            end: 4,
            lag: 1,
        };
        assert_eq!(places(&answer), [(("late".to_owned(), 0), place)]);
        assert_eq!(places(&json!({ "error": "busy" })), []);
    }
}
