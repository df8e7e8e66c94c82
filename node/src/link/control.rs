//! What the two ends of a link say to each other beside the records: one stream per connection, messages as
//! length-prefixed JSON. Records never travel here; they are fetched by the ordinary Kafka requests.
//!
//! It must never trust a length: a message has a limit, and a connection that breaks it is closed.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_protocol::ids::Offset;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::mapping::Offered;
use super::resume::SourceState;
use crate::metadata::Flow;
use crate::transport::{ReadHalf, WriteHalf};

/// The version of these messages. Unknown messages and fields of the same version are passed over.
pub(super) const VERSION: u32 = 1;
/// Room for an inventory of tens of thousands of topics.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Message {
    /// The edge's first message.
    Hello {
        version: u32,
        cluster_id: String,
        /// What the edge calls the link.
        link: String,
    },
    /// The core's answer, and again whenever the link's declaration changes: the core's declaration is the link's.
    Flows {
        version: u32,
        cluster_id: String,
        revision: i64,
        flows: Vec<Flow>,
        paused: bool,
    },
    /// Every topic the sender offers; sent anew when that changes.
    Inventory {
        topics: Vec<Offered>,
    },
    /// The holder of a copy asks its source whether it can go on.
    Verify {
        id: u64,
        topic: String,
        partition: i32,
        copy_end: Offset,
    },
    Verified {
        id: u64,
        state: Option<SourceState>,
    },
    /// The holder of copies says how far they are safe on its disk.
    Progress {
        partitions: Vec<Copied>,
    },
    /// The sender ends the link, for a reason that a person should see.
    Refused {
        reason: String,
    },
    #[serde(other)]
    Unknown,
}

/// How far the copy of one partition has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    /// The topic's name at the source.
    pub topic: String,
    pub partition: i32,
    /// Everything below is synced at the copy.
    pub copied: Offset,
    pub state: FlowState,
    pub detail: Option<String>,
}

/// How one partition of a flow is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// Not yet compared with its source, or the link is down.
    Waiting,
    CatchingUp,
    CaughtUp,
    /// The source deleted records that were never copied.
    Gap,
    /// The source is not the log this is a copy of.
    Diverged,
}

impl FlowState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::CatchingUp => "catching-up",
            Self::CaughtUp => "caught-up",
            Self::Gap => "gap",
            Self::Diverged => "diverged",
        }
    }

    /// Whether it cannot go on without a person or a policy.
    pub const fn is_stuck(self) -> bool {
        matches!(self, Self::Gap | Self::Diverged)
    }
}

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("the control stream broke: {0}")]
    Broken(#[from] io::Error),
    #[error("a control message of {bytes} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge { bytes: usize },
    #[error("a control message cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the control stream ended")]
    Ended,
}

/// The receiving end of a control stream.
pub(super) struct Receiver {
    reader: ReadHalf,
    buffer: BytesMut,
}

impl Receiver {
    pub(super) fn new(reader: ReadHalf) -> Self {
        Self {
            reader,
            buffer: BytesMut::with_capacity(4096),
        }
    }

    /// The next message. Cancel safe: what has been read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Message, ControlError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(ControlError::Ended);
            }
        }
    }

    fn take(&mut self) -> Result<Option<Message>, ControlError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let bytes = u32::from_be_bytes(*prefix) as usize;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(ControlError::TooLarge { bytes });
        }
        if self.buffer.len() < 4 + bytes {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(serde_json::from_slice(&self.buffer.split_to(bytes))?))
    }
}

/// The sending end of a control stream.
pub(super) struct Sender {
    writer: WriteHalf,
}

impl Sender {
    pub(super) fn new(writer: WriteHalf) -> Self {
        Self { writer }
    }

    /// Sends one message. When the future is dropped the stream is of no more use.
    pub(super) async fn send(&mut self, message: &Message) -> io::Result<()> {
        self.writer.write_buffers(&mut vec![encode(message)]).await
    }
}

fn encode(message: &Message) -> Bytes {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_u32(0);
    serde_json::to_writer((&mut frame).writer(), message).expect("messages hold only what JSON can write");
    let length =
        u32::try_from(frame.len() - 4).expect("an inventory is bounded by the controller, far below 4 GiB");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}
