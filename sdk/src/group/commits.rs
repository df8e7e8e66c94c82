//! What a group has committed: asked for when a partition is given to this member, and written as it goes on.
//!
//! Owns the order of commits: one at a time, so that an older one never comes behind a newer one. It must never commit
//! an offset that the caller has not named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_protocol::ids::Offset;

use crate::admin::{Committer, Isolation};
use crate::client::Client;
use crate::consumer::TopicPartition;
use crate::error::Error;

pub(super) struct Commits {
    client: Client,
    group: String,
    /// Whether commits that a transaction has open are waited for.
    isolation: Isolation,
    /// Held by whoever commits.
    turn: tokio::sync::Mutex<()>,
    /// What the group has, as far as it is known here.
    kept: Mutex<BTreeMap<TopicPartition, Offset>>,
}

impl Commits {
    pub(super) fn new(client: Client, group: String, isolation: Isolation) -> Self {
        Self {
            client,
            group,
            isolation,
            turn: tokio::sync::Mutex::new(()),
            kept: Mutex::default(),
        }
    }

    /// Commits what is not committed yet. A dropped future may have committed it.
    pub(super) async fn commit(
        &self,
        who: &Committer,
        mut offsets: BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        {
            let kept = self.kept();
            offsets.retain(|it, offset| kept.get(it) != Some(offset));
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let what = format!("commit offsets of group {:?}", self.group);
        let admin = self.client.admin();
        admin.commit_as(who, &what, &self.group, &offsets).await?;
        self.kept().extend(offsets);
        Ok(())
    }

    /// Whether something of this would be new.
    pub(super) fn differs(&self, it: &TopicPartition, offset: Offset) -> bool {
        self.kept().get(it) != Some(&offset)
    }

    /// What is committed of partitions that are this member's now.
    pub(super) async fn fetch(
        &self,
        wanted: &BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
        let wanted: Vec<TopicPartition> = wanted.iter().cloned().collect();
        let admin = self.client.admin();
        let found = admin
            .offsets_of(&self.group, Some(&wanted), self.isolation)
            .await?;
        let found: BTreeMap<_, _> = found.into_iter().map(|(it, kept)| (it, kept.offset)).collect();
        self.kept()
            .extend(found.iter().map(|(it, offset)| (it.clone(), *offset)));
        Ok(found)
    }

    /// A partition is not this member's any more: others commit of it.
    pub(super) fn forget(&self, it: &TopicPartition) {
        self.kept().remove(it);
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Offset>> {
        // No code panics while it holds the lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
