//! The controller's task: takes proposals, decides them one after another, makes what was decided durable in one
//! sync, publishes the image, and answers.
//!
//! Owns the newest image and the quorum's log. A proposal sees everything decided before it, durable or not yet; nobody
//! is answered, and nothing published, before it is durable.

use super::decide::{Context, Decision, Tell, decide};
use super::error::ProposeError;
use super::quorum::{CommitError, Quorum};
use super::{Applied, Proposal};
use crate::config::BrokerConfig;
use crate::metadata::{Image, Publisher, Record};
use crate::sys::Sys;
use crate::sys::mailbox::Mailbox;
use crate::telemetry::health::State;
use crate::telemetry::{Counter, Health, Histogram, Metrics, names};
use headwater_protocol::ids::{Offset, TopicId};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How many proposals share one sync.
const PROPOSALS_PER_COMMIT_MAX: usize = 64;

/// What the service works with besides its log.
pub(super) struct Parts {
    pub(super) sys: Sys,
    pub(super) broker: BrokerConfig,
    pub(super) publisher: Publisher,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

pub(super) struct Service {
    parts: Parts,
    quorum: Quorum,
    image: Arc<Image>,
    /// Set once the log can no longer be trusted: every change is refused until the next start.
    failed: Option<String>,
    committed: Counter,
    refused: Counter,
    commit_seconds: Histogram,
}

/// A proposal that was decided and waits for the commit.
struct Decided {
    tell: Tell,
    /// Its last record, if it has any.
    offset: Option<Offset>,
    reply: oneshot::Sender<Result<Applied, ProposeError>>,
}

impl Service {
    pub(super) fn new(parts: Parts, quorum: Quorum, image: Arc<Image>) -> Self {
        let committed = parts.metrics.counter(&names::METADATA_CHANGES, &["committed"]);
        let refused = parts.metrics.counter(&names::METADATA_CHANGES, &["refused"]);
        let commit_seconds = parts.metrics.histogram(&names::METADATA_COMMIT_SECONDS, &[]);
        Self {
            parts,
            quorum,
            image,
            failed: None,
            committed,
            refused,
            commit_seconds,
        }
    }

    /// Serves until `cancel` fires; what was taken from the mailbox by then is finished first.
    pub(super) async fn run(mut self, mut mailbox: Mailbox<Proposal>, cancel: CancellationToken) {
        self.parts.health.set("controller", State::Ready);
        loop {
            let first = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                proposal = mailbox.recv() => proposal,
            };
            let Some(first) = first else { break };
            let mut proposals = vec![first];
            while proposals.len() < PROPOSALS_PER_COMMIT_MAX {
                let Some(next) = mailbox.try_recv() else { break };
                proposals.push(next);
            }
            self.serve(proposals).await;
        }
        self.parts.health.set("controller", State::Stopping);
        self.quorum.close().await;
    }

    async fn serve(&mut self, proposals: Vec<Proposal>) {
        if let Some(reason) = &self.failed {
            for proposal in proposals {
                answer(proposal.reply, Err(ProposeError::Storage(reason.clone())));
            }
            return;
        }
        let started = self.parts.sys.clock.now();
        let mut image = Image::clone(&self.image);
        let mut groups: Vec<Vec<Record>> = Vec::new();
        let mut decided = Vec::with_capacity(proposals.len());
        for Proposal { change, reply } in proposals {
            match decide(change, &image, &self.context(&image)) {
                Ok(Decision { records, tell }) => {
                    let offset = fold(&mut image, &records);
                    if !records.is_empty() {
                        groups.push(records);
                    }
                    decided.push(Decided { tell, offset, reply });
                }
                Err(error) => {
                    self.refused.increment();
                    tracing::debug!(%error, "change refused");
                    answer(reply, Err(error));
                }
            }
        }
        if !groups.is_empty() {
            if let Err(error) = self.quorum.commit(&groups).await {
                self.not_committed(error, decided);
                return;
            }
            self.commit_seconds
                .record(self.parts.sys.clock.now().duration_since(started));
            self.image = Arc::new(image);
            self.parts.publisher.publish(Arc::clone(&self.image));
        }
        for Decided { tell, offset, reply } in decided {
            self.committed.increment();
            let offset = offset.unwrap_or(self.image.offset);
            answer(
                reply,
                Ok(Applied {
                    offset,
                    outcome: tell.outcome(&self.image),
                }),
            );
        }
        if let Err(error) = self.quorum.snapshot_if_due(&self.image).await {
            // The log still holds everything: the next start only takes longer.
            tracing::warn!(%error, "metadata snapshot could not be written");
        }
    }

    fn context(&self, image: &Image) -> Context {
        Context {
            broker: self.parts.broker.with_cluster(Arc::clone(&image.broker_configs)),
            topic_id: TopicId::from_random(self.parts.sys.random.secret()),
        }
    }

    fn not_committed(&mut self, error: CommitError, decided: Vec<Decided>) {
        let reason = error.to_string();
        match error {
            CommitError::Full => tracing::warn!(reason, "change refused"),
            CommitError::Broken(_) => {
                tracing::error!(
                    reason,
                    "metadata log failed, no change is accepted until the next start"
                );
                self.parts.health.set("controller", State::Failed(reason.clone()));
                self.failed = Some(reason.clone());
            }
        }
        for waiting in decided {
            self.refused.increment();
            answer(waiting.reply, Err(ProposeError::Storage(reason.clone())));
        }
    }
}

/// Folds the records of one decision in; tells the offset of the last.
fn fold(image: &mut Image, records: &[Record]) -> Option<Offset> {
    for record in records {
        let next = image.offset.plus(1);
        image.apply(next, record);
    }
    (!records.is_empty()).then_some(image.offset)
}

fn answer(reply: oneshot::Sender<Result<Applied, ProposeError>>, result: Result<Applied, ProposeError>) {
    // That nobody waits any more is normal.
    let _ = reply.send(result);
}
