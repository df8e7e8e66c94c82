//! A share group whose leaders are killed: what was accepted does not come again, and everything else does.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use headwater_sdk::protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_sdk::protocol::kafka::share_acknowledge::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch, ShareAcknowledgeRequest,
};
use headwater_sdk::protocol::kafka::share_fetch::{
    FetchPartition, FetchTopic, ShareFetchRequest, ShareFetchResponse,
};
use headwater_sdk::protocol::kafka::share_group_heartbeat::ShareGroupHeartbeatRequest;
use headwater_sdk::protocol::primitives::{Str, Uuid};
use headwater_sdk::{Client, Config, NewTopic, NodeId};
use headwater_tests::{Node, PATIENCE, until, write_numbers};

use crate::groups::three;

const TOPIC: &str = "work";
const COUNT: i64 = 300;
const ACCEPT: i8 = 1;

/// A member that speaks the protocol by itself, at whoever leads the partition.
struct Member {
    client: Client,
    topic: Uuid,
    name: Str,
    /// Where its session is, and the epoch of its next request.
    session: Option<(NodeId, i32)>,
}

impl Member {
    async fn leader(&self) -> anyhow::Result<NodeId> {
        until(PATIENCE, "somebody to lead", || async {
            self.client.refresh().await?;
            let topic = self.client.admin().describe_topic(TOPIC).await?;
            Ok(topic.partitions[0].leader)
        })
        .await
    }

    /// Makes the group, with this member in it.
    async fn join(&self) -> anyhow::Result<()> {
        let find = FindCoordinatorRequest {
            coordinator_keys: vec![Str::from_static("workers")],
            ..FindCoordinatorRequest::default()
        };
        let heartbeat = ShareGroupHeartbeatRequest {
            group_id: Str::from_static("workers"),
            member_id: self.name.clone(),
            subscribed_topic_names: Some(vec![Str::from_static(TOPIC)]),
            ..ShareGroupHeartbeatRequest::default()
        };
        until(PATIENCE, "a group", || async {
            let found = self.client.admin().call(&find).await?;
            let node = found.coordinators.first().context("a coordinator")?.node_id;
            let joined = self.client.admin().call_node(NodeId(node), &heartbeat).await?;
            ensure!(joined.error_code == 0, "{joined:?}");
            Ok(Some(()))
        })
        .await
    }

    /// One fetch; None: it is to be tried again.
    async fn fetch(&mut self) -> anyhow::Result<Option<ShareFetchResponse>> {
        let (node, epoch) = match self.session {
            Some(session) => session,
            None => (self.leader().await?, 0),
        };
        let request = ShareFetchRequest {
            group_id: Some(Str::from_static("workers")),
            member_id: Some(self.name.clone()),
            share_session_epoch: epoch,
            max_wait_ms: 1_000,
            min_bytes: 1,
            max_records: 100,
            batch_size: 100,
            topics: vec![FetchTopic {
                topic_id: self.topic,
                partitions: vec![FetchPartition::default()],
                ..FetchTopic::default()
            }],
            ..ShareFetchRequest::default()
        };
        let answer = self.client.admin().call_node(node, &request).await;
        self.session = Some((node, epoch + 1));
        let is_good = |answer: &ShareFetchResponse| {
            let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
            answer.error_code == 0 && partitions.all(|partition| partition.error_code == 0)
        };
        match answer {
            Ok(answer) if is_good(&answer) => Ok(Some(answer)),
            // Its leader is gone, or has lost its session with its connection.
            Ok(_) | Err(_) => {
                self.session = None;
                Ok(None)
            }
        }
    }

    /// The next records that it is given: first, last and how often they were delivered.
    async fn given(&mut self) -> anyhow::Result<(i64, i64, i16)> {
        for _ in 0..200 {
            let Some(answer) = self.fetch().await? else {
                tokio::task::yield_now().await;
                continue;
            };
            let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
            let ranges: Vec<_> = partitions.flat_map(|it| &it.acquired_records).collect();
            if let Some(first) = ranges.first() {
                let last = ranges.last().map_or(first.last_offset, |it| it.last_offset);
                return Ok((first.first_offset, last, first.delivery_count));
            }
        }
        anyhow::bail!("nothing was given")
    }

    async fn accept(&mut self, first: i64, last: i64) -> anyhow::Result<()> {
        let (node, epoch) = self.session.context("it has acquired them")?;
        let batch = AcknowledgementBatch {
            first_offset: first,
            last_offset: last,
            acknowledge_types: vec![ACCEPT],
            ..AcknowledgementBatch::default()
        };
        let request = ShareAcknowledgeRequest {
            group_id: Some(Str::from_static("workers")),
            member_id: Some(self.name.clone()),
            share_session_epoch: epoch,
            topics: vec![AcknowledgeTopic {
                topic_id: self.topic,
                partitions: vec![AcknowledgePartition {
                    acknowledgement_batches: vec![batch],
                    ..AcknowledgePartition::default()
                }],
                ..AcknowledgeTopic::default()
            }],
            ..ShareAcknowledgeRequest::default()
        };
        self.session = Some((node, epoch + 1));
        let answer = self.client.admin().call_node(node, &request).await?;
        let partition = answer
            .responses
            .first()
            .and_then(|topic| topic.partitions.first());
        let code = partition.context("an answer for the partition")?.error_code;
        ensure!((answer.error_code, code) == (0, 0), "{answer:?}");
        Ok(())
    }
}

#[tokio::test]
async fn what_was_accepted_does_not_come_again_whoever_is_killed() -> anyhow::Result<()> {
    let (sites, nodes) = three().await?;
    let bootstrap: Vec<String> = nodes.iter().map(Node::bootstrap).collect();
    let client = Client::connect(Config::new(&bootstrap.join(","))?).await?;
    let topic = NewTopic {
        replication_factor: Some(3),
        ..NewTopic::new(TOPIC, 1)
    };
    client.admin().create_topic(&topic).await?;
    let described = client.admin().describe_topic(TOPIC).await?;
    let mut member = Member {
        client: client.clone(),
        topic: described.id.into(),
        name: Str::from_static("m"),
        session: None,
    };
    member.join().await?;
    // The group begins here, where the topic ends.
    while member.fetch().await?.is_none() {}
    write_numbers(&client, TOPIC, 1, 0..COUNT).await?;

    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let mut accepted = BTreeSet::new();
    for round in 0..3 {
        let (first, last, _) = member.given().await?;
        ensure!(
            !accepted.contains(&first) && !accepted.contains(&last),
            "{first} to {last} again"
        );
        ensure!(
            accepted.last().is_none_or(|before| *before + 1 == first),
            "{first} follows"
        );
        let half = first + (last - first) / 2;
        member.accept(first, half).await?;
        accepted.extend(first..=half);
        if round == 2 {
            break;
        }
        let leader = member.leader().await?;
        let at = usize::try_from(leader.0 - 1)?;
        nodes[at].take().context("it runs")?.kill().await?;
        member.session = None;
        let (again, ..) = member.given().await?;
        ensure!(
            again == half + 1,
            "{again} comes, and {half} was the last one accepted"
        );
        nodes[at] = Some(sites[at].start().await?);
        member.session = None;
    }
    for node in nodes.into_iter().flatten() {
        node.terminate().await?;
    }
    Ok(())
}
