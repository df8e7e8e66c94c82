//! The asking end of a stream of calls: requests go out as they come, answers find who waits by their number.
//!
//! Owns one stream. When it breaks, everybody who waits hears of it, and a new one is opened at the next call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use headwater_protocol::ids::NodeId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, OK};
use super::{CallError, lock};
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use crate::transport::{ReadHalf, Stream, WriteHalf};

/// Calls that wait to be written; whoever asks waits beyond.
const WAITING_MAX: usize = 64;

/// Where the answer of a call goes.
type Answer = oneshot::Sender<Result<Bytes, CallError>>;

/// A handle to one stream. Cheap to clone.
#[derive(Clone)]
pub(super) struct Calls {
    node: NodeId,
    outbox: Sender<Frame>,
    waiting: Arc<Mutex<BTreeMap<u64, Answer>>>,
    next: Arc<AtomicU64>,
}

/// What moves the bytes of a stream.
pub(super) struct Run {
    node: NodeId,
    reader: ReadHalf,
    writer: WriteHalf,
    inbox: Mailbox<Frame>,
    waiting: Arc<Mutex<BTreeMap<u64, Answer>>>,
}

impl Calls {
    pub(super) fn new(node: NodeId, stream: Stream) -> (Self, Run) {
        let (outbox, inbox) = mailbox(WAITING_MAX);
        let waiting: Arc<Mutex<BTreeMap<u64, Answer>>> = Arc::default();
        let run = Run {
            node,
            reader: stream.reader,
            writer: stream.writer,
            inbox,
            waiting: Arc::clone(&waiting),
        };
        let next = Arc::new(AtomicU64::new(0));
        (
            Self {
                node,
                outbox,
                waiting,
                next,
            },
            run,
        )
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.outbox.is_closed()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.waiting, &other.waiting)
    }

    /// If the future is dropped, the call may have happened.
    pub(super) async fn ask(&self, body: Bytes) -> Result<Bytes, CallError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        // Whoever gives up takes his entry along.
        let _entry = Entry { id, calls: self };
        let lost = || CallError::Lost {
            node: self.node,
            reason: "the stream ended".to_owned(),
        };
        self.outbox
            .send(Frame { id, mark: OK, body })
            .await
            .map_err(|_| lost())?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }
}

struct Entry<'a> {
    id: u64,
    calls: &'a Calls,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        lock(&self.calls.waiting).remove(&self.id);
    }
}

impl Run {
    /// Moves bytes until the stream ends, every handle is gone, or `cancel` fires.
    pub(super) async fn until(self, cancel: CancellationToken) {
        let Self {
            node,
            mut reader,
            mut writer,
            mut inbox,
            waiting,
        } = self;
        let reading = async {
            loop {
                match Frame::read(&mut reader).await {
                    Ok(Some(frame)) => {
                        let waits = lock(&waiting).remove(&frame.id);
                        if let Some(answer) = waits {
                            let _ = answer.send(outcome(node, frame));
                        }
                    }
                    Ok(None) => break "the other end closed the stream".to_owned(),
                    Err(error) => break error.to_string(),
                }
            }
        };
        let writing = async {
            while let Some(frame) = inbox.recv().await {
                let mut buffers: Vec<Bytes> = frame.encode().into();
                if let Err(error) = writer.write_buffers(&mut buffers).await {
                    return error.to_string();
                }
            }
            "nobody asks any more".to_owned()
        };
        let reason = tokio::select! {
            biased;
            () = cancel.cancelled() => "the node is stopping".to_owned(),
            reason = reading => reason,
            reason = writing => reason,
        };
        // Closed before they are told: who asks from now on opens another stream.
        drop(inbox);
        let left = std::mem::take(&mut *lock(&waiting));
        for answer in left.into_values() {
            let reason = reason.clone();
            let _ = answer.send(Err(CallError::Lost { node, reason }));
        }
    }
}

fn outcome(node: NodeId, frame: Frame) -> Result<Bytes, CallError> {
    if frame.mark == OK {
        return Ok(frame.body);
    }
    Err(CallError::Failed {
        node,
        reason: String::from_utf8_lossy(&frame.body).into_owned(),
    })
}
