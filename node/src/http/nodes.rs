//! Asks nodes, this one among them, what they alone know: by Kafka's requests, over streams of their own.
//!
//! It owns how a node is asked. It must never ask twice: what changed may have been changed.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::join_all;
use headwater_protocol::frame::{self, Next};
use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::{Request, decode_response, encode_request};
use headwater_protocol::primitives::Str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Api;
use super::error::ApiError;
use crate::metadata::{Image, NodeState};

const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What all nodes that are not fenced list, and those of them that do not answer.
pub(super) async fn all_list<T, F>(image: &Image, list: impl Fn(NodeId) -> F) -> (Vec<T>, Vec<i32>)
where
    F: Future<Output = Result<Vec<T>, ApiError>>,
{
    let nodes = image.nodes.values();
    let nodes: Vec<NodeId> = nodes
        .filter(|node| node.state != NodeState::Fenced)
        .map(|node| node.id)
        .collect();
    let (mut listed, mut unanswered) = (Vec::new(), Vec::new());
    let answers = join_all(nodes.iter().map(|node| list(*node))).await;
    for (node, answer) in nodes.into_iter().zip(answers) {
        match answer {
            Ok(more) => listed.extend(more),
            Err(_) => unanswered.push(node.0),
        }
    }
    (listed, unanswered)
}

/// Asks `node`, and waits for the answer.
pub(super) async fn ask<R: Request>(
    api: &Api,
    node: NodeId,
    version: i16,
    request: &R,
) -> Result<R::Response, ApiError> {
    let asked = api
        .sys
        .clock
        .timeout(PATIENCE, exchange(api, node, version, request));
    let answer = asked
        .await
        .unwrap_or_else(|_| Err("no answer in time".to_owned()));
    answer.map_err(|reason| {
        ApiError::unavailable(
            "NODE_UNREACHABLE",
            format!("node {node} does not answer: {reason}"),
        )
    })
}

async fn exchange<R: Request>(
    api: &Api,
    node: NodeId,
    version: i16,
    request: &R,
) -> Result<R::Response, String> {
    let client_id = Str::from_static("headwater-http");
    let pieces = encode_request(request, version, 0, Some(&client_id)).map_err(text)?;
    let mut ends = api.nodes.connect(node).await.map_err(text)?;
    for piece in pieces {
        ends.writer.write_all(&piece).await.map_err(text)?;
    }
    ends.writer.flush().await.map_err(text)?;
    let mut buffer = BytesMut::new();
    loop {
        match frame::next(&mut buffer, ANSWER_BYTES_MAX).map_err(text)? {
            Next::Frame(answer) => {
                let (_, response) = decode_response::<R>(answer, version).map_err(text)?;
                return Ok(response);
            }
            Next::Need(_) => {
                if ends.reader.read_buf(&mut buffer).await.map_err(text)? == 0 {
                    return Err("it has closed the stream".to_owned());
                }
            }
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
