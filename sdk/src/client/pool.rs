//! Connections to brokers by purpose, dialed when first needed and again when they are gone.
//!
//! Owns them all. Over TCP each lane is a connection of its own, over QUIC a long-lived stream of the one
//! connection to the broker, so that no kind of request waits behind another. It must never retry: a failed
//! dial is its callers' to judge.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use headwater_protocol::ids::NodeId;
use tokio::sync::watch;

use crate::config::{Address, Transport};
use crate::connection::io::{CloseReason, Sink};
use crate::connection::{CallError, Connection, ConnectionOptions, Known, Versions};
use crate::door::Tasks;
use crate::routing::Cluster;
use crate::transport::{DialError, Dialer, Handshake, watch_handshake};

/// What a connection or stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    /// Short requests: metadata, admin.
    Control,
    /// Fetches, which wait at the broker.
    Fetch(u8),
    /// Produce, spread by partition.
    Produce(u8),
    /// What one member says to its group, and waits for until the others have come.
    Group(u32),
}

impl Lane {
    /// QUIC's stream priority: control before produce before fetch.
    fn priority(self) -> i32 {
        match self {
            Self::Control | Self::Group(_) => 2,
            Self::Produce(_) => 1,
            Self::Fetch(_) => 0,
        }
    }
}

/// A QUIC connection to one broker.
#[derive(Clone)]
pub(crate) struct Session {
    connection: quinn::Connection,
    handshake: Option<watch::Receiver<Handshake>>,
    /// Asked once, on the first stream.
    versions: Arc<OnceLock<Arc<Versions>>>,
}

/// Everything that is open.
pub(crate) struct Pool {
    pub(super) dialer: Arc<Dialer>,
    pub(super) options: ConnectionOptions,
    pub(super) tasks: Tasks,
    image: watch::Receiver<Arc<Cluster>>,
    sessions: Flights<Address, Session>,
    lanes: Flights<(Address, Lane), Connection>,
}

impl Pool {
    pub(super) fn new(
        dialer: Arc<Dialer>,
        options: ConnectionOptions,
        tasks: Tasks,
        image: watch::Receiver<Arc<Cluster>>,
    ) -> Arc<Self> {
        let (sessions, lanes) = (Flights::default(), Flights::default());
        Arc::new(Self {
            dialer,
            options,
            tasks,
            image,
            sessions,
            lanes,
        })
    }

    /// The connection to a broker for a purpose. All who ask while it is dialed wait for the same dial.
    ///
    /// A dropped future lets the dial go on, for the next who asks.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        node: NodeId,
        lane: Lane,
    ) -> Result<Connection, DialError> {
        let address = self
            .image
            .borrow()
            .address(node)
            .ok_or(DialError::UnknownNode { node })?;
        self.lane(address, lane).await
    }

    /// As [`Pool::connection`], by address.
    pub(super) async fn lane(
        self: &Arc<Self>,
        address: Address,
        lane: Lane,
    ) -> Result<Connection, DialError> {
        let pool = Arc::clone(self);
        let to = address.clone();
        let dial = async move {
            match to.transport {
                Transport::Quic => pool.open_stream(to, lane).await,
                Transport::Tls | Transport::Tcp => pool.open_connection(to).await,
            }
        };
        self.lanes
            .get((address, lane), Connection::is_open, &self.tasks, dial)
            .await
    }

    /// A connection for control that is open right now.
    pub(super) fn live_control(&self) -> Option<Connection> {
        self.lanes
            .find(|(_, lane), connection| *lane == Lane::Control && connection.is_open())
    }

    /// Closes what was opened for a purpose that there is no more.
    pub(crate) fn end(&self, lane: Lane) {
        self.lanes.retain(|(_, used_for), connection| {
            let keep = *used_for != lane;
            if !keep {
                connection.close(CloseReason::ByUs);
            }
            keep
        });
    }

    /// Closes what belongs to transports other than `transport`.
    pub(super) fn keep_only(&self, transport: Transport) {
        self.lanes.retain(|(address, _), connection| {
            let keep = address.transport == transport;
            if !keep {
                connection.close(CloseReason::ByUs);
            }
            keep
        });
        self.sessions.retain(|address, session| {
            let keep = address.transport == transport;
            if !keep {
                session
                    .connection
                    .close(quinn::VarInt::from_u32(0), b"transport changed");
            }
            keep
        });
    }

    /// Ends all QUIC connections as if the network had.
    #[cfg(test)]
    pub(super) fn cut_sessions(&self) {
        self.sessions.retain(|_, session| {
            session.connection.close(quinn::VarInt::from_u32(1), b"cut");
            false
        });
    }

    #[cfg(test)]
    pub(super) fn resumed_early(&self) -> bool {
        self.sessions
            .find(|_, session| session.handshake.is_some())
            .is_some()
    }

    async fn open_connection(&self, address: Address) -> Result<Connection, DialError> {
        let stream = self.dialer.stream(&address).await?;
        let sink = Sink::Bytes(stream.writer);
        let connection = Connection::start(stream.reader, sink, &self.options, Known::default(), &self.tasks);
        self.negotiated(connection, address).await
    }

    async fn open_stream(self: Arc<Self>, address: Address, lane: Lane) -> Result<Connection, DialError> {
        let pool = Arc::clone(&self);
        let to = address.clone();
        let dial = async move { pool.open_session(&to).await };
        let alive = |session: &Session| session.connection.close_reason().is_none();
        let session = self
            .sessions
            .get(address.clone(), alive, &self.tasks, dial)
            .await?;
        let lost = |cause| DialError::Quic {
            address: address.clone(),
            cause,
        };
        let (send, receive) = session.connection.open_bi().await.map_err(lost)?;
        // A stream that is gone already says so at its first use.
        let _ = send.set_priority(lane.priority());
        let known = Known {
            versions: session.versions.get().cloned(),
            handshake: session.handshake.clone(),
        };
        let connection = Connection::start(receive, Sink::Quic(send), &self.options, known, &self.tasks);
        if connection.versions().is_some() {
            return Ok(connection);
        }
        let connection = self.negotiated(connection, address).await?;
        if let Some(versions) = connection.versions() {
            let _ = session.versions.set(Arc::clone(versions));
        }
        Ok(connection)
    }

    async fn open_session(&self, address: &Address) -> Result<Session, DialError> {
        let dialed = self.dialer.quic(address).await?;
        let handshake = dialed.handshake.map(|accepted| {
            let (to, handshake) = watch::channel(Handshake::Pending);
            self.tasks.spawn(watch_handshake(accepted, to));
            handshake
        });
        Ok(Session {
            connection: dialed.connection,
            handshake,
            versions: Arc::default(),
        })
    }

    async fn negotiated(&self, connection: Connection, address: Address) -> Result<Connection, DialError> {
        match connection.negotiate(self.options.negotiation_timeout).await {
            Ok(()) => Ok(connection),
            Err(cause) => Err(DialError::Negotiation {
                address,
                cause: Box::new(cause),
            }),
        }
    }
}

/// Values that are made once at a time: whoever asks while one is being made waits for that one.
struct Flights<K, V> {
    slots: Mutex<BTreeMap<K, Slot<V>>>,
}

enum Slot<V> {
    Making(watch::Receiver<Option<Result<V, DialError>>>),
    Made(V),
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self {
            slots: Mutex::new(BTreeMap::new()),
        }
    }
}

impl<K: Ord + Clone, V: Clone + Send + Sync + 'static> Flights<K, V> {
    /// The value at `key`: the one there is, if `usable`, or else what `make` gives, run as a task.
    async fn get(
        &self,
        key: K,
        usable: impl Fn(&V) -> bool,
        tasks: &Tasks,
        make: impl Future<Output = Result<V, DialError>> + Send + 'static,
    ) -> Result<V, DialError> {
        let mut making = match self.join_or_start(&key, usable, tasks, make) {
            Ok(value) => return Ok(value),
            Err(making) => making,
        };
        let result = match making.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Err(DialError::Closed)),
            // The maker was stopped.
            Err(_) => Err(DialError::Closed),
        };
        self.settle(key, &making, &result);
        result
    }

    fn join_or_start(
        &self,
        key: &K,
        usable: impl Fn(&V) -> bool,
        tasks: &Tasks,
        make: impl Future<Output = Result<V, DialError>> + Send + 'static,
    ) -> Result<V, watch::Receiver<Option<Result<V, DialError>>>> {
        let mut slots = self.lock();
        let made = match slots.get(key) {
            Some(Slot::Made(value)) => Some(value.clone()),
            Some(Slot::Making(making)) => match &*making.borrow() {
                Some(result) => result.as_ref().ok().cloned(),
                // Still under way, unless the maker was stopped.
                None if making.has_changed().is_ok() => return Err(making.clone()),
                None => None,
            },
            None => None,
        };
        if let Some(value) = made.filter(usable) {
            slots.insert(key.clone(), Slot::Made(value.clone()));
            return Ok(value);
        }
        let (done, making) = watch::channel(None);
        slots.insert(key.clone(), Slot::Making(making.clone()));
        let token = tasks.token().clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                result = make => drop(done.send_replace(Some(result))),
            }
        });
        Err(making)
    }

    /// Puts a result in the slot it was made for, unless the slot has moved on.
    fn settle(
        &self,
        key: K,
        made: &watch::Receiver<Option<Result<V, DialError>>>,
        result: &Result<V, DialError>,
    ) {
        let mut slots = self.lock();
        if !matches!(slots.get(&key), Some(Slot::Making(making)) if making.same_channel(made)) {
            return;
        }
        match result {
            Ok(value) => drop(slots.insert(key, Slot::Made(value.clone()))),
            Err(_) => drop(slots.remove(&key)),
        }
    }

    fn find(&self, mut wanted: impl FnMut(&K, &V) -> bool) -> Option<V> {
        self.lock().iter().find_map(|(key, slot)| match slot {
            Slot::Made(value) if wanted(key, value) => Some(value.clone()),
            Slot::Made(_) | Slot::Making(_) => None,
        })
    }

    fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.lock().retain(|key, slot| match slot {
            Slot::Made(value) => keep(key, value),
            Slot::Making(_) => true,
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, Slot<V>>> {
        // No code panics while it holds the lock, and the map is whole between any two statements.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The broker's word that an address cannot be used, as a dial's failure.
impl From<(Address, CallError)> for DialError {
    fn from((address, cause): (Address, CallError)) -> Self {
        Self::Negotiation {
            address,
            cause: Box::new(cause),
        }
    }
}
