//! Members by the consumer protocol (KIP-848): the coordinator divides the partitions, a member says what it has by heartbeats, gives
//! up what it is not to have any more, and only then another one is given that.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, RequestTopicPartitions,
};
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use headwater_protocol::primitives::{Str, Uuid};
use tokio::time::Instant;

use super::coordinate::PATIENCE;
use super::{FETCHES_MAX, Member, Place, Stop};
use crate::client::Partition;
use crate::workload::Control;

const LEAVING: i32 = -1;

/// What a member is in its group.
struct Standing {
    /// The generation is the member's epoch.
    place: Place,
    /// What it has, and consumes.
    owned: Vec<Partition>,
    /// Everything is to be said again: an answer was lost, or what it has is other than it was.
    tells_all: bool,
    next_beat: Instant,
}

impl Member {
    /// From joining to being unknown.
    pub(super) async fn live_by_heartbeats(&mut self) {
        let Ok(topics) = self.topics().await else { return };
        let mut standing = Standing {
            place: Place {
                member: format!("{:032x}", u128::from(self.client.random.below(u64::MAX))),
                generation: 0,
            },
            owned: Vec::new(),
            tells_all: true,
            next_beat: Instant::now(),
        };
        let stop = loop {
            if let Err(stop) = self.take_part(&mut standing, &topics).await
                && stop != Stop::Rebalance
            {
                break stop;
            }
            standing.tells_all = true;
            standing.next_beat = Instant::now();
        };
        if stop != Stop::Unknown {
            self.depart(&standing).await;
        }
    }

    /// Consumes what it has, and follows what it is told; ends with an error.
    async fn take_part(
        &mut self,
        standing: &mut Standing,
        topics: &BTreeMap<Uuid, String>,
    ) -> Result<(), Stop> {
        let mut positions = BTreeMap::new();
        let mut until_commit = self.client.random.below(FETCHES_MAX);
        loop {
            if self.is_over() {
                return Err(Stop::Over);
            }
            if Instant::now() >= standing.next_beat
                && let Some(wanted) = self.reconcile(standing, topics).await?
            {
                let gives_up = standing.owned.iter().any(|partition| !wanted.contains(partition));
                if gives_up {
                    self.commit(&standing.place, &positions).await?;
                }
                standing.tells_all = wanted != standing.owned;
                standing.owned = wanted;
                positions.retain(|partition, _| standing.owned.contains(partition));
                if standing.tells_all {
                    standing.next_beat = Instant::now();
                }
                continue;
            }
            let unknown = standing
                .owned
                .iter()
                .find(|partition| !positions.contains_key(*partition));
            if let Some(partition) = unknown.cloned() {
                if let Some(position) = self.position_once(&standing.place, &partition).await {
                    positions.insert(partition, position);
                    continue;
                }
                self.again().await?;
                continue;
            }
            if standing.owned.is_empty() {
                self.client.pause_ms(self.plan.session_ms / 4).await;
                continue;
            }
            let Standing { owned, next_beat, .. } = &*standing;
            self.consume(owned, &mut positions, *next_beat).await;
            match until_commit.checked_sub(1) {
                Some(left) => until_commit = left,
                None => {
                    self.commit(&standing.place, &positions).await?;
                    until_commit = self.client.random.below(FETCHES_MAX);
                }
            }
            self.client.pause_ms(self.plan.pause_ms_max).await;
        }
    }

    /// Says that it is there. Answers with what it is to have, if it is told.
    async fn reconcile(
        &mut self,
        standing: &mut Standing,
        topics: &BTreeMap<Uuid, String>,
    ) -> Result<Option<Vec<Partition>>, Stop> {
        let all = standing.tells_all || standing.place.generation == 0;
        let names = || topics.values().map(|name| Str::from(name.as_str())).collect();
        let request = ConsumerGroupHeartbeatRequest {
            rebalance_timeout_ms: match all {
                true => self.plan.rebalance_ms as i32,
                false => -1,
            },
            subscribed_topic_names: all.then(names),
            topic_partitions: all.then(|| told(&standing.owned, topics)),
            ..self.beat_of(&standing.place)
        };
        let Some(answer) = self.ask(&request, 1, PATIENCE).await else {
            // It may have been heard.
            standing.tells_all = true;
            self.again().await?;
            return Ok(None);
        };
        if answer.error_code != 0 {
            standing.tells_all = true;
            self.heed(ErrorCode(answer.error_code))?;
            self.again().await?;
            return Ok(None);
        }
        standing.tells_all = false;
        standing.next_beat = Instant::now() + Duration::from_millis(self.plan.session_ms / 4);
        standing.place.generation = answer.member_epoch;
        let Some(assignment) = answer.assignment else {
            return Ok(None);
        };
        let wanted = wanted(&assignment, topics);
        let Place { member, generation } = &standing.place;
        self.client.note(format_args!(
            "is {member} in epoch {generation} of {}: {} partitions",
            self.group,
            wanted.len()
        ));
        self.oracle.assigned(&self.group, *generation, member, &wanted);
        self.control.count("reconciled");
        Ok(Some(wanted))
    }

    fn beat_of(&self, place: &Place) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: Str::from(self.group.as_str()),
            member_id: Str::from(place.member.as_str()),
            member_epoch: place.generation,
            ..ConsumerGroupHeartbeatRequest::default()
        }
    }

    /// Says good-bye, once.
    async fn depart(&mut self, standing: &Standing) {
        let request = ConsumerGroupHeartbeatRequest {
            member_epoch: LEAVING,
            ..self.beat_of(&standing.place)
        };
        if self.ask(&request, 1, PATIENCE).await.is_some() {
            self.control.count("left");
        }
    }

    /// The topics it consumes, by their ids.
    async fn topics(&mut self) -> Result<BTreeMap<Uuid, String>, Stop> {
        let mut names: Vec<String> = self.partitions.iter().map(|it| it.topic.clone()).collect();
        names.dedup();
        let topic = |name: &String| MetadataRequestTopic {
            name: Some(Str::from(name.as_str())),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(names.iter().map(topic).collect()),
            ..MetadataRequest::default()
        };
        loop {
            let answer = self.client.call(&self.client.any_node(), &request, 12).await;
            let known: BTreeMap<Uuid, String> = answer
                .into_iter()
                .flat_map(|answer| answer.topics)
                .filter(|topic| topic.error_code == 0)
                .filter_map(|topic| Some((topic.topic_id, topic.name?.as_str().to_owned())))
                .collect();
            if known.len() == names.len() {
                return Ok(known);
            }
            self.again().await?;
        }
    }
}

fn wanted(assignment: &Assignment, topics: &BTreeMap<Uuid, String>) -> Vec<Partition> {
    let mut wanted = Vec::new();
    for of_topic in &assignment.topic_partitions {
        let Some(topic) = topics.get(&of_topic.topic_id) else {
            continue;
        };
        wanted.extend(of_topic.partitions.iter().map(|index| Partition {
            topic: topic.clone(),
            index: *index,
        }));
    }
    wanted.sort();
    wanted
}

fn told(owned: &[Partition], topics: &BTreeMap<Uuid, String>) -> Vec<RequestTopicPartitions> {
    let of_topic = |(id, name): (&Uuid, &String)| RequestTopicPartitions {
        topic_id: *id,
        partitions: owned
            .iter()
            .filter(|partition| partition.topic == *name)
            .map(|partition| partition.index)
            .collect(),
        ..RequestTopicPartitions::default()
    };
    let all = topics.iter().map(of_topic);
    all.filter(|topic| !topic.partitions.is_empty()).collect()
}
