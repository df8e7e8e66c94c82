//! A scripted broker for tests: one node, a log per partition, faults on demand.
//!
//! It serves the few APIs the client speaks, over TCP or QUIC on loopback, and keeps the rules a real broker
//! keeps for idempotent producers. It is no part of the product.
#![allow(
    clippy::disallowed_methods,
    reason = "a test's broker makes sockets and tasks"
)]

mod coordinator;
mod log;
mod serve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use headwater_protocol::kafka::ApiKey;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::coordinator::{Stage, Transaction};
pub(crate) use self::log::PartitionLog;
use crate::config::{Config, Trust};

/// What the broker does with a request instead of serving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Serve,
    /// Ends the connection without looking at the request.
    DropBefore,
    /// Serves it, then ends the connection instead of answering.
    DropAfter,
    /// Answers with an error for every partition, and does nothing else.
    Refuse(i16),
    /// Serves it and keeps the answer until [`Broker::release`].
    Hold,
}

type Script = Box<dyn FnMut(ApiKey) -> Action + Send>;

pub(crate) struct State {
    pub(crate) address: SocketAddr,
    pub(crate) topics: BTreeMap<String, Vec<PartitionLog>>,
    pub(crate) next_producer_id: i64,
    pub(crate) script: Script,
    /// Highest versions offered, for tests of old brokers.
    pub(crate) version_caps: BTreeMap<i16, i16>,
    pub(crate) requests: BTreeMap<i16, usize>,
    pub(crate) connections: usize,
    pub(crate) fetch_sessions: bool,
    /// Cuts a fetch's last batch in the middle, as Kafka may.
    pub(crate) cut_last_batch: bool,
    /// By transactional id.
    pub(crate) transactions: BTreeMap<String, Transaction>,
    /// The level of `transaction.version` that is told.
    pub(crate) transaction_version: i16,
    /// What groups have committed, by group, topic and partition.
    pub(crate) offsets: BTreeMap<(String, String, i32), i64>,
    /// Of every group.
    pub(crate) generation: i32,
    /// The newest version in which each API was asked.
    pub(crate) newest: BTreeMap<i16, i16>,
}

/// A running broker. Everything ends when it is dropped.
pub(crate) struct Broker {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) changed: Arc<Notify>,
    released: Arc<Notify>,
    cancel: CancellationToken,
    _tasks: JoinSet<()>,
    scheme: &'static str,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) released: Arc<Notify>,
    pub(crate) cancel: CancellationToken,
}

impl Shared {
    fn new(address: SocketAddr) -> Self {
        let state = State {
            address,
            topics: BTreeMap::new(),
            next_producer_id: 1000,
            script: Box::new(|_| Action::Serve),
            version_caps: BTreeMap::new(),
            requests: BTreeMap::new(),
            connections: 0,
            fetch_sessions: true,
            cut_last_batch: false,
            transactions: BTreeMap::new(),
            transaction_version: 2,
            offsets: BTreeMap::new(),
            generation: 1,
            newest: BTreeMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
            released: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Broker {
    pub(crate) async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Shared::new(listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let serving = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tokio::select! {
                    () = serving.cancel.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap(),
                };
                stream.set_nodelay(true).unwrap();
                serving.lock().connections += 1;
                let (reader, writer) = stream.into_split();
                connections.spawn(serve::stream(reader, writer, serving.clone()));
            }
        });
        Self::over(shared, tasks, "")
    }

    pub(crate) async fn quic() -> Self {
        let endpoint = quic_endpoint();
        let shared = Shared::new(endpoint.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let serving = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let incoming = tokio::select! {
                    () = serving.cancel.cancelled() => return,
                    incoming = endpoint.accept() => incoming.unwrap(),
                };
                serving.lock().connections += 1;
                connections.spawn(serve_session(incoming, serving.clone()));
            }
        });
        Self::over(shared, tasks, "quic://")
    }

    fn over(shared: Shared, tasks: JoinSet<()>, scheme: &'static str) -> Self {
        let Shared {
            state,
            changed,
            released,
            cancel,
        } = shared;
        Self {
            state,
            changed,
            released,
            cancel,
            _tasks: tasks,
            scheme,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("{}{}", self.scheme, self.lock().address)
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(&self.address())
            .unwrap()
            .with_trust(Trust::SkipVerification);
        config.backoff.first = std::time::Duration::from_millis(2);
        config.backoff.max = std::time::Duration::from_millis(20);
        config
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn topic(&self, name: &str, partitions: usize) {
        let logs = (0..partitions).map(|_| PartitionLog::default()).collect();
        self.lock().topics.insert(name.to_owned(), logs);
    }

    pub(crate) fn script(&self, script: impl FnMut(ApiKey) -> Action + Send + 'static) {
        self.lock().script = Box::new(script);
    }

    /// Lets all answers go that were held.
    pub(crate) fn release(&self) {
        self.released.notify_waiters();
    }

    pub(crate) fn requests(&self, key: ApiKey) -> usize {
        self.lock().requests.get(&(key as i16)).copied().unwrap_or(0)
    }
}

fn quic_endpoint() -> quinn::Endpoint {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![b"kafka".to_vec()];
    tls.max_early_data_size = u32::MAX;
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn serve_session(incoming: quinn::Incoming, shared: Shared) {
    let connecting = incoming.accept().unwrap();
    // Early data is taken where the client sends some.
    let connection = match connecting.into_0rtt() {
        Ok((connection, _)) => connection,
        Err(connecting) => match connecting.await {
            Ok(connection) => connection,
            Err(_) => return,
        },
    };
    let mut streams = JoinSet::new();
    while let Ok((send, receive)) = connection.accept_bi().await {
        streams.spawn(serve::stream(receive, send, shared.clone()));
    }
}
