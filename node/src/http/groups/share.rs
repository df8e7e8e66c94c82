//! Share groups: what their coordinators tell of them, and where they start, told and set.
//!
//! It owns their shape among the other groups. It must never count a lag by itself: records behind the start may be done with.

use std::collections::BTreeMap;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use headwater_protocol::kafka::describe_groups::{DescribedGroup, DescribedGroupMember};
use headwater_protocol::kafka::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsResponseGroup,
};
use headwater_protocol::kafka::share_group_describe::{self as wire, ShareGroupDescribeRequest};
use headwater_protocol::primitives::Str;

use super::ask::check;
use super::seen::{Lags, Seen};
use super::{GroupKind, Place};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::nodes::ask;

const DESCRIBE_VERSION: i16 = 1;
/// With the lag.
const OFFSETS_VERSION: i16 = 1;
const ALTER_VERSION: i16 = 0;

/// Those of some groups that are there and are share groups.
pub(super) async fn describe(api: &Api, node: NodeId, names: Vec<Str>) -> Result<Vec<Seen>, ApiError> {
    let found = find(api, node, names).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<Str> = found.iter().map(|group| group.group_id.clone()).collect();
    // Other nodes keep it: that one of them does not answer hides no group.
    let starts = starts(api, node, &names).await.unwrap_or_default();
    let starts = starts
        .into_iter()
        .filter(|group| group.error_code == ErrorCode::NONE.0);
    let mut starts: BTreeMap<Str, _> = starts.map(|group| (group.group_id.clone(), group)).collect();
    let seen = found.into_iter().map(|group| {
        let starts = starts.remove(&group.group_id);
        sharers(node, group, starts)
    });
    Ok(seen.collect())
}

/// Whether a group is one. One of which nobody tells at the moment is taken for none: as such it cannot be changed.
pub(super) async fn is_one(api: &Api, node: NodeId, name: &str) -> bool {
    let found = find(api, node, vec![Str::from(name)]).await;
    found.is_ok_and(|found| !found.is_empty())
}

/// Where a group starts in each partition that it was delivered from, or was told to begin in.
pub(super) async fn started(api: &Api, node: NodeId, name: &str) -> Result<BTreeMap<Place, i64>, ApiError> {
    let mut all = BTreeMap::new();
    for group in starts(api, node, &[Str::from(name)]).await? {
        check(name, group.error_code)?;
        all.extend(places(&group).map(|(place, offset, _)| (place, offset)));
    }
    Ok(all)
}

/// Has a group without members begin anew at other offsets.
pub(super) async fn set(
    api: &Api,
    node: NodeId,
    name: &str,
    plan: &BTreeMap<Place, i64>,
) -> Result<(), ApiError> {
    let mut topics: BTreeMap<&str, Vec<AlterShareGroupOffsetsRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in plan {
        let partitions = topics.entry(topic).or_default();
        partitions.push(AlterShareGroupOffsetsRequestPartition {
            partition_index: *partition,
            start_offset: *offset,
            ..AlterShareGroupOffsetsRequestPartition::default()
        });
    }
    let topic = |(name, partitions): (&str, _)| AlterShareGroupOffsetsRequestTopic {
        topic_name: Str::from(name),
        partitions,
        ..AlterShareGroupOffsetsRequestTopic::default()
    };
    let request = AlterShareGroupOffsetsRequest {
        group_id: Str::from(name),
        topics: topics.into_iter().map(topic).collect(),
        ..AlterShareGroupOffsetsRequest::default()
    };
    let answer = ask(api, node, ALTER_VERSION, &request).await?;
    check(name, answer.error_code)?;
    let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.try_for_each(|partition| check(name, partition.error_code))
}

async fn find(api: &Api, node: NodeId, names: Vec<Str>) -> Result<Vec<wire::DescribedGroup>, ApiError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let request = ShareGroupDescribeRequest {
        group_ids: names,
        ..ShareGroupDescribeRequest::default()
    };
    let described = ask(api, node, DESCRIBE_VERSION, &request).await?;
    let mut found = described.groups;
    found.retain(|group| group.error_code != ErrorCode::GROUP_ID_NOT_FOUND.0);
    for group in &found {
        check(&group.group_id, group.error_code)?;
    }
    Ok(found)
}

async fn starts(
    api: &Api,
    node: NodeId,
    names: &[Str],
) -> Result<Vec<DescribeShareGroupOffsetsResponseGroup>, ApiError> {
    let group = |name: &Str| DescribeShareGroupOffsetsRequestGroup {
        group_id: name.clone(),
        topics: None,
        ..DescribeShareGroupOffsetsRequestGroup::default()
    };
    let request = DescribeShareGroupOffsetsRequest {
        groups: names.iter().map(group).collect(),
        ..DescribeShareGroupOffsetsRequest::default()
    };
    Ok(ask(api, node, OFFSETS_VERSION, &request).await?.groups)
}

/// Each partition with where the group starts in it and how far it lags, if that is known.
fn places(group: &DescribeShareGroupOffsetsResponseGroup) -> impl Iterator<Item = (Place, i64, Option<i64>)> {
    group.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        let known = partitions.filter(|it| it.error_code == ErrorCode::NONE.0 && it.start_offset >= 0);
        known.map(|it| {
            let place = (topic.topic_name.to_string(), it.partition_index);
            (place, it.start_offset, Some(it.lag).filter(|lag| *lag >= 0))
        })
    })
}

/// A share group in the shape of the others.
fn sharers(
    coordinator: NodeId,
    group: wire::DescribedGroup,
    starts: Option<DescribeShareGroupOffsetsResponseGroup>,
) -> Seen {
    let mut owners: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    let mut epochs = BTreeMap::new();
    for member in &group.members {
        epochs.insert(member.member_id.to_string(), member.member_epoch);
        for topic in &member.assignment.topic_partitions {
            for index in &topic.partitions {
                let place = (topic.topic_name.to_string(), *index);
                owners
                    .entry(place)
                    .or_default()
                    .push(member.member_id.to_string());
            }
        }
    }
    let (mut committed, mut told) = (BTreeMap::new(), BTreeMap::new());
    for (place, start, lag) in starts.iter().flat_map(places) {
        told.extend(lag.map(|lag| (place.clone(), lag)));
        committed.insert(place, start);
    }
    let members = group.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.member_id,
        client_id: member.client_id,
        client_host: member.client_host,
        ..DescribedGroupMember::default()
    });
    let group = DescribedGroup {
        group_id: group.group_id,
        group_state: group.group_state,
        protocol_type: Str::from_static("share"),
        protocol_data: group.assignor_name,
        members: members.collect(),
        ..DescribedGroup::default()
    };
    Seen {
        kind: GroupKind::Share,
        coordinator,
        group,
        committed,
        owners,
        epochs,
        lags: starts.map_or(Lags::Unknown, |_| Lags::Told(told)),
    }
}
