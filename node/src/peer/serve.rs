//! The answering end: checks the hello of each stream that another node opens, and hands on what it carries.
//!
//! Owns the sessions that others dialed while they last. It answers nothing by itself but the hello.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::NodeId;
use tokio::sync::Semaphore;

use super::frame::{FAILED, Frame, OK};
use super::hello::{self, Hello, Purpose, Refusal, Welcome};
use super::{Kind, Shared};
use crate::sys::mailbox::{Mailbox, mailbox};
use crate::sys::task::{Kind as TaskKind, Tasks};
use crate::transport::{ReadHalf, Session, Stream, WriteHalf};

/// How long a stream may take for its hello.
const HELLO: Duration = Duration::from_secs(5);
/// Calls of one stream that are worked on at once; the next is read when one is done.
const AT_ONCE: usize = 64;

pub(super) async fn run(shared: &Arc<Shared>, session: Session) {
    let tasks = shared.tasks.child("session");
    let cancel = tasks.cancelled();
    loop {
        let stream = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            stream = session.accept_stream() => stream,
        };
        let Ok(stream) = stream else { break };
        let (shared, session) = (Arc::clone(shared), session.clone());
        let streams = tasks.clone();
        tasks.spawn("stream", TaskKind::BestEffort, async move {
            begin(&shared, &session, stream, &streams).await;
        });
    }
    tasks.cancel();
}

async fn begin(shared: &Arc<Shared>, session: &Session, mut stream: Stream, tasks: &Tasks) {
    let read = shared.sys.clock.timeout(HELLO, hello::read::<Hello>(&mut stream));
    let hello = match read.await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return tracing::debug!(%error, "a node's hello cannot be read"),
        Err(_) => return tracing::debug!("a node's hello took too long"),
    };
    let from = hello.from;
    if let Err(refusal) = check(shared, session, &hello) {
        tracing::warn!(node = %from, %refusal, "a node is refused");
        let refused: Result<Welcome, Refusal> = Err(refusal);
        let _ = hello::write(&mut stream, &refused).await;
        // The refusal is to arrive before the stream goes.
        let _ = shared.sys.clock.timeout(HELLO, stream.writer.finish()).await;
        return;
    }
    let welcome: Result<Welcome, Refusal> = Ok(Welcome {
        directory: shared.directory.clone(),
        proof: shared.secret.prove(&session.channel(), shared.me, from),
    });
    if hello::write(&mut stream, &welcome).await.is_err() {
        return;
    }
    match (hello.purpose, shared.streams.get()) {
        (Purpose::Kafka, Some(streams)) => streams.serve(from, stream, session),
        (Purpose::Kafka, None) => {}
        (Purpose::Calls(kind), _) => {
            if let Some(kind) = Kind::from_byte(kind) {
                answer(shared, from, kind, stream, tasks).await;
            }
        }
    }
}

fn check(shared: &Shared, session: &Session, hello: &Hello) -> Result<(), Refusal> {
    if hello.version != hello::VERSION {
        return Err(Refusal::Version {
            spoken: hello.version,
        });
    }
    if hello.cluster != shared.cluster_id {
        return Err(Refusal::Cluster {
            mine: shared.cluster_id.clone(),
            theirs: hello.cluster.clone(),
        });
    }
    if hello.to != shared.me || hello.from == shared.me {
        return Err(Refusal::OtherNode(shared.me));
    }
    if !shared
        .secret
        .verify(&hello.proof, &session.channel(), hello.from, shared.me)
    {
        return Err(Refusal::Secret);
    }
    shared.check_sender(hello.from, &hello.directory, hello.purpose)?;
    let is_served = match hello.purpose {
        Purpose::Kafka => shared.streams.get().is_some(),
        Purpose::Calls(kind) => Kind::from_byte(kind).is_some() && shared.answers.get().is_some(),
    };
    if is_served {
        Ok(())
    } else {
        Err(Refusal::Purpose(format!("{:?}", hello.purpose)))
    }
}

/// Answers the calls of one stream, many at a time.
async fn answer(shared: &Arc<Shared>, from: NodeId, kind: Kind, stream: Stream, tasks: &Tasks) {
    let Some(answers) = shared.answers.get().map(Arc::clone) else {
        return;
    };
    let Stream { mut reader, writer } = stream;
    let (outbox, inbox) = mailbox(AT_ONCE);
    let cancel = tasks.cancelled();
    tasks.spawn("answers", TaskKind::BestEffort, write(writer, inbox));
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let frame = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            frame = next(&mut reader) => frame,
        };
        let Some(frame) = frame else { return };
        let answering = answers.answer(from, kind, frame.body);
        let (outbox, cancel) = (outbox.clone(), cancel.clone());
        tasks.spawn("call", TaskKind::BestEffort, async move {
            let answer = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = outbox.closed() => return,
                answer = answering => answer,
            };
            let (mark, body) = match answer {
                Ok(body) => (OK, body),
                Err(reason) => (FAILED, Bytes::from(reason)),
            };
            let _ = outbox
                .send(Frame {
                    id: frame.id,
                    mark,
                    body,
                })
                .await;
            drop(place);
        });
    }
}

async fn next(reader: &mut ReadHalf) -> Option<Frame> {
    match Frame::read(reader).await {
        Ok(frame) => frame,
        Err(error) => {
            tracing::debug!(%error, "a stream of calls broke");
            None
        }
    }
}

async fn write(mut writer: WriteHalf, mut inbox: Mailbox<Frame>) {
    while let Some(frame) = inbox.recv().await {
        let mut buffers: Vec<Bytes> = frame.encode().into();
        if writer.write_buffers(&mut buffers).await.is_err() {
            return;
        }
    }
}
