//! What a member asks the coordinator of its group.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::kafka::heartbeat::HeartbeatRequest;
use headwater_protocol::kafka::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
};
use headwater_protocol::kafka::leave_group::LeaveGroupRequest;
use headwater_protocol::kafka::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use headwater_protocol::kafka::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::Str;

use super::{Member, Place, Stop};
use crate::client::Partition;
use crate::workload::transact::copy::committed;

/// Beside the time that a group gives its members to join.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
const PROTOCOL: &str = "in turn";

impl Member {
    /// Asks the coordinator once. None: nobody answers.
    pub(super) async fn ask<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        patience: Duration,
    ) -> Option<R::Response> {
        let what = self.coordinated();
        let address = self.client.coordinator(&what).await?;
        let answer = self
            .client
            .call_within(patience, &address, request, version)
            .await;
        if let Err(error) = &answer {
            self.client.note(format_args!("asks {what:?}: {error}"));
            self.client.forget_coordinator(&what);
        }
        answer.ok()
    }

    /// What an error of the coordinator means; none: it is asked again.
    pub(super) fn heed(&mut self, code: ErrorCode) -> Result<(), Stop> {
        self.client.note(format_args!("asks {}: {code:?}", self.group));
        match code {
            ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::STALE_MEMBER_EPOCH => Err(Stop::Rebalance),
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION | ErrorCode::FENCED_MEMBER_EPOCH => {
                Err(Stop::Unknown)
            }
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => Ok(()),
            _ => {
                let what = self.coordinated();
                self.client.forget_coordinator(&what);
                Ok(())
            }
        }
    }

    /// A place in the next generation, and the share that goes with it.
    pub(super) async fn join(&mut self, member: &mut String) -> Result<(Place, Vec<Partition>), Stop> {
        let patience = PATIENCE + Duration::from_millis(self.plan.rebalance_ms + self.plan.first_ms);
        loop {
            let request = JoinGroupRequest {
                group_id: Str::from(self.group.as_str()),
                session_timeout_ms: self.plan.session_ms as i32,
                rebalance_timeout_ms: self.plan.rebalance_ms as i32,
                member_id: Str::from(member.as_str()),
                protocol_type: Str::from("consumer"),
                protocols: vec![JoinGroupRequestProtocol {
                    name: Str::from(PROTOCOL),
                    metadata: Bytes::from_static(b"all"),
                    ..JoinGroupRequestProtocol::default()
                }],
                ..JoinGroupRequest::default()
            };
            if let Some(answer) = self.ask(&request, 5, patience).await {
                match ErrorCode(answer.error_code) {
                    ErrorCode::NONE => {
                        answer.member_id.as_str().clone_into(member);
                        match self.sync(&answer).await {
                            Err(Stop::Rebalance) => {}
                            synced => return synced,
                        }
                    }
                    ErrorCode::MEMBER_ID_REQUIRED => {
                        answer.member_id.as_str().clone_into(member);
                        continue;
                    }
                    ErrorCode::REBALANCE_IN_PROGRESS => {}
                    code => self.heed(code)?,
                }
            }
            self.again().await?;
        }
    }

    async fn sync(&mut self, joined: &JoinGroupResponse) -> Result<(Place, Vec<Partition>), Stop> {
        let (group, generation) = (self.group.clone(), joined.generation_id);
        let member = joined.member_id.as_str().to_owned();
        let is_leader = joined.leader == joined.member_id;
        let request = SyncGroupRequest {
            group_id: Str::from(group.as_str()),
            generation_id: generation,
            member_id: joined.member_id.clone(),
            assignments: match is_leader {
                true => self.divide(&joined.members),
                false => Vec::new(),
            },
            ..SyncGroupRequest::default()
        };
        let patience = PATIENCE + Duration::from_millis(self.plan.rebalance_ms);
        loop {
            if let Some(answer) = self.ask(&request, 3, patience).await {
                match ErrorCode(answer.error_code) {
                    ErrorCode::NONE => {
                        let share = self.share_of(&answer.assignment);
                        self.client.note(format_args!(
                            "is {member} in generation {generation} of {group}: {} partitions",
                            share.len()
                        ));
                        self.oracle.assigned(&group, generation, &member, &share);
                        self.control.count("assignments");
                        return Ok((Place { member, generation }, share));
                    }
                    code => self.heed(code)?,
                }
            }
            self.again().await?;
        }
    }

    /// Deals the partitions out in turn, beginning with anybody.
    fn divide(&self, members: &[JoinGroupResponseMember]) -> Vec<SyncGroupRequestAssignment> {
        let count = members.len().max(1);
        let first = self.client.random.below(count as u64) as usize;
        let share = |place: usize| {
            let own = (0..self.partitions.len()).filter(|at| (at + first) % count == place);
            own.map(|at| at.to_string()).collect::<Vec<_>>().join(",")
        };
        let members = members.iter().enumerate();
        let assignment = |(place, member): (usize, &JoinGroupResponseMember)| SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: Bytes::from(share(place)),
            ..SyncGroupRequestAssignment::default()
        };
        members.map(assignment).collect()
    }

    fn share_of(&self, assignment: &[u8]) -> Vec<Partition> {
        let text = std::str::from_utf8(assignment).unwrap_or_default();
        let places = text.split(',').filter_map(|place| place.parse::<usize>().ok());
        places
            .filter_map(|place| self.partitions.get(place).cloned())
            .collect()
    }

    /// Where to go on.
    pub(super) async fn position(&mut self, place: &Place, partition: &Partition) -> Result<i64, Stop> {
        loop {
            if let Some(position) = self.position_once(place, partition).await {
                return Ok(position);
            }
            // As long as it is one of the group.
            self.beat(place).await?;
            self.again().await?;
        }
    }

    /// None: nobody tells.
    pub(super) async fn position_once(&mut self, place: &Place, partition: &Partition) -> Option<i64> {
        let what = self.coordinated();
        let offset = committed(&mut self.client, &what, partition).await?;
        self.oracle
            .told(&self.group, Some(place.generation), partition, offset);
        Some(offset.max(0))
    }

    pub(super) async fn beat(&mut self, place: &Place) -> Result<(), Stop> {
        let request = HeartbeatRequest {
            group_id: Str::from(self.group.as_str()),
            generation_id: place.generation,
            member_id: Str::from(place.member.as_str()),
            ..HeartbeatRequest::default()
        };
        match self.ask(&request, 3, PATIENCE).await {
            Some(answer) if answer.error_code != 0 => self.heed(ErrorCode(answer.error_code)),
            Some(_) | None => Ok(()),
        }
    }

    /// Commits how far it has come, and asks until it is answered.
    pub(super) async fn commit(
        &mut self,
        place: &Place,
        positions: &BTreeMap<Partition, i64>,
    ) -> Result<(), Stop> {
        if positions.is_empty() {
            return Ok(());
        }
        let request = self.commit_of(place, positions);
        for (partition, offset) in positions {
            self.oracle.commits(&self.group, partition, *offset);
        }
        let mut is_doubtful = false;
        loop {
            match self.ask(&request, 9, PATIENCE).await {
                Some(answer) => {
                    let answers = answer.topics.iter().flat_map(|topic| &topic.partitions);
                    let refused = answers
                        .map(|partition| ErrorCode(partition.error_code))
                        .find(|code| *code != ErrorCode::NONE);
                    match refused {
                        None => {
                            for (partition, offset) in positions {
                                self.oracle.committed_offset(&self.group, partition, *offset);
                            }
                            self.control.count("offset_commits");
                            return match is_doubtful {
                                true => Err(Stop::Doubtful),
                                false => Ok(()),
                            };
                        }
                        Some(code) => self.heed(code)?,
                    }
                }
                None => is_doubtful = true,
            }
            self.again().await?;
        }
    }

    fn commit_of(&self, place: &Place, positions: &BTreeMap<Partition, i64>) -> OffsetCommitRequest {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, offset) in positions {
            let of_topic = topics.entry(&partition.topic).or_default();
            of_topic.push(OffsetCommitRequestPartition {
                partition_index: partition.index,
                committed_offset: *offset,
                committed_leader_epoch: -1,
                ..OffsetCommitRequestPartition::default()
            });
        }
        let topic = |(name, partitions): (&str, _)| OffsetCommitRequestTopic {
            name: Str::from(name),
            partitions,
            ..OffsetCommitRequestTopic::default()
        };
        OffsetCommitRequest {
            group_id: Str::from(self.group.as_str()),
            generation_id_or_member_epoch: place.generation,
            member_id: Str::from(place.member.as_str()),
            topics: topics.into_iter().map(topic).collect(),
            ..OffsetCommitRequest::default()
        }
    }

    /// Says good-bye, once.
    pub(super) async fn leave(&mut self, member: &str) {
        let request = LeaveGroupRequest {
            group_id: Str::from(self.group.as_str()),
            member_id: Str::from(member),
            ..LeaveGroupRequest::default()
        };
        if self.ask(&request, 1, PATIENCE).await.is_some() {
            self.control.count("left");
        }
    }
}
