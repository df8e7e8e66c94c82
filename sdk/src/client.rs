//! [`Client`]: one application's way into a cluster.
//!
//! Owns the connections, the image of the cluster and every task of the SDK. Producers, consumers and admins
//! are made from it and share it. It must never know records.

mod bootstrap;
mod metadata;
mod pool;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::Request;
use tokio::sync::watch;

pub(crate) use self::metadata::Metadata;
use self::metadata::Refresher;
pub(crate) use self::pool::Lane;
use self::pool::Pool;
use crate::admin::Admin;
use crate::config::{Config, Transport};
use crate::connection::{Connection, ConnectionOptions};
use crate::consumer::{Consumer, ConsumerConfig};
use crate::door::{self, Tasks};
use crate::error::Error;
use crate::group::{GroupConfig, GroupConsumer};
use crate::producer::{Producer, ProducerConfig};
use crate::routing::{Cluster, Topic};
use crate::transport::Dialer;

/// A client of one cluster. Cheap to clone; clones share everything.
///
/// - Dropping the last clone, and the last producer and consumer made from it, stops its tasks without
///   waiting; [`Client::close`] waits for them.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.tasks.cancel();
    }
}

struct Core {
    config: Arc<Config>,
    dialer: Arc<Dialer>,
    pool: Arc<Pool>,
    metadata: Arc<Metadata>,
    tasks: Tasks,
}

/// Who is to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Any,
    Controller,
    Node(NodeId),
}

impl Client {
    /// Finds the cluster: resolves when one of the bootstrap addresses has answered.
    ///
    /// A dropped future leaves nothing behind.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        config.check()?;
        let config = Arc::new(config);
        let dialer = Arc::new(Dialer::new(&config)?);
        let tasks = Tasks::new();
        let first = config
            .bootstrap
            .first()
            .map_or(Transport::Tcp, |address| address.transport);
        let image = watch::Sender::new(Arc::new(Cluster::empty(first)));
        let options = ConnectionOptions {
            client_id: config.client_id.clone(),
            limits: config.limits,
            negotiation_timeout: config.connect_timeout,
        };
        let pool = Pool::new(Arc::clone(&dialer), options, tasks.clone(), image.subscribe());
        let metadata = Arc::new(Metadata::new(image));
        let refresher = Refresher {
            metadata: Arc::clone(&metadata),
            pool: Arc::clone(&pool),
            config: Arc::clone(&config),
            remembered: None,
        };
        tasks.spawn(refresher.run());
        let core = Arc::new(Core {
            config,
            dialer,
            pool,
            metadata,
            tasks,
        });
        let client = Self {
            inner: Arc::new(Inner { core }),
        };
        client.metadata().refresh().await?;
        Ok(client)
    }

    /// A producer with its own buffers and identity.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, Error> {
        Producer::new(self.clone(), config)
    }

    /// A consumer with its own positions. It reads nothing until partitions are assigned to it.
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, Error> {
        Consumer::new(self.clone(), config)
    }

    /// A member of a consumer group. It joins at once; what it is given is read through it.
    pub fn group_consumer(&self, config: GroupConfig) -> Result<GroupConsumer, Error> {
        GroupConsumer::new(self.clone(), config)
    }

    /// Topics, their settings and offsets.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The cluster as it is known at the moment.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.metadata().image()
    }

    /// The transport that reaches the cluster at the moment.
    pub fn transport(&self) -> Transport {
        self.metadata().image().transport
    }

    /// Asks the cluster anew who is who, and waits for the answer. A dropped future lets it go on.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.metadata().refresh().await
    }

    /// Moves all QUIC connections to a new local port, for instance after the network has changed.
    /// Requests under way go on: the connections survive, their packets come from elsewhere.
    pub fn rebind(&self) -> io::Result<()> {
        self.inner.core.dialer.rebind()
    }

    /// The local address of the QUIC connections, if there are any.
    pub fn local_quic_address(&self) -> Option<SocketAddr> {
        self.inner.core.dialer.local_quic_address()
    }

    /// What is known of a topic, asked for if nothing is.
    ///
    /// A dropped future lets the question go on.
    pub async fn topic(&self, name: &str) -> Result<Arc<Topic>, Error> {
        if let Some(topic) = self.cluster().topic(name) {
            return Ok(Arc::clone(topic));
        }
        self.metadata().want(name);
        let deadline = door::now() + self.config().request_timeout;
        let mut failures = 0;
        loop {
            self.metadata().refresh().await?;
            if let Some(topic) = self.cluster().topic(name) {
                return Ok(Arc::clone(topic));
            }
            failures += 1;
            let pause = self.config().backoff.pause(failures, door::random_u64());
            // A topic that is being created on our behalf takes a moment; any other does not exist.
            if !self.config().auto_create_topics || door::now() + pause > deadline {
                return Err(Error::UnknownTopic(name.to_owned()));
            }
            door::sleep_until(door::now() + pause).await;
        }
    }

    /// Closes all connections and waits until every task has ended. Requests without an answer fail;
    /// records that a producer still holds are lost: close producers first.
    ///
    /// A dropped future stops the tasks all the same.
    pub async fn close(self) {
        let core = &self.inner.core;
        core.tasks.cancel();
        core.dialer.close().await;
        core.tasks.stop().await;
    }

    /// Sends one request to one broker, over the lane for control.
    pub(crate) async fn call<R: Request>(
        &self,
        target: Target,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, Error> {
        let connection = self.target(target).await?;
        Ok(connection.call(request, timeout).await?)
    }

    /// As [`Client::call`], in a version that is no newer than `newest`: later ones have another shape.
    pub(crate) async fn call_up_to<R: Request>(
        &self,
        newest: i16,
        target: Target,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, Error> {
        let connection = self.target(target).await?;
        Ok(connection.call_up_to(newest, request, timeout).await?)
    }

    pub(crate) async fn target(&self, target: Target) -> Result<Connection, Error> {
        let cluster = self.cluster();
        let pool = &self.inner.core.pool;
        let any = || cluster.brokers.keys().next().copied();
        let node = match target {
            Target::Node(node) => node,
            Target::Controller => cluster
                .controller
                .or_else(any)
                .ok_or(Error::Unreachable(Vec::new()))?,
            Target::Any => match pool.live_control() {
                Some(connection) => return Ok(connection),
                None => any().ok_or(Error::Unreachable(Vec::new()))?,
            },
        };
        self.connection(node, Lane::Control).await
    }

    pub(crate) async fn connection(&self, node: NodeId, lane: Lane) -> Result<Connection, Error> {
        Ok(self.inner.core.pool.connection(node, lane).await?)
    }

    /// Closes the connections of a purpose.
    pub(crate) fn end(&self, lane: Lane) {
        self.inner.core.pool.end(lane);
    }

    pub(crate) fn metadata(&self) -> &Arc<Metadata> {
        &self.inner.core.metadata
    }

    pub(crate) fn config(&self) -> &Arc<Config> {
        &self.inner.core.config
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.core.tasks
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests make sockets")]
mod tests;
