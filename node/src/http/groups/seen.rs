//! What coordinators tell of their groups, put together with how far their partitions are.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::consumer_protocol::{Assignment, PROTOCOL_TYPE};
use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::consumer_group_describe::{self, ConsumerGroupDescribeRequest};
use headwater_protocol::kafka::describe_groups::{
    DescribeGroupsRequest, DescribedGroup, DescribedGroupMember,
};
use headwater_protocol::kafka::list_groups::{ListGroupsRequest, ListedGroup};
use headwater_protocol::kafka::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use headwater_protocol::primitives::Str;

use super::ask::{LATEST, check, coordinator, look_up, unknown};
use super::{
    GroupDetail, GroupKind, GroupList, GroupMember, GroupPartition, GroupState, GroupSummary, Place, share,
};
use crate::group::{self, Stage};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::nodes::{all_list, ask};
use crate::metadata::topic::OFFSETS_TOPIC;

/// With the kinds of groups.
const LIST_VERSION: i16 = 5;
const DESCRIBE_VERSION: i16 = 5;
const CONSUMERS_VERSION: i16 = 1;
/// Many groups at once, topics by name.
const FETCH_VERSION: i16 = 8;

/// A group as its coordinator knows it.
pub(super) struct Seen {
    pub(super) kind: GroupKind,
    pub(super) coordinator: NodeId,
    pub(super) group: DescribedGroup,
    pub(super) committed: BTreeMap<Place, i64>,
    /// By partition: who has it; several in a share group only.
    pub(super) owners: BTreeMap<Place, Vec<String>>,
    /// The members' epochs, unless they use the classic protocol.
    pub(super) epochs: BTreeMap<String, i32>,
    pub(super) lags: Lags,
}

/// How far a group lags.
pub(super) enum Lags {
    /// By all that lies behind what it has committed.
    Counted,
    /// By this in some partitions; how far in others is not known.
    Told(BTreeMap<Place, i64>),
    Unknown,
}

/// The groups of all nodes that answer.
pub(super) async fn all(api: &Api) -> GroupList {
    let image = api.view.image();
    if image.topic(OFFSETS_TOPIC).is_none() {
        return GroupList {
            groups: Vec::new(),
            unanswered: Vec::new(),
        };
    }
    let (seen, unanswered) = all_list(&image, |node| groups_of(api, node)).await;
    let places: BTreeSet<&Place> = seen.iter().flat_map(Seen::places).collect();
    let ends = look_up(api, places.into_iter(), LATEST).await;
    let mut groups: Vec<GroupSummary> = seen.iter().map(|group| summary(group, &ends)).collect();
    groups.sort_by(|one, other| one.group.cmp(&other.group));
    GroupList { groups, unanswered }
}

pub(super) async fn one(api: &Api, name: &str) -> Result<GroupDetail, ApiError> {
    let node = coordinator(api, name).await?;
    let names = vec![Str::from(name)];
    // A node of a former version knows of no other kind than the last.
    let mut found = describe_consumers(api, node, names.clone())
        .await
        .unwrap_or_default();
    if found.is_empty() {
        found = share::describe(api, node, names.clone())
            .await
            .unwrap_or_default();
    }
    if found.is_empty() {
        found = describe(api, node, names).await?;
    }
    let group = found.pop().ok_or_else(|| unknown(name))?;
    let ends = look_up(api, group.places(), LATEST).await;
    Ok(detail(group, &ends))
}

/// What a group has committed; nothing of one that is not there.
pub(super) async fn committed(api: &Api, node: NodeId, name: &str) -> Result<BTreeMap<Place, i64>, ApiError> {
    let mut committed = offsets(api, node, &[Str::from(name)]).await?;
    Ok(committed.remove(name).unwrap_or_default())
}

async fn groups_of(api: &Api, node: NodeId) -> Result<Vec<Seen>, ApiError> {
    let listed = ask(api, node, LIST_VERSION, &ListGroupsRequest::default()).await?;
    check("", listed.error_code)?;
    let [sharers, consumers] =
        [group::GroupKind::Share, group::GroupKind::Consumer].map(group::GroupKind::name);
    let (shares, others): (Vec<_>, Vec<_>) = listed
        .groups
        .into_iter()
        .partition(|group| &*group.group_type == sharers);
    let (consumers, classic): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|group| &*group.group_type == consumers);
    let names =
        |groups: Vec<ListedGroup>| -> Vec<Str> { groups.into_iter().map(|group| group.group_id).collect() };
    let (classic, consumers, shares) = tokio::try_join!(
        describe(api, node, names(classic)),
        describe_consumers(api, node, names(consumers)),
        share::describe(api, node, names(shares))
    )?;
    Ok([classic, consumers, shares].into_iter().flatten().collect())
}

/// Those of some groups that are there and use the consumer protocol.
async fn describe_consumers(api: &Api, node: NodeId, names: Vec<Str>) -> Result<Vec<Seen>, ApiError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let request = ConsumerGroupDescribeRequest {
        group_ids: names.clone(),
        ..ConsumerGroupDescribeRequest::default()
    };
    let described = ask(api, node, CONSUMERS_VERSION, &request).await?;
    let groups = described.groups.into_iter();
    let found: Vec<_> = groups
        .filter(|group| group.error_code != ErrorCode::GROUP_ID_NOT_FOUND.0)
        .collect();
    let names: Vec<Str> = found.iter().map(|group| group.group_id.clone()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut committed = offsets(api, node, &names).await?;
    let mut seen = Vec::with_capacity(found.len());
    for group in found {
        check(&group.group_id, group.error_code)?;
        let committed = committed.remove(&*group.group_id).unwrap_or_default();
        seen.push(consumers(node, group, committed));
    }
    Ok(seen)
}

/// A group of the consumer protocol in the shape of the others.
fn consumers(
    coordinator: NodeId,
    group: consumer_group_describe::DescribedGroup,
    committed: BTreeMap<Place, i64>,
) -> Seen {
    let (mut owners, mut epochs) = (BTreeMap::new(), BTreeMap::new());
    for member in &group.members {
        epochs.insert(member.member_id.to_string(), member.member_epoch);
        for topic in &member.assignment.topic_partitions {
            for index in &topic.partitions {
                let place = (topic.topic_name.to_string(), *index);
                owners.insert(place, vec![member.member_id.to_string()]);
            }
        }
    }
    let members = group.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.member_id,
        group_instance_id: member.instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        ..DescribedGroupMember::default()
    });
    let group = DescribedGroup {
        group_id: group.group_id,
        group_state: group.group_state,
        protocol_type: Str::from_static(PROTOCOL_TYPE),
        protocol_data: group.assignor_name,
        members: members.collect(),
        ..DescribedGroup::default()
    };
    Seen {
        kind: GroupKind::Consumer,
        coordinator,
        group,
        committed,
        owners,
        epochs,
        lags: Lags::Counted,
    }
}

/// Those of some groups that are there and use the classic protocol.
async fn describe(api: &Api, node: NodeId, names: Vec<Str>) -> Result<Vec<Seen>, ApiError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let request = DescribeGroupsRequest {
        groups: names.clone(),
        ..DescribeGroupsRequest::default()
    };
    let (described, mut committed) = tokio::try_join!(
        ask(api, node, DESCRIBE_VERSION, &request),
        offsets(api, node, &names)
    )?;
    let mut seen = Vec::with_capacity(names.len());
    for group in described.groups {
        check(&group.group_id, group.error_code)?;
        let committed = committed.remove(&*group.group_id).unwrap_or_default();
        // One that is not there is told as dead, too.
        if &*group.group_state == Stage::Dead.name() && committed.is_empty() {
            continue;
        }
        seen.push(Seen {
            kind: GroupKind::Classic,
            coordinator: node,
            owners: owners(&group),
            epochs: BTreeMap::new(),
            group,
            committed,
            lags: Lags::Counted,
        });
    }
    Ok(seen)
}

/// What each of some groups has committed.
async fn offsets(
    api: &Api,
    node: NodeId,
    names: &[Str],
) -> Result<BTreeMap<String, BTreeMap<Place, i64>>, ApiError> {
    let group = |name: &Str| OffsetFetchRequestGroup {
        group_id: name.clone(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        groups: names.iter().map(group).collect(),
        ..OffsetFetchRequest::default()
    };
    let answer = ask(api, node, FETCH_VERSION, &request).await?;
    let mut committed = BTreeMap::new();
    for group in answer.groups {
        check(&group.group_id, group.error_code)?;
        let topics = group.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            let known = partitions.filter(|it| it.error_code == 0 && it.committed_offset >= 0);
            known.map(|it| ((topic.name.to_string(), it.partition_index), it.committed_offset))
        });
        committed.insert(group.group_id.to_string(), topics.collect());
    }
    Ok(committed)
}

fn owners(group: &DescribedGroup) -> BTreeMap<Place, Vec<String>> {
    let mut owners = BTreeMap::new();
    if &*group.protocol_type != PROTOCOL_TYPE {
        return owners;
    }
    for member in &group.members {
        let assigned = Assignment::decode(member.member_assignment.clone()).unwrap_or_default();
        for topic in assigned.partitions {
            for index in topic.partitions {
                let place = (topic.topic.to_string(), index);
                owners.insert(place, vec![member.member_id.to_string()]);
            }
        }
    }
    owners
}

impl Seen {
    fn places(&self) -> impl Iterator<Item = &Place> {
        let committed = self.committed.keys();
        let others = self.owners.keys();
        committed.chain(others.filter(|it| !self.committed.contains_key(*it)))
    }

    fn lag_in(&self, place: &Place, ends: &BTreeMap<Place, i64>) -> Option<i64> {
        match &self.lags {
            Lags::Counted => Some((ends.get(place)? - self.committed.get(place)?).max(0)),
            Lags::Told(lags) => lags.get(place).copied(),
            Lags::Unknown => None,
        }
    }

    /// Over all partitions of which something was committed; None: that of one is not known.
    fn lag(&self, ends: &BTreeMap<Place, i64>) -> Option<i64> {
        match &self.lags {
            Lags::Counted | Lags::Told(_) => {
                self.committed.keys().map(|place| self.lag_in(place, ends)).sum()
            }
            Lags::Unknown => None,
        }
    }
}

fn summary(seen: &Seen, ends: &BTreeMap<Place, i64>) -> GroupSummary {
    let topics: BTreeSet<&String> = seen.places().map(|(topic, _)| topic).collect();
    GroupSummary {
        group: seen.group.group_id.to_string(),
        kind: seen.kind,
        state: state(&seen.group),
        protocol_type: seen.group.protocol_type.to_string(),
        coordinator: seen.coordinator.0,
        members: seen.group.members.len() as u64,
        topics: topics.into_iter().cloned().collect(),
        lag: seen.lag(ends),
    }
}

fn detail(seen: Seen, ends: &BTreeMap<Place, i64>) -> GroupDetail {
    let places: BTreeSet<&Place> = seen.places().collect();
    let partition = |place: &&Place| {
        let member_ids = seen.owners.get(*place).cloned().unwrap_or_default();
        GroupPartition {
            topic: place.0.clone(),
            partition: place.1,
            committed_offset: seen.committed.get(*place).copied(),
            high_watermark: ends.get(*place).copied(),
            lag: seen.lag_in(place, ends),
            member_id: match seen.kind {
                GroupKind::Classic | GroupKind::Consumer => member_ids.first().cloned(),
                GroupKind::Share => None,
            },
            member_ids,
        }
    };
    let partitions = places.iter().map(partition).collect();
    let members = seen.group.members.iter().map(|member| {
        let has = |owners: &&Vec<String>| owners.iter().any(|owner| **owner == *member.member_id);
        GroupMember {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            epoch: seen.epochs.get(&*member.member_id).copied(),
            partitions: seen.owners.values().filter(has).count() as u64,
        }
    });
    GroupDetail {
        kind: seen.kind,
        state: state(&seen.group),
        coordinator: seen.coordinator.0,
        members: members.collect(),
        partitions,
        lag: seen.lag(ends),
        group: seen.group.group_id.into(),
        protocol_type: seen.group.protocol_type.into(),
        assignor: seen.group.protocol_data.into(),
    }
}

fn state(group: &DescribedGroup) -> GroupState {
    let named = [
        (Stage::Empty, GroupState::Empty),
        (Stage::PreparingRebalance, GroupState::PreparingRebalance),
        (Stage::CompletingRebalance, GroupState::CompletingRebalance),
        (Stage::Assigning, GroupState::Assigning),
        (Stage::Reconciling, GroupState::Reconciling),
        (Stage::Stable, GroupState::Stable),
    ];
    let found = named
        .into_iter()
        .find(|(stage, _)| stage.name() == &*group.group_state);
    found.map_or(GroupState::Dead, |(_, state)| state)
}
