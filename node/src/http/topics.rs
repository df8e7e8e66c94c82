//! Topics: list, create, describe, alter, delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::cluster::health::PartitionCondition;
use super::cluster::ids;
use super::error::{ApiError, Body, ErrorBody, Path, Query};
use crate::config::topic;
use crate::controller::change::{ConfigChange, ConfigOperation, TopicRef};
use crate::controller::health::{Examined, examine_topic, waits_for};
use crate::controller::{Change, NewTopic};
use crate::metadata::{Image, Topic};
use crate::partition::{FollowerProgress, Partition};
use crate::telemetry::names;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/topics", get(list).post(create))
        .route("/topics/{topic}", get(describe).delete(remove))
        .route("/topics/{topic}/configs", patch(alter))
        .route("/topics/{topic}/partitions", post(widen))
        .route("/topics/{topic}/scrub", post(scrub))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicSummary {
    pub name: String,
    pub id: String,
    pub partitions: usize,
    pub replication_factor: usize,
    pub internal: bool,
    pub cleanup_policy: String,
    #[schema(required)]
    pub mirror: Option<MirrorOf>,
    pub size_bytes: u64,
    /// Offsets between the log's start and its high watermark, over all partitions.
    pub records: i64,
    pub bytes_in_total: u64,
    pub records_in_total: u64,
}

/// Where a mirror topic is copied from.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MirrorOf {
    pub link: String,
    pub site: String,
    pub topic: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicDetail {
    pub name: String,
    pub id: String,
    pub internal: bool,
    #[schema(required)]
    pub mirror: Option<MirrorOf>,
    pub configs: Vec<TopicConfig>,
    pub partitions: Vec<PartitionView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicConfig {
    pub name: String,
    pub value: String,
    /// Whether the topic itself leaves it unset.
    pub default: bool,
    pub source: ConfigSource,
    pub doc: String,
}

/// Who set a property.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ConfigSource {
    Topic,
    Cluster,
    Node,
    Default,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartitionView {
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
    /// The other replicas, as their leader knows them; null: the node that was asked does not lead it, and its leader is to
    /// be asked.
    #[schema(required)]
    pub followers: Option<Vec<Follower>>,
    /// Offsets and size of the replica on the node that was asked; -1 and 0 where it has none.
    pub log_start_offset: i64,
    pub high_watermark: i64,
    pub log_end_offset: i64,
    pub size_bytes: u64,
    /// What is known to be damaged in the replica on the node that was asked.
    pub damaged: Vec<DamagedRange>,
}

/// Offsets whose records are not what was written, or not there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DamagedRange {
    pub from_offset: i64,
    /// The first offset behind it.
    pub until_offset: i64,
    pub reason: String,
    /// Whether another node holds the records. It is repaired by itself then.
    pub repairable: bool,
}

/// What is scrubbed from now on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Scrubbing {
    pub node: i32,
    /// The partitions of which the node holds a replica.
    pub partitions: Vec<i32>,
}

/// A replica that follows, as its leader knows it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Follower {
    pub node: i32,
    pub in_sync: bool,
    /// All below it is safe there; null: it has not fetched since this leader leads.
    #[schema(required)]
    pub reached_offset: Option<i64>,
    /// Records that the leader has and the follower is not known to have.
    pub lag: u64,
    /// How long ago it last fetched something new, or said that it has all there is; null as above.
    #[schema(required)]
    pub fetched_ms_ago: Option<u64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Also those that the node made for itself.
    #[serde(default)]
    pub internal: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTopic {
    #[schema(pattern = "^[A-Za-z0-9._-]{1,249}$")]
    pub name: String,
    /// The node's default if absent.
    pub partitions: Option<i32>,
    #[schema(maximum = 32767)]
    pub replication_factor: Option<i16>,
    #[serde(default)]
    pub configs: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AlterConfigs {
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Back to the default.
    #[serde(default)]
    pub remove: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Widen {
    /// How many partitions there are to be in the end.
    pub count: i32,
}

#[utoipa::path(get, path = "/api/v1/topics", tag = "topics", params(ListQuery), responses((status = 200, body = [TopicSummary])))]
pub(super) async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Json<Vec<TopicSummary>> {
    let image = api.view.image();
    let shown = image
        .topics
        .values()
        .filter(|topic| query.internal || !topic.internal);
    Json(shown.map(|topic| summary(&api, topic)).collect())
}

#[utoipa::path(
    post, path = "/api/v1/topics", tag = "topics", request_body = CreateTopic,
    responses((status = 201, body = TopicDetail), (status = 409, body = ErrorBody))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Body(body): Body<CreateTopic>,
) -> Result<(StatusCode, Json<TopicDetail>), ApiError> {
    let new = NewTopic {
        partitions: body.partitions.unwrap_or(-1),
        replication_factor: body.replication_factor.unwrap_or(-1),
        configs: body.configs,
        ..NewTopic::named(body.name.clone())
    };
    let detail = change(&api, Change::CreateTopic(new), &body.name).await?;
    Ok((StatusCode::CREATED, detail))
}

#[utoipa::path(
    get, path = "/api/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    responses((status = 200, body = TopicDetail), (status = 404, body = ErrorBody))
)]
pub(super) async fn describe(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<TopicDetail>, ApiError> {
    Ok(Json(detail(&api, &find(&api, &name)?)))
}

#[utoipa::path(
    delete, path = "/api/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let applied = api
        .controller
        .propose(Change::DeleteTopic {
            topic: TopicRef::Name(name),
        })
        .await?;
    api.registry.reconciled(applied.offset).await;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    patch, path = "/api/v1/topics/{topic}/configs", tag = "topics", params(("topic" = String, Path)),
    request_body = AlterConfigs,
    responses((status = 200, body = TopicDetail), (status = 404, body = ErrorBody))
)]
pub(super) async fn alter(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(body): Body<AlterConfigs>,
) -> Result<Json<TopicDetail>, ApiError> {
    let set = body.set.into_iter().map(|(key, value)| ConfigChange {
        key,
        operation: ConfigOperation::Set(value),
    });
    let removed = body.remove.into_iter().map(|key| ConfigChange {
        key,
        operation: ConfigOperation::Remove,
    });
    let alter = Change::AlterTopicConfig {
        topic: name.clone(),
        changes: set.chain(removed).collect(),
        validate_only: false,
    };
    change(&api, alter, &name).await
}

#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/partitions", tag = "topics", params(("topic" = String, Path)),
    request_body = Widen,
    responses((status = 200, body = TopicDetail), (status = 404, body = ErrorBody))
)]
pub(super) async fn widen(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(body): Body<Widen>,
) -> Result<Json<TopicDetail>, ApiError> {
    let widen = Change::CreatePartitions {
        topic: name.clone(),
        count: body.count,
        assignments: Vec::new(),
        validate_only: false,
    };
    change(&api, widen, &name).await
}

/// Has the replicas on the node that is asked read from front to end now, to find damage.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/scrub", tag = "topics", params(("topic" = String, Path)),
    responses((status = 202, body = Scrubbing), (status = 404, body = ErrorBody))
)]
pub(super) async fn scrub(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Scrubbing>), ApiError> {
    let topic = find(&api, &name)?;
    let here = topic
        .indexes()
        .filter_map(|index| api.registry.get_by_id(topic.id, index));
    let here: Vec<Partition> = here.collect();
    api.registry.scrub(&here);
    let scrubbing = Scrubbing {
        node: api.registry.me().0,
        partitions: here.iter().map(|partition| partition.name().index.0).collect(),
    };
    Ok((StatusCode::ACCEPTED, Json(scrubbing)))
}

/// Makes a change, waits until this node has carried it out, and answers with the topic as it is then.
async fn change(api: &Api, change: Change, name: &str) -> Result<Json<TopicDetail>, ApiError> {
    let applied = api.controller.propose(change).await?;
    api.registry.reconciled(applied.offset).await;
    Ok(Json(detail(api, &find(api, name)?)))
}

pub(super) fn find(api: &Api, name: &str) -> Result<Arc<Topic>, ApiError> {
    api.view
        .topic(name)
        .ok_or_else(|| ApiError::not_found("UNKNOWN_TOPIC", format!("topic {name:?} is not known")))
}

fn mirror(topic: &Topic) -> Option<MirrorOf> {
    let mirror = topic.mirror.as_ref()?;
    Some(MirrorOf {
        link: mirror.link.clone(),
        site: mirror.site.clone(),
        topic: mirror.topic.clone(),
    })
}

fn summary(api: &Api, topic: &Topic) -> TopicSummary {
    let here: Vec<_> = topic
        .indexes()
        .filter_map(|index| api.registry.get_by_id(topic.id, index))
        .collect();
    let records = here.iter().map(|partition| {
        let watermarks = *partition.watermarks().borrow();
        watermarks.high_watermark.0 - watermarks.log_start.0
    });
    let policy = topic::describe(&topic.configs, &api.broker())
        .into_iter()
        .find(|property| property.name == "cleanup.policy");
    TopicSummary {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        partitions: topic.partitions.len(),
        replication_factor: topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replicas.len()),
        internal: topic.internal,
        cleanup_policy: policy.map(|property| property.value).unwrap_or_default(),
        mirror: mirror(topic),
        size_bytes: here.iter().map(|partition| partition.size_bytes()).sum(),
        records: records.sum(),
        bytes_in_total: api
            .metrics
            .counter(&names::TOPIC_BYTES_IN, &[&topic.name])
            .value(),
        records_in_total: api
            .metrics
            .counter(&names::TOPIC_RECORDS_IN, &[&topic.name])
            .value(),
    }
}

fn detail(api: &Api, topic: &Arc<Topic>) -> TopicDetail {
    let configs = topic::describe(&topic.configs, &api.broker())
        .into_iter()
        .map(|property| TopicConfig {
            name: property.name.to_owned(),
            value: property.value,
            default: property.source != topic::Source::Topic,
            source: match property.source {
                topic::Source::Topic => ConfigSource::Topic,
                topic::Source::Broker => ConfigSource::Node,
                topic::Source::Group | topic::Source::Cluster => ConfigSource::Cluster,
                topic::Source::Node => ConfigSource::Node,
                topic::Source::Default => ConfigSource::Default,
            },
            doc: property.doc.to_owned(),
        });
    let image = api.view.image();
    let examined = examine_topic(&image, topic, &api.broker());
    let partitions = examined.map(|examined| partition(api, &image, &examined));
    TopicDetail {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        internal: topic.internal,
        mirror: mirror(topic),
        configs: configs.collect(),
        partitions: partitions.collect(),
    }
}

fn partition(api: &Api, image: &Image, examined: &Examined<'_>) -> PartitionView {
    let (topic, state) = (examined.topic, examined.state);
    let here = api.registry.get_by_id(topic.id, examined.index);
    let watermarks = here.as_ref().map(|partition| *partition.watermarks().borrow());
    let led_here = here.as_ref().filter(|partition| partition.is_leader());
    let now = api.sys.clock.now();
    let followers = led_here.map(|partition| {
        let followers = partition.followers().into_iter();
        followers.map(|it| follower(it, now)).collect()
    });
    PartitionView {
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
        followers,
        log_start_offset: watermarks.map_or(-1, |w| w.log_start.0),
        high_watermark: watermarks.map_or(-1, |w| w.high_watermark.0),
        log_end_offset: watermarks.map_or(-1, |w| w.log_end.0),
        size_bytes: here.as_ref().map_or(0, Partition::size_bytes),
        damaged: here.map(|partition| damaged(&partition)).unwrap_or_default(),
    }
}

fn damaged(partition: &Partition) -> Vec<DamagedRange> {
    let repairable = partition.can_be_repaired();
    let found = partition.damaged().into_iter();
    let range = found.map(|damaged| DamagedRange {
        from_offset: damaged.from.0,
        until_offset: damaged.until.0,
        reason: damaged.reason,
        repairable,
    });
    range.collect()
}

fn follower(progress: FollowerProgress, now: Instant) -> Follower {
    let since = |at: Instant| now.saturating_duration_since(at).as_millis();
    Follower {
        node: progress.node.0,
        in_sync: progress.is_in_sync,
        reached_offset: progress.reached.map(|reached| reached.0),
        lag: progress.lag,
        fetched_ms_ago: progress
            .fetched_at
            .map(|at| u64::try_from(since(at)).unwrap_or(u64::MAX)),
    }
}
