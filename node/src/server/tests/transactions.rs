//! Transactions through the wire, in both flows: what is seen, what is refused, and what a group commits with them.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_offsets_to_txn::AddOffsetsToTxnRequest;
use headwater_protocol::kafka::add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnTopic};
use headwater_protocol::kafka::describe_transactions::DescribeTransactionsRequest;
use headwater_protocol::kafka::end_txn::EndTxnRequest;
use headwater_protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use headwater_protocol::kafka::list_transactions::ListTransactionsRequest;
use headwater_protocol::kafka::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use headwater_protocol::kafka::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};

use super::*;

const ID: Str = Str::from_static("orders");
const GROUP: Str = Str::from_static("readers");

/// Asks until a coordinator that is on its way is there, or the last transaction is done with.
macro_rules! until_done {
    ($client:expr, $request:expr, $version:expr, $code:expr) => {{
        loop {
            let answer = $client.call($request, $version).await;
            let code = ErrorCode($code(&answer));
            let is_on_its_way = [
                ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
                ErrorCode::NOT_COORDINATOR,
                ErrorCode::CONCURRENT_TRANSACTIONS,
                ErrorCode::UNSTABLE_OFFSET_COMMIT,
            ];
            if !is_on_its_way.contains(&code) {
                break answer;
            }
            tokio::task::yield_now().await;
        }
    }};
}

impl Client {
    async fn begin(&mut self, version: i16) -> InitProducerIdResponse {
        let find = FindCoordinatorRequest {
            key_type: 1,
            coordinator_keys: vec![ID],
            ..FindCoordinatorRequest::default()
        };
        let found = self.call(&find, 6).await;
        assert_eq!(found.coordinators[0].error_code, 0);
        let request = InitProducerIdRequest {
            transactional_id: Some(ID),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let code = |answer: &InitProducerIdResponse| answer.error_code;
        let begun = until_done!(self, &request, version, code);
        assert_eq!(begun.error_code, 0);
        begun
    }

    async fn add(&mut self, topic: &Topic, producer: &InitProducerIdResponse) -> i16 {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: ID,
            v3_and_below_producer_id: producer.producer_id,
            v3_and_below_producer_epoch: producer.producer_epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: Str::from(&*topic.name),
                partitions: vec![0],
                ..AddPartitionsToTxnTopic::default()
            }],
            ..AddPartitionsToTxnRequest::default()
        };
        let answer = self.call(&request, 3).await;
        answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    async fn send_in(
        &mut self,
        topic: &Topic,
        producer: &InitProducerIdResponse,
        sequence: i32,
        value: &str,
        version: i16,
    ) -> i16 {
        let options = BatchOptions {
            producer: ProducerStamp {
                id: ProducerId(producer.producer_id),
                epoch: ProducerEpoch(producer.producer_epoch),
                base_sequence: sequence,
            },
            transactional: true,
            ..BatchOptions::PLAIN
        };
        let mut request = produce(topic, 0, batch_with(options, &[value]), -1);
        request.transactional_id = Some(ID);
        one(self.call(&request, version).await).error_code
    }

    async fn end(
        &mut self,
        producer: &InitProducerIdResponse,
        committed: bool,
        version: i16,
    ) -> headwater_protocol::kafka::end_txn::EndTxnResponse {
        let request = EndTxnRequest {
            transactional_id: ID,
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            committed,
            ..EndTxnRequest::default()
        };
        self.call(&request, version).await
    }

    /// What a `read_committed` consumer gets: values, and which producers' transactions were aborted.
    async fn committed(&mut self, topic: &Topic) -> (Vec<String>, usize) {
        let request = FetchRequest {
            topics: vec![fetch_topic(topic, &[0], 0)],
            isolation_level: 1,
            ..fetch_now()
        };
        let data = only(self.call(&request, 12).await);
        let aborted = data.aborted_transactions.as_ref().map_or(0, Vec::len);
        let values = values(&data).into_iter().map(|(_, value)| value);
        (values.collect(), aborted)
    }

    async fn stage(&mut self) -> String {
        let request = DescribeTransactionsRequest {
            transactional_ids: vec![ID],
            ..DescribeTransactionsRequest::default()
        };
        let answer = self.call(&request, 0).await;
        answer.transaction_states[0].transaction_state.to_string()
    }

    async fn done(&mut self, stage: &str) {
        while self.stage().await != stage {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn the_old_flow_shows_what_was_committed_and_hides_what_was_not() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let producer = client.begin(4).await;
    let unverified = client.send_in(&topic, &producer, 0, "early", 11).await;
    assert_eq!(ErrorCode(unverified), ErrorCode::INVALID_TXN_STATE);
    assert_eq!(client.add(&topic, &producer).await, 0);
    assert_eq!(client.send_in(&topic, &producer, 0, "one", 11).await, 0);
    assert_eq!(client.committed(&topic).await, (vec![], 0));
    assert_eq!(client.end(&producer, true, 3).await.error_code, 0);
    client.done("CompleteCommit").await;
    assert_eq!(client.committed(&topic).await.0, ["one"]);

    assert_eq!(client.add(&topic, &producer).await, 0);
    assert_eq!(client.send_in(&topic, &producer, 1, "two", 11).await, 0);
    assert_eq!(client.end(&producer, false, 3).await.error_code, 0);
    client.done("CompleteAbort").await;
    let (values, aborted) = client.committed(&topic).await;
    // The consumer hides what is named as aborted.
    assert_eq!((values, aborted), (vec!["one".to_owned(), "two".to_owned()], 1));

    // Another process takes over.
    let next = client.begin(4).await;
    assert_eq!(next.producer_id, producer.producer_id);
    assert_eq!(next.producer_epoch, producer.producer_epoch + 1);
    let fenced = ErrorCode(client.add(&topic, &producer).await);
    assert_eq!(fenced, ErrorCode::PRODUCER_FENCED);
    let fenced = ErrorCode(client.end(&producer, true, 3).await.error_code);
    assert_eq!(fenced, ErrorCode::PRODUCER_FENCED);
}

#[tokio::test]
async fn the_new_flow_needs_no_word_to_the_coordinator_and_has_an_epoch_for_each_transaction() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let mut producer = client.begin(5).await;
    for (number, commit) in [true, false, true].into_iter().enumerate() {
        let value = format!("{number}");
        // Of an older epoch, a batch is in no transaction.
        assert_eq!(client.send_in(&topic, &producer, 0, &value, 12).await, 0);
        let ended = client.end(&producer, commit, 5).await;
        assert_eq!(ended.error_code, 0);
        assert_eq!(ended.producer_epoch, producer.producer_epoch + 1);
        client
            .done(if commit { "CompleteCommit" } else { "CompleteAbort" })
            .await;
        let late = client.send_in(&topic, &producer, 1, "late", 12).await;
        assert_eq!(ErrorCode(late), ErrorCode::INVALID_PRODUCER_EPOCH);
        producer.producer_epoch = ended.producer_epoch;
    }
    assert_eq!(client.committed(&topic).await.1, 1);
    let request = ListTransactionsRequest {
        state_filters: vec![Str::from_static("CompleteCommit"), Str::from_static("Unheard")],
        ..ListTransactionsRequest::default()
    };
    let listed = client.call(&request, 1).await;
    assert_eq!(listed.transaction_states.len(), 1);
    assert_eq!(listed.transaction_states[0].transactional_id, ID);
    assert_eq!(listed.unknown_state_filters, [Str::from_static("Unheard")]);
}

#[tokio::test]
async fn offsets_are_seen_with_their_transaction() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let producer = client.begin(4).await;
    let fetch = |require_stable: bool| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: Str::from(&*topic.name),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        require_stable,
        ..OffsetFetchRequest::default()
    };
    let found = |answer: headwater_protocol::kafka::offset_fetch::OffsetFetchResponse| {
        let partition = &answer.groups[0].topics[0].partitions[0];
        (ErrorCode(partition.error_code), partition.committed_offset)
    };
    for (offset, commit, seen) in [(5, true, 5), (9, false, 5), (11, true, 11)] {
        let add = AddOffsetsToTxnRequest {
            transactional_id: ID,
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            group_id: GROUP,
            ..AddOffsetsToTxnRequest::default()
        };
        let code = |answer: &headwater_protocol::kafka::add_offsets_to_txn::AddOffsetsToTxnResponse| {
            answer.error_code
        };
        assert_eq!(until_done!(client, &add, 3, code).error_code, 0);
        let commit_offsets = TxnOffsetCommitRequest {
            transactional_id: ID,
            group_id: GROUP,
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: Str::from(&*topic.name),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
                ..TxnOffsetCommitRequestTopic::default()
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let code = |answer: &headwater_protocol::kafka::txn_offset_commit::TxnOffsetCommitResponse| {
            answer.topics[0].partitions[0].error_code
        };
        let committed = until_done!(client, &commit_offsets, 3, code);
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        let before = found(client.call(&fetch(false), 9).await);
        assert_ne!(before.1, offset, "it is not seen before its transaction ends");
        let unstable = found(client.call(&fetch(true), 9).await);
        assert_eq!(unstable.0, ErrorCode::UNSTABLE_OFFSET_COMMIT);
        assert_eq!(client.end(&producer, commit, 3).await.error_code, 0);
        let code = |answer: &headwater_protocol::kafka::offset_fetch::OffsetFetchResponse| {
            answer.groups[0].topics[0].partitions[0].error_code
        };
        let after = found(until_done!(client, &fetch(true), 9, code));
        assert_eq!(after, (ErrorCode::NONE, seen));
        client
            .done(if commit { "CompleteCommit" } else { "CompleteAbort" })
            .await;
    }
}
