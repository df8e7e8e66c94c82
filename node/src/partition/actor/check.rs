//! The check of what a start has believed: the log is read with its checksums, beside the partition's task, from where the producers'
//! snapshot was taken. What is damaged goes into the book, where those who repair look.
//!
//! It must never keep the task, nor the log, from anything else.

use super::super::shared::Shared;
use super::Actor;
use headwater_protocol::ids::Offset;
use std::pin::Pin;
use std::sync::Arc;

/// A check under way.
pub(in crate::partition) type Check = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::partition) enum Outcome {
    Good,
    /// Or it could not be read. A repair, or the next check, tells more.
    Damaged,
}

/// The outcome of a check, once there is one.
pub(super) async fn outcome_of(check: &mut Option<Check>) -> Outcome {
    match check {
        Some(check) => check.await,
        None => std::future::pending().await,
    }
}

impl Actor {
    /// Has read what readers wait for. Where nobody else holds the log nothing could be made good, and the headers have to do.
    pub(super) fn begin_check(&mut self) {
        self.check = None;
        if self.grounds.stable_until().is_none() {
            return;
        }
        if !self.shared.has_others() {
            self.grounds.make_do();
            return;
        }
        let from = self.grounds.believed_from();
        self.check = Some(Box::pin(check(Arc::clone(&self.shared), from)));
    }

    pub(super) async fn on_checked(&mut self, outcome: Outcome) {
        self.check = None;
        match outcome {
            // Those who repair it have it read again.
            Outcome::Damaged => return,
            Outcome::Good if self.grounds.lack() => self.read_again().await,
            Outcome::Good => self.grounds.confirm(),
        }
        self.publish();
    }
}

async fn check(shared: Arc<Shared>, from: Offset) -> Outcome {
    let Some(reader) = shared.reader.clone() else {
        return Outcome::Damaged;
    };
    let (mut outcome, mut next) = (Outcome::Good, Some(reader.begin_scrub_at(from)));
    while let Some(at) = next {
        let Some(scrubbed) = shared.scrub(&shared.means.tasks, &reader, at).await else {
            return Outcome::Damaged;
        };
        if scrubbed.damaged.is_some() {
            outcome = Outcome::Damaged;
        }
        next = scrubbed.next;
    }
    outcome
}
