package main

import (
	"context"
	"errors"
	"time"

	"compat/driver"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func transactional(name string) (*kgo.Client, error) {
	return client(
		kgo.TransactionalID(name), kgo.DefaultProduceTopic(name), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
}

// put sends a record in a new transaction, or in the one that is open.
func put(it *kgo.Client, partition int32, value string) error {
	ctx, cancel := patient()
	defer cancel()
	record := kgo.StringRecord(value)
	record.Partition = partition
	return it.ProduceSync(ctx, record).FirstErr()
}

func end(it *kgo.Client, how kgo.TransactionEndTry) error {
	ctx, cancel := patient()
	defer cancel()
	return it.EndTransaction(ctx, how)
}

func reader(name string, partition int32, isolation kgo.IsolationLevel) (*kgo.Client, error) {
	start := map[string]map[int32]kgo.Offset{name: {partition: kgo.NewOffset().AtStart()}}
	return client(kgo.ConsumePartitions(start), kgo.FetchIsolationLevel(isolation))
}

func expectValues(name string, partition int32, isolation kgo.IsolationLevel, wanted []string) error {
	it, err := reader(name, partition, isolation)
	if err != nil {
		return err
	}
	defer it.Close()
	records, err := collect(it, len(wanted))
	if err != nil {
		return err
	}
	var found []string
	for _, record := range records {
		found = append(found, string(record.Value))
	}
	return driver.Expect(found, wanted, "what is read")
}

func txCommit() error {
	name, err := topic("tx-commit", 2)
	if err != nil {
		return err
	}
	it, err := transactional(name)
	if err != nil {
		return err
	}
	defer it.Close()
	if err := errors.Join(it.BeginTransaction(), put(it, 0, "a"), put(it, 1, "b")); err != nil {
		return err
	}
	early, err := reader(name, 0, kgo.ReadCommitted())
	if err != nil {
		return err
	}
	defer early.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := driver.Expect(len(early.PollFetches(ctx).Records()), 0, "records of an open transaction"); err != nil {
		return err
	}
	if err := end(it, kgo.TryCommit); err != nil {
		return err
	}
	return errors.Join(
		expectValues(name, 0, kgo.ReadCommitted(), []string{"a"}), expectValues(name, 1, kgo.ReadCommitted(), []string{"b"}),
	)
}

func txAbort() error {
	name, err := topic("tx-abort", 1)
	if err != nil {
		return err
	}
	it, err := transactional(name)
	if err != nil {
		return err
	}
	defer it.Close()
	for _, value := range []string{"a", "aborted", "b"} {
		how := kgo.TransactionEndTry(value != "aborted")
		if err := errors.Join(it.BeginTransaction(), put(it, 0, value), end(it, how)); err != nil {
			return err
		}
	}
	return errors.Join(
		expectValues(name, 0, kgo.ReadCommitted(), []string{"a", "b"}),
		expectValues(name, 0, kgo.ReadUncommitted(), []string{"a", "aborted", "b"}),
	)
}

// step reads some records and writes them elsewhere, in one transaction with where it stands.
func step(from, to string, first int64, count int, how kgo.TransactionEndTry) error {
	it, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(driver.Bootstrap...), kgo.TransactionalID(to), kgo.DefaultProduceTopic(to), kgo.ConsumerGroup(from+"-group"),
		kgo.ConsumeTopics(from), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(time.Second),
	)
	if err != nil {
		return err
	}
	defer it.Close()
	ctx, cancel := patient()
	defer cancel()
	if err := it.Begin(); err != nil {
		return err
	}
	var records []*kgo.Record
	for len(records) < count {
		fetches := it.PollRecords(ctx, count-len(records))
		if err := fetches.Err(); err != nil {
			return err
		}
		records = append(records, fetches.Records()...)
	}
	if err := driver.Expect(records[0].Offset, first, "where the group goes on"); err != nil {
		return err
	}
	for _, record := range records {
		it.Produce(ctx, &kgo.Record{Value: record.Value}, nil)
	}
	if err := it.Client().Flush(ctx); err != nil {
		return err
	}
	committed, err := it.End(ctx, how)
	return errors.Join(err, driver.Expect(committed, bool(how), "whether it is committed"))
}

func txOffsets() error {
	from, err := topic("tx-from", 1)
	if err != nil {
		return err
	}
	to, err := topic("tx-to", 1)
	if err != nil {
		return err
	}
	sent := driver.Values("tx")
	if err := send(from, of(sent)); err != nil {
		return err
	}
	for _, it := range []struct {
		first int64
		count int
		how   kgo.TransactionEndTry
	}{{0, 100, kgo.TryCommit}, {100, 100, kgo.TryAbort}, {100, 200, kgo.TryCommit}} {
		if err := step(from, to, it.first, it.count, it.how); err != nil {
			return err
		}
	}
	return errors.Join(expectValues(to, 0, kgo.ReadCommitted(), sent), expectCommitted(from, len(sent)))
}

func expectCommitted(name string, wanted int) error {
	return withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		committed, err := admin.FetchOffsets(ctx, name+"-group")
		if err != nil {
			return err
		}
		offset, _ := committed.Lookup(name, 0)
		return driver.Expect(offset.At, wanted, "what is committed")
	})
}

func txFencing() error {
	name, err := topic("tx-fencing", 1)
	if err != nil {
		return err
	}
	older, err := transactional(name)
	if err != nil {
		return err
	}
	defer older.Close()
	if err := errors.Join(older.BeginTransaction(), put(older, 0, "older")); err != nil {
		return err
	}
	newer, err := transactional(name)
	if err != nil {
		return err
	}
	defer newer.Close()
	if err := errors.Join(newer.BeginTransaction(), put(newer, 0, "newer")); err != nil {
		return err
	}
	refused := end(older, kgo.TryCommit)
	if !errors.Is(refused, kerr.ProducerFenced) && !errors.Is(refused, kerr.InvalidProducerEpoch) {
		return driver.Expect(refused, kerr.ProducerFenced, "why the older one is refused")
	}
	if err := end(newer, kgo.TryCommit); err != nil {
		return err
	}
	return expectValues(name, 0, kgo.ReadCommitted(), []string{"newer"})
}

func adminTransactions() error {
	name, err := topic("tx-admin", 1)
	if err != nil {
		return err
	}
	it, err := transactional(name)
	if err != nil {
		return err
	}
	defer it.Close()
	if err := errors.Join(it.BeginTransaction(), put(it, 0, "hanging")); err != nil {
		return err
	}
	if err := withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		return tellOfTransaction(ctx, admin, name)
	}); err != nil {
		return err
	}
	if err := errors.Join(end(it, kgo.TryAbort), it.BeginTransaction(), put(it, 0, "after it"), end(it, kgo.TryCommit)); err != nil {
		return err
	}
	return expectValues(name, 0, kgo.ReadCommitted(), []string{"after it"})
}

// tellOfTransaction looks at an open one from each side, and ends it by force.
func tellOfTransaction(ctx context.Context, admin *kadm.Client, name string) error {
	described, err := admin.DescribeTransactions(ctx, name)
	if err != nil {
		return err
	}
	if err := driver.Expect(described[name].State, "Ongoing", "its state"); err != nil {
		return err
	}
	if err := driver.Eventually(func() error {
		listed, err := admin.ListTransactions(ctx, nil, []string{"Ongoing"})
		return errors.Join(err, driver.Expect(listed[name].TxnID, name, "it is listed"))
	}); err != nil {
		return err
	}
	var where kadm.TopicsSet
	where.Add(name, 0)
	producers, err := admin.DescribeProducers(ctx, where)
	if err != nil {
		return err
	}
	active := producers.SortedProducers()
	if err := driver.Expect(len(active), 1, "producers"); err != nil {
		return err
	}
	if err := driver.Expect(active[0].CurrentTxnStartOffset, 0, "where its transaction begins"); err != nil {
		return err
	}
	abort := kadm.TxnMarkers{
		ProducerID: active[0].ProducerID, ProducerEpoch: active[0].ProducerEpoch,
		CoordinatorEpoch: active[0].CoordinatorEpoch, Topics: where,
	}
	_, err = admin.WriteTxnMarkers(ctx, abort)
	return err
}

func nodeKilled(tag string, options []kgo.Opt) error {
	name, err := topic(tag, 1)
	if err != nil {
		return err
	}
	producer, err := client(kgo.DefaultProduceTopic(name), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer producer.Close()
	consumer, _, err := member(name, name+"-group", options)
	if err != nil {
		return err
	}
	defer consumer.Close()
	var failed error
	send := func(value string) error {
		producer.Produce(context.Background(), kgo.StringRecord(value), func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
		return nil
	}
	var last []*kgo.Record
	poll := func(found driver.Found) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		defer cancel()
		// What stands in the way is gone when the node is back.
		for _, record := range consumer.PollFetches(ctx).Records() {
			found[record.Offset], last = string(record.Value), []*kgo.Record{record}
		}
		return nil
	}
	count, err := driver.WhileKilled(func() (int32, error) { return leader(name) }, send, poll)
	if err != nil {
		return err
	}
	ctx, cancel := patient()
	defer cancel()
	if err := errors.Join(producer.Flush(ctx), failed, commit(consumer, last)); err != nil {
		return err
	}
	return expectCommitted(name, count)
}

func nodeKilledConsumerProtocol() error {
	if err := nodeKilled("killed-consumer", consumerProtocol); err != nil {
		return err
	}
	return expectConsumerProtocol("killed-consumer")
}

func leader(name string) (node int32, err error) {
	err = withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		described, err := admin.ListTopics(ctx, name)
		node = described[name].Partitions[0].Leader
		return err
	})
	return node, err
}
