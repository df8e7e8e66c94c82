//! Taking connections in: the accept loops, handshakes under a deadline, the limit on connections.
//!
//! A handshake runs in the connection's own task: one slow client holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use super::{Shared, connection};
use crate::security::tls::{ALPN_ENROL, ALPN_PEER};
use crate::sys::task::Kind;
use crate::telemetry::Gauge;
use crate::transport::{Accepting, CloseCode, Incoming, Listener, Session};

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long accepting rests when the process is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the goodbye to all sessions may take, repeated for those that missed it.
const GOODBYE: Duration = Duration::from_secs(1);

/// Who is told of sites that dial; `link` stands behind it. Calls must not block.
pub trait SessionSink: Send + Sync {
    /// A site has dialed. The session is the sink's alone; it counts as a connection until it is closed.
    fn site(&self, site: &str, session: Session);
    /// Somebody without a certificate wants to enrol. The session is the sink's alone.
    fn enrol(&self, session: Session);
    /// Another node of the cluster has dialed, or says that it is one. The session is the sink's alone.
    fn peer(&self, session: Session);
}

pub(super) fn spawn(shared: Arc<Shared>, mut listener: Listener) {
    let name = listener
        .local_address()
        .map_or_else(|_| "accept".to_owned(), |address| format!("accept {address}"));
    let tasks = shared.tasks.clone();
    tasks.spawn(&name, Kind::Critical, async move {
        let draining = shared.draining.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = draining.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(Some(accepting)) => establish(&shared, accepting),
                Ok(None) => break,
                Err(error) => {
                    shared.meters.refused.increment();
                    shared.meters.warn(&shared.services.sys.clock, || {
                        tracing::warn!(%error, "a connection could not be accepted");
                    });
                    shared.services.sys.clock.sleep(PAUSE).await;
                }
            }
        }
        drain(&shared, listener).await;
    });
}

/// Keeps QUIC's endpoint alive until the sessions on it are done, then says goodbye.
async fn drain(shared: &Shared, listener: Listener) {
    let mut connections = shared.connections.subscribe();
    tokio::select! {
        biased;
        // The sender lives in `shared`.
        _ = connections.wait_for(|open| *open == 0) => {}
        () = shared.tasks.cancelled().cancelled_owned() => {}
    }
    // What is to be said is said at once. A peer that went away in its handshake is remembered until it would be idle.
    let _ = shared.services.sys.clock.timeout(GOODBYE, listener.close()).await;
}

/// A counted connection: gives its place back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    gauge: Option<Gauge>,
}

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let free = shared.connections.send_if_modified(|open| {
            let free = *open < shared.services.config.server.connections_max;
            *open += usize::from(free);
            free
        });
        free.then(|| Self {
            shared: Arc::clone(shared),
            gauge: None,
        })
    }

    fn count_as(&mut self, gauge: &Gauge) {
        gauge.add(1);
        self.gauge = Some(gauge.clone());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.add(-1);
        }
        self.shared.connections.send_modify(|open| *open -= 1);
    }
}

fn establish(shared: &Arc<Shared>, accepting: Accepting) {
    let Some(mut place) = Place::take(shared) else {
        shared.meters.refused.increment();
        accepting.refuse();
        return;
    };
    let shared = Arc::clone(shared);
    let tasks = shared.tasks.clone();
    tasks.spawn("connection", Kind::BestEffort, async move {
        let address = accepting.remote_address();
        let handshake = shared
            .services
            .sys
            .clock
            .timeout(HANDSHAKE, accepting.establish());
        let incoming = tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            incoming = handshake => incoming,
        };
        match incoming {
            Ok(Ok(incoming)) => {
                place.count_as(shared.meters.connections(incoming.peer().transport));
                serve(shared, incoming, place).await;
            }
            Ok(Err(error)) => {
                shared.meters.handshakes_failed.increment();
                tracing::debug!(%address, %error, "a handshake failed");
            }
            Err(_) => {
                shared.meters.handshakes_failed.increment();
                tracing::debug!(%address, "a handshake took too long");
            }
        }
    });
}

async fn serve(shared: Arc<Shared>, incoming: Incoming, place: Place) {
    match incoming {
        Incoming::Stream { stream, peer } => {
            if !opened(&shared).await {
                return;
            }
            connection::serve(shared, stream, Arc::new(peer)).await;
            drop(place);
        }
        Incoming::Session(session) => {
            let sink = shared.sink.clone();
            let is_enrolment = session.alpn() == ALPN_ENROL;
            if is_enrolment || session.alpn() == ALPN_PEER {
                match sink {
                    Some(sink) if is_enrolment => {
                        sink.enrol(session.clone());
                        until_closed(&shared, &session).await;
                    }
                    Some(sink) => {
                        sink.peer(session.clone());
                        until_closed(&shared, &session).await;
                    }
                    None => session.close(CloseCode::Refused, "this node takes no such connections"),
                }
                return;
            }
            if !opened(&shared).await {
                return;
            }
            let site = session
                .peer()
                .certificate
                .as_ref()
                .and_then(|facts| facts.site().map(str::to_owned));
            if let (Some(sink), Some(site)) = (sink, site) {
                // The session is the sink's: a site's first stream is no Kafka stream.
                sink.site(&site, session.clone());
                until_closed(&shared, &session).await;
                return;
            }
            accept_streams(&shared, &session).await;
            drop(place);
        }
    }
}

/// Waits until the node serves clients; false: it never will.
async fn opened(shared: &Shared) -> bool {
    tokio::select! {
        biased;
        () = shared.draining.cancelled() => false,
        () = shared.opened.cancelled() => true,
    }
}

/// Waits for the end of a session that somebody else serves; at a drain it ends at once.
async fn until_closed(shared: &Shared, session: &Session) {
    tokio::select! {
        biased;
        () = shared.draining.cancelled() => session.close(CloseCode::Draining, "the node is stopping"),
        _ = session.closed() => {}
    }
}

pub(super) fn serve_session(shared: &Arc<Shared>, session: Session) {
    let shared = Arc::clone(shared);
    let tasks = shared.tasks.clone();
    tasks.spawn("session", Kind::BestEffort, async move {
        accept_streams(&shared, &session).await
    });
}

/// Serves every stream the peer opens. At a drain the streams finish first, then the session is closed.
async fn accept_streams(shared: &Arc<Shared>, session: &Session) {
    let peer = Arc::new(session.peer().clone());
    let streams = shared.tasks.child("session");
    let ended = loop {
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => break false,
            stream = session.accept_stream() => match stream {
                Ok(stream) => {
                    let (shared, peer) = (Arc::clone(shared), Arc::clone(&peer));
                    streams.spawn("stream", Kind::BestEffort, connection::serve(shared, stream, peer));
                }
                Err(_) => break true,
            },
        }
    };
    if !ended {
        streams.ended().await;
        session.close(CloseCode::Draining, "the node is stopping");
    }
}
