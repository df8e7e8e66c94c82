//! One Kafka request to another node, and its answer, on a stream of its own.

use super::{CallError, Peers};
use crate::transport::Stream;
use bytes::{Bytes, BytesMut};
use headwater_protocol::frame::{PREFIX_BYTES, peek_length};
use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::{Request, decode_response, encode_request};
use headwater_protocol::primitives::Str;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers to what nodes ask each other this way are short.
const ANSWER_BYTES_MAX: usize = 16 << 20;

impl Peers {
    /// Asks `node` as one of its Kafka clients would, `deadline` at most. If the future is dropped, it may have happened.
    pub async fn ask<R: Request>(
        &self,
        node: NodeId,
        request: &R,
        version: i16,
        client_id: &Str,
        deadline: Duration,
    ) -> Result<R::Response, CallError> {
        let failed = |reason: String| CallError::Failed { node, reason };
        let frame = encode_request(request, version, 0, Some(client_id));
        let frame = frame.map_err(|error| failed(error.to_string()))?;
        let asked = async {
            let mut stream = self.kafka_stream(node).await?;
            let answer = exchange(&mut stream, frame).await;
            answer.map_err(|error| CallError::Lost {
                node,
                reason: error.to_string(),
            })
        };
        let clock = &self.shared.sys.clock;
        let answer = clock
            .timeout(deadline, asked)
            .await
            .unwrap_or(Err(CallError::TimedOut(node)))?;
        let (_, response) =
            decode_response::<R>(answer, version).map_err(|error| failed(error.to_string()))?;
        Ok(response)
    }
}

async fn exchange(stream: &mut Stream, request: Vec<Bytes>) -> std::io::Result<Bytes> {
    for part in request {
        stream.writer.write_all(&part).await?;
    }
    stream.writer.flush().await?;
    let mut prefix = [0; PREFIX_BYTES];
    stream.reader.read_exact(&mut prefix).await?;
    let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    let length = peek_length(&prefix, ANSWER_BYTES_MAX).map_err(invalid)?;
    let length = length.expect("four bytes say a length");
    let mut answer = BytesMut::new();
    while answer.len() < length {
        let rest = (length - answer.len()) as u64;
        if (&mut stream.reader).take(rest).read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(answer.freeze())
}
