//! How far a share group lags in partitions that other nodes lead: they are asked, and what is not answered is not known.

use headwater_protocol::ids::NodeId;

use super::*;
use crate::peer::{self, Answers, Peers, Secret, Streams};
use crate::sys::net::Net;
use crate::sys::net::simulated::{Fabric, Host};
use crate::sys::task::Kind;
use crate::transport::{Dialer, Incoming, Peer, Session};

/// Longer than anybody waits for another node, and no longer than a client does.
const TOO_LONG: Duration = Duration::from_secs(5);

/// Streams that another node opens are served by an edge.
struct ServedBy(Server);

impl Streams for ServedBy {
    fn serve(&self, from: NodeId, stream: Stream, session: &Session) {
        let peer = Peer {
            node: Some(from),
            ..session.peer().clone()
        };
        self.0.serve_stream(stream, peer);
    }
}

/// Calls are taken, and nobody answers them: a node that refuses them is not asked anything for a while.
struct Unanswered;

impl Answers for Unanswered {
    fn answer(&self, _from: NodeId, _kind: peer::Kind, _body: Bytes) -> peer::Answering {
        Box::pin(std::future::pending())
    }
}

fn on(host: Host) -> Sys {
    Sys {
        net: Net::simulated(host),
        ..Sys::simulated(7)
    }
}

fn listener(host: &Host) -> Listener {
    let address = ([0, 0, 0, 0], 9094).into();
    Listener::Memory(memory::Listener::bind(host, address, ListenerKind::Quic).unwrap())
}

/// Node 2 as other nodes reach it: an edge that leads its own topic of the name.
fn answer_as_second(edge: &Edge, host: &Host) {
    let sys = &edge.services.sys;
    let peers = Peers::new(peer::Parts {
        me: NodeId(2),
        cluster_id: "lab".to_owned(),
        directory: String::new(),
        secret: Secret::new(""),
        dialer: Dialer::new(sys.net.clone(), Default::default()),
        sys: sys.clone(),
    });
    peers.serve_by(std::sync::Arc::new(ServedBy(edge.server.clone())));
    peers.answer_by(std::sync::Arc::new(Unanswered));
    let mut listener = listener(host);
    sys.tasks.spawn("second", Kind::BestEffort, async move {
        while let Ok(Some(accepting)) = listener.accept().await {
            if let Ok(Incoming::Session(session)) = accepting.establish().await {
                peers.accept(session).await;
            }
        }
    });
}

async fn register(edge: &Edge, id: i32, host: &str) {
    let addresses = Addresses {
        quic: format!("{host}:9094"),
        ..edge.services.view.image().nodes[&NodeId(1)].addresses.clone()
    };
    edge.services.peers.learn(NodeId(id), &addresses.quic);
    let mut node = Node::new(NodeId(id), addresses, None);
    node.directory = Uuid::from_u128(id.unsigned_abs().into()).to_string();
    node.features = features::Supported::default().registered();
    let change = Change::RegisterNode(node);
    edge.services.controller.propose(change).await.unwrap();
}

#[tokio::test]
async fn the_lag_is_asked_of_whoever_leads() {
    let fabric = Fabric::instant();
    let [first, second, third] = ["first", "second", "third"].map(|name| fabric.boot(name));
    let other = Edge::on(on(second.clone()), &[]).await;
    answer_as_second(&other, &second);
    let there = other.topic("u", 1).await;
    let produced = other
        .client()
        .await
        .produce(&there, batch(&["a", "b", "c"]))
        .await;
    assert_eq!(produced.error_code, 0);

    let edge = Edge::on(on(first), &[("group.share.auto.offset.reset", "earliest")]).await;
    let mut lab = Lab::of(edge).await;
    lab.produce(&["a", "b"]).await;
    let goes = lab.client.call(&heartbeat("a", -1), 1).await;
    assert_eq!(goes.error_code, 0);
    // It takes what comes, and says nothing.
    let _silent = listener(&third);
    register(&lab.edge, 2, "second").await;
    register(&lab.edge, 3, "third").await;
    let topic = NewTopic {
        assignments: BTreeMap::from([(0, vec![NodeId(2)]), (1, vec![NodeId(3)])]),
        ..NewTopic::named("u")
    };
    lab.edge.topic_with(topic).await;
    let start = |(index, offset): (i32, i64)| AlterShareGroupOffsetsRequestPartition {
        partition_index: index,
        start_offset: offset,
        ..AlterShareGroupOffsetsRequestPartition::default()
    };
    let alter = AlterShareGroupOffsetsRequest {
        group_id: GROUP,
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: Str::from_static("u"),
            partitions: [(0, 1), (1, 0)].map(start).into(),
            ..AlterShareGroupOffsetsRequestTopic::default()
        }],
        ..AlterShareGroupOffsetsRequest::default()
    };
    let altered = lab.client.call(&alter, 0).await;
    assert_eq!(altered.error_code, 0, "{altered:?}");

    let describe = DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: GROUP,
            topics: None,
            ..DescribeShareGroupOffsetsRequestGroup::default()
        }],
        ..DescribeShareGroupOffsetsRequest::default()
    };
    lab.client.send(&describe, 1).await;
    settle().await;
    lab.edge.pass(TOO_LONG).await;
    let (_, described) = lab.client.receive::<DescribeShareGroupOffsetsRequest>(1).await;
    let group = &described.groups[0];
    assert_eq!(group.error_code, 0, "{group:?}");
    let mut told: Vec<(&str, i32, i64, i64)> = Vec::new();
    for topic in &group.topics {
        let partitions = topic.partitions.iter();
        told.extend(partitions.map(|it| {
            (
                topic.topic_name.as_str(),
                it.partition_index,
                it.start_offset,
                it.lag,
            )
        }));
    }
    told.sort_unstable();
    assert_eq!(told, [("t", 0, 0, 2), ("u", 0, 1, 2), ("u", 1, 0, -1)]);
}
