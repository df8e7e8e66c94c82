//! How whoever delivers reaches the share coordinator of a group: here, or on another node.
//!
//! It asks again where nothing has happened for certain, for a while. What may have happened it never asks for twice.

use super::coordinator::{Ask, Basis, Told};
use super::error::Unkept;
use super::post::SharePost;
use super::remote;
use super::request::Name;
use crate::coordination::Deployment;
use crate::peer::{CallError, Peers};
use crate::sys::Sys;
use headwater_protocol::ids::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// How long is asked again at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pauses between attempts, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) me: NodeId,
    pub(super) sys: Sys,
    pub(super) coordinators: Arc<Deployment<SharePost>>,
    pub(super) peers: Peers,
}

impl Keeper {
    /// Asks the coordinator of a group, wherever it is. If the future is dropped, it may have happened.
    pub(super) async fn ask(&self, group: &Name, ask: Ask) -> Result<Told, Unkept> {
        let clock = &self.sys.clock;
        let deadline = clock.now() + PATIENCE;
        let mut pause = RETRY_MIN;
        loop {
            let told = self.ask_once(group, ask.clone()).await;
            match told {
                Err(Unkept::Again) if clock.now() + pause < deadline => {}
                told => return told,
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn ask_once(&self, group: &Name, ask: Ask) -> Result<Told, Unkept> {
        let node = self.coordinators.coordinator_of(group).await;
        let node = node.map_err(|_| Unkept::Again)?;
        if node == self.me {
            return self.ask_here(group, ask).await;
        }
        remote::ask(&self.peers, node, group, ask).await
    }

    /// Asks the coordinator of a group, if it is here.
    pub(super) async fn ask_here(&self, group: &Name, ask: Ask) -> Result<Told, Unkept> {
        let handle = self.coordinators.get(group).ok_or(Unkept::Again)?;
        let (told, basis) = handle.ask(Name::clone(group), ask).await?;
        if basis == Basis::Known && !self.coordinators.is_in_office(group, &handle).await {
            return Err(Unkept::Again);
        }
        Ok(told)
    }
}

/// What a call that failed means for what was asked.
pub(super) fn judge(error: &CallError) -> Unkept {
    match error {
        CallError::Unknown(_) | CallError::Unreachable { .. } | CallError::Refused { .. } => Unkept::Again,
        CallError::Lost { .. } | CallError::TimedOut(_) | CallError::Failed { .. } => Unkept::Unknown,
    }
}
