//! Bytes that are not the protocol: the stream they came on is closed, nothing else happens.

use headwater_protocol::kafka::ApiKey;
use headwater_protocol::kafka::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use headwater_protocol::primitives::Str;

use super::*;
use crate::sys::random::Random;
use crate::telemetry::names;

/// Sends `bytes`, ends the stream, and reads until the server ends its side.
async fn throw(edge: &Edge, bytes: &[u8]) -> usize {
    let mut client = edge.client().await;
    // The server may close before it has read everything.
    let _ = client.stream.writer.write_all(bytes).await;
    let _ = client.stream.writer.finish().await;
    let mut answers = 0;
    while client.frame().await.is_some() {
        answers += 1;
    }
    answers
}

fn front(key: i16, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&1i32.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes
}

#[tokio::test]
async fn faults_close_one_stream_and_are_counted() {
    let edge = Edge::new().await;
    let mut bystander = edge.client().await;
    bystander.call(&MetadataRequest::default(), 9).await;
    let cases: [(&str, Vec<u8>); 9] = [
        ("giant length", i32::MAX.to_be_bytes().to_vec()),
        ("negative length", (-1i32).to_be_bytes().to_vec()),
        ("above the limit", 104_857_601i32.to_be_bytes().to_vec()),
        ("empty frame", framed(&[])),
        ("half a front", framed(&[0, 3, 0])),
        ("unknown key", framed(&front(999, 0))),
        ("not served", framed(&front(ApiKey::JoinGroup as i16, 5))),
        ("old produce", framed(&front(ApiKey::Produce as i16, 2))),
        (
            "array of two billion",
            framed(&[&front(ApiKey::Metadata as i16, 1)[..], &i32::MAX.to_be_bytes()].concat()),
        ),
    ];
    for (name, bytes) in &cases {
        assert_eq!(throw(&edge, bytes).await, 0, "{name}");
    }
    settle().await;
    assert_eq!(
        edge.services.metrics.total(&names::MALFORMED_REQUESTS),
        cases.len() as u64
    );
    bystander.call(&MetadataRequest::default(), 9).await;
}

#[tokio::test]
async fn a_stream_may_end_anywhere() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let frame = encode_request(&produce(&topic, 0, batch(&["a", "b"]), -1), 9, 1, None)
        .unwrap()
        .concat();
    for end in 0..frame.len() {
        assert_eq!(throw(&edge, &frame[..end]).await, 0, "cut at {end}");
    }
    assert_eq!(throw(&edge, &frame).await, 1);
    settle().await;
    assert_eq!(edge.server.connections(), 0);
    assert_eq!(
        edge.server.shared.requests.available(),
        edge.server.shared.requests.capacity()
    );
}

/// Ten thousand frames that are nearly right: no panic, no leak, and a client beside them is served all the while.
#[tokio::test]
async fn ten_thousand_mutants_harm_nobody() {
    let edge = Edge::with(&[("auto.create.topics.enable", "false")]).await;
    let topic = edge.topic("t", 2).await;
    let mut bystander = edge.client().await;
    let random = Random::seeded(11);
    let mut seeds: Vec<Vec<u8>> = vec![
        encode_request(&produce(&topic, 0, batch(&["a", "b", "c"]), -1), 9, 1, None)
            .unwrap()
            .concat(),
        encode_request(&produce(&topic, 1, batch(&["a"]), 1), 7, 2, None)
            .unwrap()
            .concat(),
        encode_request(
            &FetchRequest {
                topics: vec![fetch_topic(&topic, &[0, 1], 0)],
                ..fetch_now()
            },
            12,
            3,
            None,
        )
        .unwrap()
        .concat(),
    ];
    for key in super::super::dispatch::served() {
        for version in key.versions() {
            let mut body = front(key as i16, version);
            body.extend(std::iter::repeat_n(0, 24));
            seeds.push(framed(&body));
        }
    }
    let mut failure = edge.services.sys.tasks.failure();
    for round in 0..10_000u64 {
        let mut frame = seeds[usize::try_from(random.below(seeds.len() as u64)).unwrap()].clone();
        mutate(&mut frame, &random);
        throw(&edge, &frame).await;
        if round % 500 == 0 {
            assert_eq!(
                bystander.produce(&topic, batch(&["still here"])).await.error_code,
                0
            );
        }
    }
    settle().await;
    assert_eq!(edge.server.connections(), 1);
    assert_eq!(
        edge.server.shared.requests.available(),
        edge.server.shared.requests.capacity()
    );
    assert_eq!(
        edge.server.shared.answers.available(),
        edge.server.shared.answers.capacity()
    );
    assert!(failure.borrow_and_update().is_none());
}

#[tokio::test]
async fn what_is_named_often_is_answered_once() {
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    let topic = MetadataRequestTopic {
        name: Some(Str::from_static("often")),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic; 1000]),
        ..MetadataRequest::default()
    };
    assert_eq!(client.call(&request, 9).await.topics.len(), 1);
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: Str::from_static("often"),
        ..DescribeConfigsResource::default()
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource; 1000],
        ..DescribeConfigsRequest::default()
    };
    assert_eq!(client.call(&request, 4).await.results.len(), 1);
}

/// Changes, drops or repeats a few bytes behind the length, and sets the length right again, mostly.
fn mutate(frame: &mut Vec<u8>, random: &Random) {
    for _ in 0..=random.below(4) {
        let at = 4 + usize::try_from(random.below((frame.len() - 4).max(1) as u64)).unwrap();
        if at >= frame.len() {
            return;
        }
        match random.below(5) {
            0 => frame[at] = random.below(256) as u8,
            1 => frame[at] = [0, 0x7f, 0x80, 0xff][usize::try_from(random.below(4)).unwrap()],
            2 => frame[at] ^= 1 << random.below(8),
            3 if frame.len() > 12 => drop(frame.remove(at)),
            _ => frame.insert(at, random.below(256) as u8),
        }
    }
    // The keys stay ours, mostly: a mutant that is closed at its first byte finds nothing.
    if !random.one_in(10) {
        let length = u32::try_from(frame.len() - 4).unwrap();
        frame[..4].copy_from_slice(&length.to_be_bytes());
    } else {
        let length = u32::try_from(random.below(1 << 20)).unwrap();
        frame[..4].copy_from_slice(&length.to_be_bytes());
    }
}
