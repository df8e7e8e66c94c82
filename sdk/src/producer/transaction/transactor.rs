//! [`Transactor`]: the task that begins and ends a producer's transactions, one call after the other.
//!
//! Owns the talk with the transaction's coordinator, but for adding partitions, which the sender does as it meets them. It
//! must never end a transaction while a record of it is on its way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_offsets_to_txn::AddOffsetsToTxnRequest;
use headwater_protocol::kafka::end_txn::EndTxnRequest;
use headwater_protocol::kafka::init_producer_id::InitProducerIdRequest;
use headwater_protocol::kafka::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use headwater_protocol::primitives::Str;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::coordinator::{Ask, Coordinator};
use super::state::{End, Flow, Phase};
use super::{Transaction, TransactionError};
use crate::admin::{Coordinated, by_topic};
use crate::client::Client;
use crate::consumer::TopicPartition;
use crate::door::{self, Instant};
use crate::group::GroupMetadata;
use crate::producer::batcher::Shared;
use crate::producer::sequencer::Identity;
use crate::producer::{Flushing, ProducerConfig};

/// The last versions in which the producer has named everything to the coordinator itself.
const END_NAMED_UNTIL: i16 = 4;
const COMMIT_NAMED_UNTIL: i16 = 4;
/// How long aborting what a dropped producer had open may take: its coordinator does so anyway, later.
const LEAVING: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<(), TransactionError>>;

pub(in crate::producer) enum Command {
    Begin {
        reply: Reply,
    },
    SendOffsets {
        group: GroupMetadata,
        offsets: BTreeMap<TopicPartition, Offset>,
        reply: Reply,
    },
    End {
        end: End,
        reply: Reply,
    },
}

pub(in crate::producer) struct Transactor {
    pub(in crate::producer) client: Client,
    pub(in crate::producer) shared: Arc<Shared>,
    pub(in crate::producer) transaction: Arc<Transaction>,
    pub(in crate::producer) coordinator: Arc<Coordinator>,
    pub(in crate::producer) commands: mpsc::Receiver<Command>,
    /// Of the group whose offsets were committed last.
    pub(in crate::producer) group: Option<Coordinator>,
}

impl Transactor {
    /// Runs until told to stop; what is open then is aborted.
    pub(in crate::producer) async fn run(mut self, stopped: CancellationToken) {
        tokio::select! {
            biased;
            () = stopped.cancelled() => return,
            // Where it fails, the first begin tries again and tells.
            _ = self.identify() => {}
        }
        loop {
            let command = tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                command = self.commands.recv() => command,
            };
            let Some(command) = command else { break };
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                () = self.obey(command) => {}
            }
        }
        self.leave().await;
    }

    async fn obey(&mut self, command: Command) {
        // A caller that is gone need not be told.
        match command {
            Command::Begin { reply } => drop(reply.send(self.begin().await)),
            Command::SendOffsets {
                group,
                offsets,
                reply,
            } => {
                let sent = self.send_offsets(&group, &offsets).await;
                let _ = reply.send(sent);
            }
            Command::End { end, reply } => drop(reply.send(self.end(end).await)),
        }
    }

    async fn begin(&mut self) -> Result<(), TransactionError> {
        self.identify().await?;
        self.shared.ledger.forget_failure();
        self.transaction.change(|state| state.begin())
    }

    /// Sees to it that the producer has its transactional id.
    async fn identify(&self) -> Result<(), TransactionError> {
        if !matches!(self.transaction.lock().phase(), Phase::Beginning) {
            return Ok(());
        }
        let (identity, flow) = self.initialize(None, self.deadline()).await?;
        self.transaction.change(|state| state.identified(identity, flow));
        Ok(())
    }

    /// Takes the transactional id, or, with the identity it had `before`, its next epoch.
    async fn initialize(
        &self,
        before: Option<Identity>,
        deadline: Instant,
    ) -> Result<(Identity, Flow), TransactionError> {
        let what = format!("take transactional id {:?}", self.transaction.id);
        let timeout = self.config().transaction_timeout.as_millis();
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(&*self.transaction.id)),
            transaction_timeout_ms: i32::try_from(timeout).unwrap_or(i32::MAX),
            producer_id: before.map_or(-1, |before| before.id.value()),
            producer_epoch: before.map_or(-1, |before| before.epoch.value()),
            ..InitProducerIdRequest::default()
        };
        let ask = Ask {
            request: &request,
            newest: i16::MAX,
            deadline,
        };
        match self
            .coordinator
            .ask(ask, |answer| ErrorCode(answer.error_code))
            .await
        {
            Ok((answer, flow)) => Ok((identity(answer.producer_id, answer.producer_epoch), flow)),
            Err(refusal) => {
                let of = |code| self.transaction.refused_for_good(code, &what);
                let error = refusal.into_error(&what, self.timeout(), of);
                self.transaction.fail(&error);
                Err(error)
            }
        }
    }

    async fn send_offsets(
        &mut self,
        group: &GroupMetadata,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), TransactionError> {
        let (identity, flow) = {
            let state = self.transaction.lock();
            state.may_send()?;
            let identity = state.identity().ok_or(TransactionError::Closed)?;
            (identity, state.flow())
        };
        if offsets.is_empty() {
            return Ok(());
        }
        self.transaction.announce();
        let deadline = self.deadline();
        if flow == Flow::Named {
            self.add_group(identity, &group.group, deadline).await?;
        }
        self.commit_offsets(identity, flow, group, offsets, deadline)
            .await
    }

    /// Tells the coordinator that a group's offsets will be part of the transaction.
    async fn add_group(
        &self,
        identity: Identity,
        group: &str,
        deadline: Instant,
    ) -> Result<(), TransactionError> {
        let what = format!("add the offsets of group {group:?} to the transaction");
        let request = AddOffsetsToTxnRequest {
            transactional_id: Str::from(&*self.transaction.id),
            producer_id: identity.id.value(),
            producer_epoch: identity.epoch.value(),
            group_id: Str::from(group),
            ..AddOffsetsToTxnRequest::default()
        };
        let ask = Ask {
            request: &request,
            newest: i16::MAX,
            deadline,
        };
        let asked = self
            .coordinator
            .ask(ask, |answer| ErrorCode(answer.error_code))
            .await;
        asked.map(drop).map_err(|refusal| {
            refusal.into_error(&what, self.timeout(), |code| {
                self.transaction.refused(code, &what)
            })
        })
    }

    async fn commit_offsets(
        &mut self,
        identity: Identity,
        flow: Flow,
        group: &GroupMetadata,
        offsets: &BTreeMap<TopicPartition, Offset>,
        deadline: Instant,
    ) -> Result<(), TransactionError> {
        let what = format!("commit offsets of group {:?} in the transaction", group.group);
        let request = TxnOffsetCommitRequest {
            transactional_id: Str::from(&*self.transaction.id),
            group_id: Str::from(&*group.group),
            producer_id: identity.id.value(),
            producer_epoch: identity.epoch.value(),
            generation_id: group.generation,
            member_id: Str::from(&*group.member_id),
            group_instance_id: group.instance_id.as_deref().map(Str::from),
            topics: topics(offsets),
            ..TxnOffsetCommitRequest::default()
        };
        let newest = match flow {
            Flow::Named => COMMIT_NAMED_UNTIL,
            Flow::Implied => i16::MAX,
        };
        let ask = Ask {
            request: &request,
            newest,
            deadline,
        };
        let known = self.group.take().filter(|known| known.key() == group.group);
        let coordinator =
            known.unwrap_or_else(|| Coordinator::new(self.client.clone(), Coordinated::Group, &group.group));
        let coordinator = self.group.insert(coordinator);
        let asked = coordinator
            .ask(ask, |answer| {
                let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
                let refused = partitions.find(|partition| partition.error_code != ErrorCode::NONE.0);
                refused.map_or(ErrorCode::NONE, |partition| ErrorCode(partition.error_code))
            })
            .await;
        asked.map(drop).map_err(|refusal| {
            refusal.into_error(&what, self.timeout(), |code| {
                self.transaction.refused(code, &what)
            })
        })
    }

    async fn end(&mut self, end: End) -> Result<(), TransactionError> {
        self.transaction.change(|state| state.end(end))?;
        // Whoever saw the gate open has his record in its batch when he lets go of his topic.
        self.shared.await_appends();
        let deadline = self.deadline();
        let settled = async {
            let _flushing = Flushing::new(&self.shared);
            self.shared.ledger.settled().await;
        };
        if door::timeout_at(deadline, settled).await.is_err() {
            return Err(TransactionError::TimedOut {
                what: "write what was sent".to_owned(),
                timeout: self.timeout(),
                last: "some of it has no answer yet".to_owned(),
            });
        }
        let failure = self.shared.ledger.failure();
        if let (End::Commit, Some(failure)) = (end, &failure) {
            let cause = failure.to_string();
            self.transaction.fail(&TransactionError::MustAbort { cause });
        }
        let (identity, flow, is_announced) = {
            let mut state = self.transaction.lock();
            // Meanwhile it may have turned out that it cannot end so.
            state.end(end)?;
            let identity = state.identity().ok_or(TransactionError::Closed)?;
            (identity, state.flow(), state.is_announced())
        };
        let next = match is_announced {
            true => {
                self.end_announced(end, identity, flow, failure.is_some(), deadline)
                    .await?
            }
            false => (identity, flow),
        };
        self.transaction.change(|state| state.ended(next.0, next.1));
        Ok(())
    }

    /// Has the coordinator end the transaction. Gives as whom the producer goes on.
    async fn end_announced(
        &self,
        end: End,
        mine: Identity,
        flow: Flow,
        has_failed: bool,
        deadline: Instant,
    ) -> Result<(Identity, Flow), TransactionError> {
        let what = match end {
            End::Commit => "commit the transaction",
            End::Abort => "abort the transaction",
        };
        let (request, newest) = self.end_request(end, mine, flow);
        let ask = Ask {
            request: &request,
            newest,
            deadline,
        };
        let ended = self
            .coordinator
            .ask(ask, |answer| ErrorCode(answer.error_code))
            .await;
        let offered = match ended {
            Ok((answer, offered)) if flow == Flow::Implied && answer.producer_id >= 0 => {
                return Ok((identity(answer.producer_id, answer.producer_epoch), offered));
            }
            Ok((_, offered)) => Some(offered),
            // The coordinator has never heard of it after all.
            Err(super::coordinator::Refusal::Code(ErrorCode::INVALID_TXN_STATE))
                if end == End::Abort && flow == Flow::Named =>
            {
                None
            }
            Err(refusal) => {
                let error = refusal.into_error(what, self.timeout(), |code| match end {
                    End::Commit => self.transaction.refused(code, what),
                    End::Abort => self.transaction.refused_for_good(code, what),
                });
                self.transaction.fail(&error);
                return Err(error);
            }
        };
        // Without an epoch of its own the next transaction goes on with the numbers of this one: not where some are missing,
        // nor where it will be of the other flow.
        match offered {
            Some(Flow::Named) if !has_failed => Ok((mine, Flow::Named)),
            Some(_) | None => self.initialize(Some(mine), deadline).await,
        }
    }

    fn end_request(&self, end: End, mine: Identity, flow: Flow) -> (EndTxnRequest, i16) {
        let request = EndTxnRequest {
            transactional_id: Str::from(&*self.transaction.id),
            producer_id: mine.id.value(),
            producer_epoch: mine.epoch.value(),
            committed: end == End::Commit,
            ..EndTxnRequest::default()
        };
        let newest = match flow {
            Flow::Named => END_NAMED_UNTIL,
            Flow::Implied => i16::MAX,
        };
        (request, newest)
    }

    /// Aborts what a dropped producer has left open, so that readers need not wait until its time is out.
    async fn leave(&self) {
        let (identity, flow) = {
            let state = self.transaction.lock();
            match (state.phase(), state.identity()) {
                (Phase::Open | Phase::Broken(_), Some(identity)) if state.is_announced() => {
                    (identity, state.flow())
                }
                _ => return,
            }
        };
        let (request, newest) = self.end_request(End::Abort, identity, flow);
        let ask = Ask {
            request: &request,
            newest,
            deadline: door::now() + LEAVING,
        };
        let ended = self.coordinator.ask(ask, |answer| ErrorCode(answer.error_code));
        // That nobody hears it is no harm.
        let _ = door::timeout_at(door::now() + LEAVING, ended).await;
    }

    fn config(&self) -> &ProducerConfig {
        &self.shared.config
    }

    fn timeout(&self) -> Duration {
        self.config().delivery_timeout
    }

    fn deadline(&self) -> Instant {
        door::now() + self.timeout()
    }
}

fn identity(id: i64, epoch: i16) -> Identity {
    Identity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    }
}

fn topics(offsets: &BTreeMap<TopicPartition, Offset>) -> Vec<TxnOffsetCommitRequestTopic> {
    let keys: Vec<TopicPartition> = offsets.keys().cloned().collect();
    let topics = by_topic(&keys).into_iter().map(|(name, partitions)| {
        let partition = |it: &&TopicPartition| TxnOffsetCommitRequestPartition {
            partition_index: it.partition.value(),
            committed_offset: offsets[*it].value(),
            committed_leader_epoch: -1,
            committed_metadata: Some(Str::default()),
            ..TxnOffsetCommitRequestPartition::default()
        };
        TxnOffsetCommitRequestTopic {
            name: Str::from(name),
            partitions: partitions.iter().map(partition).collect(),
            ..TxnOffsetCommitRequestTopic::default()
        }
    });
    topics.collect()
}
