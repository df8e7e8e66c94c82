//! Where every partition of the cluster is and how it is, in pages: what the picture of the cluster is drawn from.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::health::{PartitionCondition, PartitionPlace};
use super::{Api, ids, look};
use crate::config::BrokerConfig;
use crate::controller::health::{Ailments, Examined, examine, waits_for};
use crate::http::error::{ApiError, ErrorBody, Query};
use crate::metadata::Image;

/// Partitions of one page.
const LIMIT_DEFAULT: usize = 500;
const LIMIT_MAX: usize = 5000;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PlacedQuery {
    /// Only those of which this holds.
    #[param(nullable = false)]
    pub only: Option<Ailment>,
    /// Only those that this node has replicas of, by its id.
    #[param(nullable = false)]
    pub node: Option<i32>,
    /// Only those of topics with this text in the name.
    #[param(nullable = false)]
    pub topic: Option<String>,
    /// Also those of topics that the node made for itself.
    #[serde(default)]
    pub internal: bool,
    /// Where the page begins: what `next` of the one before says.
    #[param(nullable = false)]
    pub from_topic: Option<String>,
    #[param(nullable = false)]
    pub from_partition: Option<i32>,
    /// How many at most; 500 if absent, never more than 5000.
    #[param(nullable = false)]
    pub limit: Option<usize>,
}

/// What may be the matter with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum Ailment {
    Leaderless,
    UnderMinIsr,
    AtMinIsr,
    UnderReplicated,
    Moving,
}

impl Ailment {
    fn holds(self, ailments: Ailments) -> bool {
        match self {
            Self::Leaderless => ailments.is_leaderless,
            Self::UnderMinIsr => ailments.is_under_min_in_sync,
            Self::AtMinIsr => ailments.is_at_min_in_sync,
            Self::UnderReplicated => ailments.is_under_replicated,
            Self::Moving => ailments.is_moving,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PlacedPage {
    /// How many there are on all pages.
    pub total: u64,
    /// How many come before this page.
    pub before: u64,
    pub topics: Vec<PlacedTopic>,
    /// Where the next page begins; null: this is the last one.
    #[schema(required)]
    pub next: Option<PartitionPlace>,
}

/// A topic, with those of its partitions that are on this page.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PlacedTopic {
    pub name: String,
    pub min_insync_replicas: u64,
    pub partitions: Vec<PlacedPartition>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PlacedPartition {
    pub partition: i32,
    pub condition: PartitionCondition,
    /// -1: nobody.
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Not in sync, but known to hold everything committed.
    pub eligible: Vec<i32>,
    /// Replicas that are being added.
    pub adding: Vec<i32>,
    /// Replicas that go once the others are in sync.
    pub removing: Vec<i32>,
    /// While nobody leads it: any of these has to come back.
    pub waits_for: Vec<i32>,
}

#[utoipa::path(
    get, path = "/api/v1/cluster/partitions", tag = "cluster", params(PlacedQuery),
    responses((status = 200, body = PlacedPage), (status = 503, body = ErrorBody))
)]
pub(in crate::http) async fn partitions(
    State(api): State<Api>,
    Query(query): Query<PlacedQuery>,
) -> Result<Json<PlacedPage>, ApiError> {
    let work = move |image: &Image, broker: &BrokerConfig| page(image, examine(image, broker), &query);
    look(&api, work).await.map(Json)
}

fn page<'a>(image: &Image, all: impl Iterator<Item = Examined<'a>>, query: &PlacedQuery) -> PlacedPage {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let from = (
        query.from_topic.as_deref().unwrap_or(""),
        query.from_partition.unwrap_or(0),
    );
    let mut shown = PlacedPage {
        total: 0,
        before: 0,
        topics: Vec::new(),
        next: None,
    };
    let mut taken = 0;
    for examined in all.filter(|examined| is_asked_for(examined, query)) {
        shown.total += 1;
        if (&*examined.topic.name, examined.index.0) < from {
            shown.before += 1;
        } else if taken < limit {
            taken += 1;
            put(&mut shown.topics, image, &examined);
        } else if shown.next.is_none() {
            shown.next = Some(PartitionPlace::of(&examined));
        }
    }
    shown
}

fn is_asked_for(examined: &Examined<'_>, query: &PlacedQuery) -> bool {
    let topic = examined.topic;
    let is_of_node = |id: i32| examined.state.replicas.iter().any(|node| node.0 == id);
    (query.internal || !topic.internal)
        && query
            .topic
            .as_ref()
            .is_none_or(|text| topic.name.contains(&**text))
        && query.only.is_none_or(|only| only.holds(examined.ailments))
        && query.node.is_none_or(is_of_node)
}

fn put(topics: &mut Vec<PlacedTopic>, image: &Image, examined: &Examined<'_>) {
    let state = examined.state;
    let placed = PlacedPartition {
        partition: examined.index.0,
        condition: examined.ailments.into(),
        leader: state.leader.0,
        leader_epoch: state.leader_epoch.0,
        replicas: ids(&state.replicas),
        isr: ids(&state.isr),
        eligible: ids(&state.eligible),
        adding: ids(&state.adding),
        removing: ids(&state.removing),
        waits_for: ids(&waits_for(image, state)),
    };
    match topics.last_mut() {
        Some(last) if last.name == *examined.topic.name => last.partitions.push(placed),
        _ => topics.push(PlacedTopic {
            name: examined.topic.name.to_string(),
            min_insync_replicas: examined.min_in_sync as u64,
            partitions: vec![placed],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{PartitionState, Topic};
    use headwater_protocol::ids::{NodeId, TopicId};
    use std::sync::Arc;

    /// Topics `a` and `b` of three partitions each, and an internal one of one; the replicas of partition n are on nodes n
    /// and n + 1, and partition 1 of each has one out of sync.
    fn topics() -> Vec<Arc<Topic>> {
        let topic = |(id, name, partitions): (u8, &str, i32)| {
            let partition = |index: i32| PartitionState {
                isr: vec![NodeId(index)],
                ..PartitionState::fresh(vec![NodeId(index), NodeId(index + 1)])
            };
            Arc::new(Topic {
                id: TopicId([id; 16]),
                name: Arc::from(name),
                partitions: (0..partitions).map(partition).collect(),
                configs: Default::default(),
                mirror: None,
                internal: name.starts_with('_'),
            })
        };
        [(1, "__c", 1), (2, "a", 3), (3, "b", 3)].map(topic).to_vec()
    }

    fn shown(query: &PlacedQuery) -> (PlacedPage, Vec<String>) {
        let topics = topics();
        let examined = topics.iter().flat_map(|topic| {
            let each = topic.indexes().zip(&topic.partitions);
            each.map(move |(index, state)| Examined {
                topic,
                index,
                state,
                min_in_sync: 1,
                ailments: Ailments {
                    is_under_replicated: index.0 == 1,
                    ..Ailments::default()
                },
            })
        });
        let page = page(&Image::default(), examined, query);
        let names = page.topics.iter().flat_map(|topic| {
            let each = topic.partitions.iter();
            each.map(|it| format!("{}{}", topic.name, it.partition))
        });
        let names = names.collect();
        (page, names)
    }

    #[test]
    fn pages_follow_one_another_without_gaps() {
        let mut query = PlacedQuery {
            limit: Some(4),
            ..PlacedQuery::default()
        };
        let (first, names) = shown(&query);
        assert_eq!(names, ["a0", "a1", "a2", "b0"]);
        assert_eq!((first.total, first.before), (6, 0));
        let next = first.next.expect("there is more");
        (query.from_topic, query.from_partition) = (Some(next.topic), Some(next.partition));
        let (second, names) = shown(&query);
        assert_eq!(names, ["b1", "b2"]);
        assert_eq!((second.total, second.before, second.next), (6, 4, None));
    }

    #[test]
    fn only_what_is_asked_for_is_counted_and_shown() {
        let all = PlacedQuery::default;
        for (query, expected) in [
            (
                PlacedQuery {
                    only: Some(Ailment::UnderReplicated),
                    ..all()
                },
                vec!["a1", "b1"],
            ),
            (
                PlacedQuery {
                    only: Some(Ailment::Leaderless),
                    ..all()
                },
                vec![],
            ),
            (
                PlacedQuery {
                    node: Some(3),
                    ..all()
                },
                vec!["a2", "b2"],
            ),
            (
                PlacedQuery {
                    topic: Some("b".to_owned()),
                    ..all()
                },
                vec!["b0", "b1", "b2"],
            ),
            (
                PlacedQuery {
                    internal: true,
                    topic: Some("c".to_owned()),
                    ..all()
                },
                vec!["__c0"],
            ),
        ] {
            let (page, names) = shown(&query);
            assert_eq!(names, expected, "{query:?}");
            assert_eq!(page.total, expected.len() as u64, "{query:?}");
        }
    }
}
