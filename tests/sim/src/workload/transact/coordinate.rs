//! What clients ask the coordinator of their transactional id: to be its producer, to take partitions in, to end.

use std::collections::BTreeMap;

use headwater_protocol::kafka::add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnTopic};
use headwater_protocol::kafka::end_txn::{EndTxnRequest, EndTxnResponse};
use headwater_protocol::kafka::init_producer_id::InitProducerIdRequest;
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::Str;

use super::{Flow, Producer, Stop, Tenure, Transactor, id_of};
use crate::client::{Coordinated, Partition};
use crate::invariants::Violation;
use crate::invariants::transactions::TransactionNumber;

/// What became of one question.
pub(super) enum Asked<T> {
    Answer(T),
    /// Nobody knows whom to ask.
    NotSent,
    /// It may have been heard, or will be.
    Unanswered,
}

/// What an end that was asked for has come to.
enum Ending {
    Done(EndTxnResponse),
    /// Not now, and nothing was changed.
    Refused,
    Unknown,
    Stop(Stop),
}

impl Transactor {
    /// Asks whoever coordinates `what`, once.
    pub(super) async fn ask<R: Request>(
        &mut self,
        what: &Coordinated,
        request: &R,
        version: i16,
    ) -> Asked<R::Response> {
        let Some(address) = self.client.coordinator(what).await else {
            return Asked::NotSent;
        };
        match self.client.call(&address, request, version).await {
            Ok(answer) => Asked::Answer(answer),
            Err(error) => {
                self.client.note(format_args!("asks {what:?}: {error}"));
                self.client.forget_coordinator(what);
                Asked::Unanswered
            }
        }
    }

    fn coordinated(&self) -> Coordinated {
        Coordinated::Transaction(id_of(self.owner))
    }

    /// Becomes the producer of its transactional id. `before`: goes on as the next epoch of this one (KIP-360).
    pub(super) async fn take_over(
        &mut self,
        before: Option<Producer>,
        timeout_ms: u64,
    ) -> Result<Producer, Stop> {
        let Producer { id, epoch } = before.unwrap_or(Producer { id: -1, epoch: -1 });
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(id_of(self.owner).as_str())),
            transaction_timeout_ms: i32::try_from(timeout_ms).unwrap_or(i32::MAX),
            producer_id: id,
            producer_epoch: epoch,
            ..InitProducerIdRequest::default()
        };
        let what = self.coordinated();
        loop {
            if let Asked::Answer(answer) = self.ask(&what, &request, 4).await {
                let (id, epoch) = (answer.producer_id, answer.producer_epoch);
                let code = ErrorCode(answer.error_code);
                self.client
                    .note(format_args!("takes {what:?} over: {code:?} as {id}/{epoch}"));
                match code {
                    ErrorCode::NONE => {
                        self.oracle.owned_by(self.owner, id, epoch);
                        self.control.count("takeovers");
                        return Ok(Producer { id, epoch });
                    }
                    ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH => {
                        return Err(Stop::Replaced);
                    }
                    ErrorCode::CONCURRENT_TRANSACTIONS => {}
                    _ => self.client.forget_coordinator(&what),
                }
            }
            self.again().await?;
        }
    }

    /// Makes partitions part of the transaction, where that is the client's to do.
    pub(super) async fn name_partitions(
        &mut self,
        tenure: &Tenure,
        partitions: &[Partition],
    ) -> Result<(), Stop> {
        if tenure.flow == Flow::Leader {
            return Ok(());
        }
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            by_topic
                .entry(&partition.topic)
                .or_default()
                .push(partition.index);
        }
        let topic = |(name, partitions): (&str, Vec<i32>)| AddPartitionsToTxnTopic {
            name: Str::from(name),
            partitions,
            ..AddPartitionsToTxnTopic::default()
        };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: Str::from(id_of(self.owner).as_str()),
            v3_and_below_producer_id: tenure.producer.id,
            v3_and_below_producer_epoch: tenure.producer.epoch,
            v3_and_below_topics: by_topic.into_iter().map(topic).collect(),
            ..AddPartitionsToTxnRequest::default()
        };
        let what = self.coordinated();
        loop {
            if let Asked::Answer(answer) = self.ask(&what, &request, 3).await {
                let topics = answer.results_by_topic_v3_and_below.iter();
                let codes = topics
                    .flat_map(|topic| &topic.results_by_partition)
                    .map(|partition| ErrorCode(partition.partition_error_code))
                    .filter(|code| *code != ErrorCode::OPERATION_NOT_ATTEMPTED);
                let refused = codes.clone().find(|code| *code != ErrorCode::NONE);
                if refused.is_none() && codes.count() == partitions.len() {
                    return Ok(());
                }
                self.heed(refused.unwrap_or(ErrorCode::NONE), tenure, &what)?;
            }
            self.again().await?;
        }
    }

    /// What a refusal by a coordinator means: to stop, or to ask again.
    pub(super) fn heed(&mut self, code: ErrorCode, tenure: &Tenure, what: &Coordinated) -> Result<(), Stop> {
        let Producer { id, epoch } = tenure.producer;
        self.client
            .note(format_args!("asks {what:?} as {id}/{epoch}: {code:?}"));
        match code {
            ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH => Err(Stop::Replaced),
            ErrorCode::INVALID_TXN_STATE => Err(Stop::Undone),
            ErrorCode::INVALID_PRODUCER_ID_MAPPING => {
                let what = format!("x{} is not known any more as {id}/{epoch}", self.owner);
                let violation = Violation::new("a transactional id is remembered", what);
                self.oracle.wrong(violation);
                Err(Stop::Replaced)
            }
            ErrorCode::CONCURRENT_TRANSACTIONS | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => Ok(()),
            _ => {
                self.client.forget_coordinator(what);
                Ok(())
            }
        }
    }

    /// Ends the transaction one way or the other, and asks until it is answered.
    pub(super) async fn end(
        &mut self,
        tenure: &mut Tenure,
        of: TransactionNumber,
        is_commit: bool,
    ) -> Result<(), Stop> {
        let Producer { id, epoch } = tenure.producer;
        let request = EndTxnRequest {
            transactional_id: Str::from(id_of(self.owner).as_str()),
            producer_id: id,
            producer_epoch: epoch,
            committed: is_commit,
            ..EndTxnRequest::default()
        };
        if is_commit {
            self.oracle.commit_is_asked(of);
        }
        // Whether nothing that was sent can have ended it.
        let mut is_certain = true;
        loop {
            let is_replaced = self.oracle.is_replaced(self.owner, id, epoch);
            match self.ask_to_end(tenure, of, &request).await {
                Ending::Done(answer) => {
                    // One that asks again may be told what came of it before.
                    if is_replaced && is_certain {
                        let what = format!("{of} was ended as {id}/{epoch} after another one had taken over");
                        let violation = Violation::new("who was replaced ends nothing", what);
                        self.oracle.wrong(violation);
                    }
                    return self.ended(tenure, of, is_commit, &answer);
                }
                Ending::Stop(stop) => {
                    if is_commit && is_certain {
                        self.oracle.commit_is_refused(of);
                    }
                    return Err(stop);
                }
                Ending::Refused => {}
                Ending::Unknown => {
                    is_certain = false;
                    tenure.is_doubtful = true;
                }
            }
            self.again().await?;
        }
    }

    async fn ask_to_end(
        &mut self,
        tenure: &mut Tenure,
        of: TransactionNumber,
        request: &EndTxnRequest,
    ) -> Ending {
        let what = self.coordinated();
        let version = match tenure.flow {
            Flow::Client => 4,
            Flow::Leader => 5,
        };
        let answer = match self.ask(&what, request, version).await {
            Asked::Answer(answer) => answer,
            Asked::NotSent => return Ending::Refused,
            Asked::Unanswered => return Ending::Unknown,
        };
        let (code, commit) = (ErrorCode(answer.error_code), request.committed);
        let (id, epoch) = (request.producer_id, request.producer_epoch);
        self.client.note(format_args!(
            "ends {of} as {id}/{epoch}, commit {commit}: {code:?}"
        ));
        match code {
            ErrorCode::NONE => Ending::Done(answer),
            ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH => Ending::Stop(Stop::Replaced),
            // Nothing came into it: there is none.
            ErrorCode::INVALID_TXN_STATE if !commit && tenure.flow == Flow::Client => {
                tenure.is_doubtful = true;
                Ending::Done(answer)
            }
            ErrorCode::INVALID_TXN_STATE | ErrorCode::INVALID_PRODUCER_ID_MAPPING => {
                let what = format!("{of} cannot be ended as {id}/{epoch}, commit {commit}: {code:?}");
                let violation = Violation::new("what was taken in is part of the transaction", what);
                self.oracle.wrong(violation);
                Ending::Stop(Stop::Replaced)
            }
            ErrorCode::CONCURRENT_TRANSACTIONS | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => Ending::Refused,
            _ => {
                self.client.forget_coordinator(&what);
                Ending::Unknown
            }
        }
    }

    fn ended(
        &mut self,
        tenure: &mut Tenure,
        of: TransactionNumber,
        is_commit: bool,
        answer: &EndTxnResponse,
    ) -> Result<(), Stop> {
        match is_commit {
            true => {
                self.oracle.committed(of);
                self.control.count("commits");
            }
            false => self.control.count("aborts"),
        }
        if tenure.flow == Flow::Leader {
            let (id, epoch) = (answer.producer_id, answer.producer_epoch);
            self.oracle.owned_by(self.owner, id, epoch);
            self.goes_on_as(tenure, Producer { id, epoch });
        }
        Ok(())
    }
}
