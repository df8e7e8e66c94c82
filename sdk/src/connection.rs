//! One Kafka connection: requests pipelined, answered in order, over any stream of bytes.
//!
//! Owns the correlation ids, the version each API is spoken in, and the bound on what is in flight. It must
//! never dial, reconnect or retry: when the stream ends, so does the connection.

pub(crate) mod io;
mod versions;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use headwater_protocol::kafka::{
    ApiKey, EncodeFrameError, ErrorCode, Message, Request, decode_response, encode_request,
};
use headwater_protocol::primitives::{DecodeError, Reader, Str};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use self::io::CloseReason;
use self::io::{Closing, Outgoing, Sink};
pub use self::versions::Versions;
use crate::config::Limits;
use crate::door::{self, Instant, Tasks};
use crate::transport::Handshake;

/// Requests that may wait for the writer, beside the limit in bytes: small requests have a price too.
const QUEUE_FRAMES: usize = 1024;

/// How a connection introduces itself and what it may hold.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    pub client_id: String,
    pub limits: Limits,
    /// How long asking for the broker's versions may take.
    pub negotiation_timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            client_id: "headwater".to_owned(),
            limits: Limits::default(),
            negotiation_timeout: Duration::from_secs(10),
        }
    }
}

/// A request had no usable answer.
#[derive(Debug, Clone, Error)]
pub enum CallError {
    /// The broker never saw the request.
    #[error("the broker speaks {api:?} in versions {theirs}, this client in {ours}")]
    Unsupported {
        api: ApiKey,
        ours: String,
        theirs: String,
    },
    /// The broker never saw the request.
    #[error("a {api:?} request cannot be written: {cause}")]
    Encode { api: ApiKey, cause: EncodeFrameError },
    /// Whether the broker acted on the request is not known.
    #[error("the connection ended: {0}")]
    Closed(CloseReason),
    /// Whether the broker acted on the request is not known.
    #[error("no answer to {api:?} within {} ms", timeout.as_millis())]
    Timeout { api: ApiKey, timeout: Duration },
    /// The broker answered, but not in the protocol's words.
    #[error("the answer to {api:?} cannot be read: {cause}")]
    Decode { api: ApiKey, cause: DecodeError },
}

impl CallError {
    /// Whether the same request may succeed on another connection.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Timeout { .. })
    }
}

/// A pipelined connection. Cheap to clone; it closes when the last clone is dropped.
///
/// - Requests reach the stream in the order in which `submit` returned, and are answered in that order.
/// - At most `limits.in_flight_bytes` of requests wait for answers (one larger request passes alone).
/// - A request that is not answered in its time ends the connection, since all answers behind it wait too.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    queue: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    correlation: AtomicI32,
    client_id: Str,
    versions: OnceLock<Arc<Versions>>,
    handshake: Option<watch::Receiver<Handshake>>,
    closing: Arc<Closing>,
    tasks: Tasks,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.closing.close(CloseReason::ByUs);
    }
}

/// What the client knows of a stream beforehand, so that it need not be asked again.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) versions: Option<Arc<Versions>>,
    pub(crate) handshake: Option<watch::Receiver<Handshake>>,
}

impl Connection {
    /// Makes a connection of both halves of a stream and asks the broker which versions it speaks.
    ///
    /// A dropped future closes the stream.
    pub async fn over<R, W>(reader: R, writer: W, options: ConnectionOptions) -> Result<Self, CallError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let connection = Self::start(
            reader,
            Sink::Bytes(Box::new(writer)),
            &options,
            Known::default(),
            &Tasks::new(),
        );
        connection.negotiate(options.negotiation_timeout).await?;
        Ok(connection)
    }

    /// As [`Connection::over`], for a QUIC stream, to which large requests are handed without a copy.
    pub async fn over_quic(
        send: quinn::SendStream,
        receive: quinn::RecvStream,
        options: ConnectionOptions,
    ) -> Result<Self, CallError> {
        let connection = Self::start(
            receive,
            Sink::Quic(send),
            &options,
            Known::default(),
            &Tasks::new(),
        );
        connection.negotiate(options.negotiation_timeout).await?;
        Ok(connection)
    }

    pub(crate) fn start<R>(
        reader: R,
        sink: Sink,
        options: &ConnectionOptions,
        known: Known,
        tasks: &Tasks,
    ) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let tasks = tasks.child();
        let closing = Arc::new(Closing::new(tasks.token().clone()));
        let (queue, outgoing) = mpsc::channel(QUEUE_FRAMES);
        let (expect, expected) = mpsc::channel(QUEUE_FRAMES);
        let room_bytes = options.limits.in_flight_bytes.clamp(1, u32::MAX as usize / 8) as u32;
        tasks.spawn(io::write(sink, outgoing, expect, Arc::clone(&closing)));
        let frame_bytes_max = options.limits.response_bytes_max;
        tasks.spawn(io::read(reader, expected, frame_bytes_max, Arc::clone(&closing)));
        let shared = Shared {
            queue,
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            correlation: AtomicI32::new(0),
            client_id: Str::from(options.client_id.as_str()),
            versions: known.versions.map_or_else(OnceLock::new, OnceLock::from),
            handshake: known.handshake,
            closing,
            tasks,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Sends `request` and waits for its answer, together at most `timeout`.
    ///
    /// A dropped future leaves the request sent or not sent; an answer that comes nevertheless is dropped.
    pub async fn call<R: Request>(&self, request: &R, timeout: Duration) -> Result<R::Response, CallError> {
        self.submit(request, timeout).await?.wait().await
    }

    /// As [`Connection::call`], in a version that is no newer than `newest`.
    pub(crate) async fn call_up_to<R: Request>(
        &self,
        newest: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, CallError> {
        let version = self.version::<R>()?.min(newest);
        self.submit_version(request, version, timeout).await?.wait().await
    }

    /// Queues `request` behind all that were submitted before, waiting for room if there is none, and
    /// returns the promise of its answer.
    ///
    /// A dropped future leaves the request unsent.
    pub async fn submit<R: Request>(&self, request: &R, timeout: Duration) -> Result<Answer<R>, CallError> {
        let version = self.version::<R>()?;
        self.submit_version(request, version, timeout).await
    }

    /// Queues a request that the broker does not answer (produce with `acks=0`) and returns when it was
    /// handed to the writer. A dropped future leaves the request unsent.
    pub async fn send<R: Request>(&self, request: &R, timeout: Duration) -> Result<(), CallError> {
        let version = self.version::<R>()?;
        let deadline = door::now() + timeout;
        self.enqueue(request, version, None, deadline, timeout).await
    }

    /// As [`Connection::submit`], without waiting, in a version that is no newer than `newest`: `None` when there is no
    /// room.
    pub(crate) fn try_submit<R: Request>(
        &self,
        newest: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<Option<Answer<R>>, CallError> {
        let version = self.version::<R>()?.min(newest);
        let (reply, answer) = oneshot::channel();
        if !self.try_enqueue(request, version, Some(reply))? {
            return Ok(None);
        }
        let deadline = door::now() + timeout;
        Ok(Some(Answer {
            answer,
            version,
            deadline,
            timeout,
            connection: self.clone(),
            request: PhantomData,
        }))
    }

    /// As [`Connection::send`], without waiting: `false` when there is no room.
    pub(crate) fn try_send<R: Request>(&self, request: &R) -> Result<bool, CallError> {
        let version = self.version::<R>()?;
        self.try_enqueue(request, version, None)
    }

    /// Bytes of requests for which there is room at the moment.
    pub(crate) fn room(&self) -> usize {
        self.shared.room.available_permits()
    }

    /// Waits until there is room for `bytes` (or for as much as there can be), or the connection has ended.
    /// Cancel safe.
    pub(crate) async fn wait_for_room(&self, bytes: usize) {
        let permits = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(self.shared.room_bytes);
        tokio::select! {
            biased;
            () = self.shared.closing.token().cancelled() => {}
            permit = self.shared.room.acquire_many(permits) => drop(permit),
        }
    }

    /// Waits until any request may be sent, early data or not. Cancel safe.
    pub(crate) async fn confirmed(&self) -> Result<(), CallError> {
        tokio::select! {
            biased;
            () = self.shared.closing.token().cancelled() => Err(self.ended()),
            // An API that is never replayable.
            done = self.handshake_allows(ApiKey::CreateTopics) => done,
        }
    }

    /// The version in which an API is spoken here.
    pub fn version<R: Request>(&self) -> Result<i16, CallError> {
        let ours = R::VERSIONS;
        let versions = self.shared.versions.get();
        versions
            .and_then(|versions| versions.best(R::KEY, &ours))
            .ok_or_else(|| CallError::Unsupported {
                api: R::KEY,
                theirs: versions.map_or_else(|| "not known".to_owned(), |versions| versions.describe(R::KEY)),
                ours: format!("{} to {}", ours.start(), ours.end()),
            })
    }

    /// Which versions the broker said it speaks.
    pub fn versions(&self) -> Option<&Arc<Versions>> {
        self.shared.versions.get()
    }

    /// Whether requests can still be sent.
    pub fn is_open(&self) -> bool {
        !self.shared.closing.is_closed()
    }

    /// Why the connection ended, once it has.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.closing.reason()
    }

    /// Waits until the connection has ended and says why. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        self.shared.closing.closed().await
    }

    /// Ends the connection and waits until its tasks are gone. Requests without an answer fail.
    ///
    /// A dropped future ends it all the same.
    pub async fn shutdown(&self) {
        self.shared.closing.close(CloseReason::ByUs);
        self.shared.tasks.stop().await;
    }

    /// Ends the connection without waiting.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.shared.closing.close(reason);
    }

    /// Asks for the broker's versions: in our newest version of the question, then in the newest it names.
    pub(crate) async fn negotiate(&self, timeout: Duration) -> Result<(), CallError> {
        let ours = ApiVersionsRequest::VERSIONS;
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("headwater-sdk"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
            ..ApiVersionsRequest::default()
        };
        let mut version = *ours.end();
        loop {
            let frame = self
                .submit_version(&request, version, timeout)
                .await?
                .wait_frame()
                .await?;
            let answer = read_versions(frame, version);
            let answer = answer.map_err(|cause| self.unreadable(ApiKey::ApiVersions, cause))?;
            let versions = Versions::new(&answer);
            if answer.error_code == ErrorCode::UNSUPPORTED_VERSION.0 && version > 0 {
                let best = versions.best(ApiKey::ApiVersions, &ours).unwrap_or(0);
                version = best.min(version - 1);
                continue;
            }
            // Two callers may have asked at once; both were told the same.
            let _ = self.shared.versions.set(Arc::new(versions));
            return Ok(());
        }
    }

    async fn submit_version<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<Answer<R>, CallError> {
        let deadline = door::now() + timeout;
        let (reply, answer) = oneshot::channel();
        self.enqueue(request, version, Some(reply), deadline, timeout)
            .await?;
        Ok(Answer {
            answer,
            version,
            deadline,
            timeout,
            connection: self.clone(),
            request: PhantomData,
        })
    }

    async fn enqueue<R: Request>(
        &self,
        request: &R,
        version: i16,
        reply: Option<oneshot::Sender<Bytes>>,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let shared = &*self.shared;
        let correlation_id = shared.correlation.fetch_add(1, Ordering::Relaxed);
        let frame = encode_request(request, version, correlation_id, Some(&shared.client_id))
            .map_err(|cause| CallError::Encode { api: R::KEY, cause })?;
        let bytes: usize = frame.iter().map(Bytes::len).sum();
        let queued = async {
            self.handshake_allows(R::KEY).await?;
            let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(shared.room_bytes);
            let permit = Arc::clone(&shared.room).acquire_many_owned(permits);
            let permit = permit.await.map_err(|_| self.ended())?;
            let outgoing = Outgoing {
                frame,
                correlation_id,
                reply,
                permit,
            };
            shared.queue.send(outgoing).await.map_err(|_| self.ended())
        };
        tokio::select! {
            biased;
            () = shared.closing.token().cancelled() => Err(self.ended()),
            done = door::timeout_at(deadline, queued) => {
                done.unwrap_or_else(|_| Err(self.late(R::KEY, timeout)))
            }
        }
    }

    fn try_enqueue<R: Request>(
        &self,
        request: &R,
        version: i16,
        reply: Option<oneshot::Sender<Bytes>>,
    ) -> Result<bool, CallError> {
        let shared = &*self.shared;
        if shared.closing.is_closed() {
            return Err(self.ended());
        }
        let correlation_id = shared.correlation.fetch_add(1, Ordering::Relaxed);
        let frame = encode_request(request, version, correlation_id, Some(&shared.client_id))
            .map_err(|cause| CallError::Encode { api: R::KEY, cause })?;
        let bytes: usize = frame.iter().map(Bytes::len).sum();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(shared.room_bytes);
        let Ok(permit) = Arc::clone(&shared.room).try_acquire_many_owned(permits) else {
            return Ok(false);
        };
        match shared.queue.try_send(Outgoing {
            frame,
            correlation_id,
            reply,
            permit,
        }) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.ended()),
        }
    }

    /// Before the handshake of a resumed QUIC connection is done, only requests that may be replayed pass.
    async fn handshake_allows(&self, api: ApiKey) -> Result<(), CallError> {
        let Some(handshake) = &self.shared.handshake else {
            return Ok(());
        };
        let replayable = matches!(api, ApiKey::ApiVersions | ApiKey::Metadata | ApiKey::Fetch);
        let mut handshake = handshake.clone();
        let state = if replayable {
            *handshake.borrow()
        } else {
            // A closed channel means that the handshake's watcher is gone with its connection.
            handshake
                .wait_for(|state| *state != Handshake::Pending)
                .await
                .map_or(Handshake::Pending, |s| *s)
        };
        if state == Handshake::EarlyDataRefused {
            self.close(CloseReason::EarlyDataRefused);
            return Err(self.ended());
        }
        Ok(())
    }

    fn ended(&self) -> CallError {
        CallError::Closed(self.shared.closing.reason().unwrap_or(CloseReason::ByUs))
    }

    fn late(&self, api: ApiKey, timeout: Duration) -> CallError {
        self.close(CloseReason::Late { api });
        CallError::Timeout { api, timeout }
    }

    fn unreadable(&self, api: ApiKey, cause: DecodeError) -> CallError {
        self.close(CloseReason::Unreadable { api });
        CallError::Decode { api, cause }
    }
}

/// The promise of an answer. Dropping it drops the answer when it comes, not the request.
pub struct Answer<R: Request> {
    answer: oneshot::Receiver<Bytes>,
    version: i16,
    deadline: Instant,
    timeout: Duration,
    connection: Connection,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Answer<R> {
    /// The version the request was sent in, which the answer has too.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Waits for the answer, until the request's time is up.
    ///
    /// A dropped future leaves the broker's deed done and its answer unread.
    pub async fn wait(self) -> Result<R::Response, CallError> {
        let (version, connection) = (self.version, self.connection.clone());
        let frame = self.wait_frame().await?;
        match decode_response::<R>(frame, version) {
            Ok((_, response)) => Ok(response),
            Err(cause) => Err(connection.unreadable(R::KEY, cause)),
        }
    }

    async fn wait_frame(self) -> Result<Bytes, CallError> {
        match door::timeout_at(self.deadline, self.answer).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(_)) => Err(self.connection.ended()),
            Err(_) => Err(self.connection.late(R::KEY, self.timeout)),
        }
    }
}

/// Reads an answer to ApiVersions. A broker that does not know the question's version answers in version 0,
/// with an error that stands where every version has it.
fn read_versions(frame: Bytes, version: i16) -> Result<ApiVersionsResponse, DecodeError> {
    let mut r = Reader::new(frame);
    r.i32("correlation_id")?;
    let error = r.clone().i16("error_code")?;
    let version = if error == ErrorCode::UNSUPPORTED_VERSION.0 {
        0
    } else {
        version
    };
    let answer = ApiVersionsResponse::decode(&mut r, version)?;
    r.finish("ApiVersionsResponse")?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
