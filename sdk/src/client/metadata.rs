//! The task that keeps the image of the cluster fresh.
//!
//! Owns the image and which topics it covers. All who find it stale ask here; however many ask at once, one
//! request goes out. It must never answer from an older round than the one asked for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use headwater_protocol::primitives::Str;
use tokio::sync::watch;

use super::bootstrap;
use super::pool::Pool;
use crate::config::{Config, Transport};
use crate::door::{self, Instant};
use crate::error::Error;
use crate::routing::Cluster;

/// What the task and those who ask share.
pub(crate) struct Metadata {
    image: watch::Sender<Arc<Cluster>>,
    wanted: Mutex<BTreeSet<Str>>,
    /// The newest round that was asked for.
    asked: watch::Sender<u64>,
    /// The newest round that is done, and how it went.
    done: watch::Sender<Round>,
}

#[derive(Clone, Default)]
struct Round {
    number: u64,
    failure: Option<Error>,
}

impl Metadata {
    pub(super) fn new(image: watch::Sender<Arc<Cluster>>) -> Self {
        Self {
            image,
            wanted: Mutex::default(),
            asked: watch::Sender::new(0),
            done: watch::Sender::new(Round::default()),
        }
    }

    pub(crate) fn image(&self) -> Arc<Cluster> {
        Arc::clone(&self.image.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Cluster>> {
        self.image.subscribe()
    }

    /// Adds a topic to those the image covers.
    pub(crate) fn want(&self, topic: &str) {
        self.wanted().insert(Str::from(topic));
    }

    /// Puts what a broker hinted at into the image.
    pub(crate) fn learn(&self, change: impl FnOnce(&Cluster) -> Option<Cluster>) {
        self.image.send_if_modified(|image| match change(image) {
            Some(next) => {
                *image = Arc::new(next);
                true
            }
            None => false,
        });
    }

    /// Asks for a fresh image without waiting for it.
    pub(crate) fn invalidate(&self) {
        self.ask();
    }

    /// Fetches the image anew and waits for it. A dropped future lets the fetch go on.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let round = self.ask();
        let mut done = self.done.subscribe();
        let done = done
            .wait_for(|done| done.number >= round)
            .await
            .map_err(|_| Error::Closed)?;
        done.failure.clone().map_or(Ok(()), Err)
    }

    /// Asks for the round after the one that may be under way, and says its number.
    fn ask(&self) -> u64 {
        let mut round = u64::MAX;
        let started = self.done.borrow().number;
        self.asked.send_if_modified(|asked| {
            // A round that was asked for but has not begun serves this caller too; whether it has begun is
            // not known here, so one more is asked for, and no further.
            let ahead = if *asked <= started { 1 } else { 2 };
            let next = started.saturating_add(ahead).max(*asked);
            round = next;
            let changed = next != *asked;
            *asked = next;
            changed
        });
        round
    }

    fn wanted(&self) -> std::sync::MutexGuard<'_, BTreeSet<Str>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, config: &Config) -> MetadataRequest {
        let topic = |name: &Str| MetadataRequestTopic {
            name: Some(name.clone()),
            ..Default::default()
        };
        MetadataRequest {
            topics: Some(self.wanted().iter().map(topic).collect()),
            allow_auto_topic_creation: config.auto_create_topics,
            ..Default::default()
        }
    }
}

/// The task: one round whenever somebody asks or the image is old.
pub(super) struct Refresher {
    pub(super) metadata: Arc<Metadata>,
    pub(super) pool: Arc<Pool>,
    pub(super) config: Arc<Config>,
    /// The transport that won last, and until when it goes first.
    pub(super) remembered: Option<(Transport, Instant)>,
}

impl Refresher {
    pub(super) async fn run(mut self) {
        let stopped = self.pool.tasks.token().clone();
        let rounds = async {
            let mut asked = self.metadata.asked.subscribe();
            loop {
                let done = self.metadata.done.borrow().number;
                let due = door::now() + self.config.metadata_max_age;
                let asked = async { asked.wait_for(|asked| *asked > done).await.is_ok() };
                let round = match door::timeout_at(due, asked).await {
                    Ok(true) => done + 1,
                    // Nobody is left who could ask.
                    Ok(false) => return,
                    Err(_) => done,
                };
                let failure = self.round().await.err();
                self.metadata.done.send_replace(Round {
                    number: round,
                    failure,
                });
            }
        };
        tokio::select! {
            biased;
            () = stopped.cancelled() => {}
            () = rounds => {}
        }
        // Whoever asks from now on is not kept waiting.
        let closed = Round {
            number: u64::MAX,
            failure: Some(Error::Closed),
        };
        self.metadata.done.send_replace(closed);
    }

    /// Asks a broker that is connected, or else whoever answers first.
    async fn round(&mut self) -> Result<(), Error> {
        let request = self.metadata.request(&self.config);
        while let Some(connection) = self.pool.live_control() {
            match connection.call(&request, self.config.connect_timeout).await {
                Ok(answer) => return self.install(self.metadata.image().transport, &answer),
                // It cannot be used; without this it would be found again.
                Err(_) => connection.close(crate::connection::CloseReason::ByUs),
            }
        }
        self.find(&request).await
    }

    async fn find(&mut self, request: &MetadataRequest) -> Result<(), Error> {
        let image = self.metadata.image();
        let known = image.brokers.keys().filter_map(|node| image.address(*node));
        let addresses = self.config.bootstrap.iter().cloned().chain(known);
        let first = self
            .remembered
            .filter(|(_, until)| *until > door::now())
            .map(|(transport, _)| transport);
        let addresses = bootstrap::order(addresses, first);
        let (head_start, timeout) = (self.config.quic_head_start, self.config.connect_timeout);
        let seed = bootstrap::race(&self.pool, addresses, request, head_start, timeout)
            .await
            .map_err(Error::Unreachable)?;
        let transport = seed.address.transport;
        self.remembered = Some((transport, door::now() + self.config.remember_transport));
        self.install(transport, &seed.metadata)?;
        self.pool.keep_only(transport);
        tracing::debug!(address = %seed.address, "cluster found");
        Ok(())
    }

    fn install(&self, transport: Transport, answer: &MetadataResponse) -> Result<(), Error> {
        if answer.error_code != ErrorCode::NONE.0 {
            return Err(Error::refused("metadata", answer.error_code, None));
        }
        self.metadata
            .image
            .send_modify(|image| *image = Arc::new(image.apply(transport, answer)));
        Ok(())
    }
}
