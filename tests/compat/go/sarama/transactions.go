package main

import (
	"errors"
	"time"

	"compat/driver"

	"github.com/IBM/sarama"
)

func transactional(name string) (sarama.SyncProducer, error) {
	config := settings()
	config.Producer.Idempotent = true
	config.Producer.Transaction.ID = name
	config.Net.MaxOpenRequests = 1
	return sarama.NewSyncProducer(driver.Bootstrap, config)
}

func put(it sarama.SyncProducer, name string, partition int32, value string) error {
	_, _, err := it.SendMessage(&sarama.ProducerMessage{Topic: name, Partition: partition, Value: sarama.StringEncoder(value)})
	return err
}

func expectValues(name string, partition int32, isolation sarama.IsolationLevel, wanted []string) error {
	config := settings()
	config.Consumer.IsolationLevel = isolation
	messages, err := readFrom(name, partition, len(wanted), config)
	if err != nil {
		return err
	}
	var found []string
	for _, message := range messages {
		found = append(found, string(message.Value))
	}
	return driver.Expect(found, wanted, "what is read")
}

func expectNothing(name string) error {
	config := settings()
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	consumer, err := sarama.NewConsumer(driver.Bootstrap, config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(name, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer partition.Close()
	select {
	case <-partition.Messages():
		return errors.New("a record of an open transaction is read")
	case <-time.After(500 * time.Millisecond):
		return nil
	}
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
	if err := errors.Join(it.BeginTxn(), put(it, name, 0, "a"), put(it, name, 1, "b"), expectNothing(name), it.CommitTxn()); err != nil {
		return err
	}
	return errors.Join(
		expectValues(name, 0, sarama.ReadCommitted, []string{"a"}), expectValues(name, 1, sarama.ReadCommitted, []string{"b"}),
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
		end := it.CommitTxn
		if value == "aborted" {
			end = it.AbortTxn
		}
		if err := errors.Join(it.BeginTxn(), put(it, name, 0, value), end()); err != nil {
			return err
		}
	}
	return errors.Join(
		expectValues(name, 0, sarama.ReadCommitted, []string{"a", "b"}),
		expectValues(name, 0, sarama.ReadUncommitted, []string{"a", "aborted", "b"}),
	)
}

// step reads some records and writes them elsewhere, in one transaction with where it stands.
func step(producer sarama.SyncProducer, from, to string, first int64, count int, commits bool) error {
	it, err := join(from, from+"-group", 0)
	if err != nil {
		return err
	}
	defer it.leave()
	messages, err := it.take(count)
	if err != nil {
		return err
	}
	if err := driver.Expect(messages[0].Offset, first, "where the group goes on"); err != nil {
		return err
	}
	if err := producer.BeginTxn(); err != nil {
		return err
	}
	var copies []*sarama.ProducerMessage
	for _, message := range messages {
		copies = append(copies, &sarama.ProducerMessage{Topic: to, Value: sarama.ByteEncoder(message.Value)})
	}
	if err := errors.Join(producer.SendMessages(copies), producer.AddMessageToTxn(messages[count-1], from+"-group", nil)); err != nil {
		return err
	}
	if commits {
		return producer.CommitTxn()
	}
	return producer.AbortTxn()
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
	if err := send(settings(), of(from, sent)); err != nil {
		return err
	}
	producer, err := transactional(to)
	if err != nil {
		return err
	}
	defer producer.Close()
	for _, it := range []struct {
		first   int64
		count   int
		commits bool
	}{{0, 100, true}, {100, 100, false}, {100, 200, true}} {
		if err := step(producer, from, to, it.first, it.count, it.commits); err != nil {
			return err
		}
	}
	return errors.Join(expectValues(to, 0, sarama.ReadCommitted, sent), expectCommitted(from, len(sent)))
}

func expectCommitted(name string, wanted int) error {
	return withAdmin(func(admin sarama.ClusterAdmin) error {
		committed, err := admin.ListConsumerGroupOffsets(name+"-group", map[string][]int32{name: {0}})
		if err != nil {
			return err
		}
		return driver.Expect(committed.GetBlock(name, 0).Offset, wanted, "what is committed")
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
	if err := errors.Join(older.BeginTxn(), put(older, name, 0, "older")); err != nil {
		return err
	}
	newer, err := transactional(name)
	if err != nil {
		return err
	}
	defer newer.Close()
	if err := errors.Join(newer.BeginTxn(), put(newer, name, 0, "newer")); err != nil {
		return err
	}
	refused := older.CommitTxn()
	if !errors.Is(refused, sarama.ErrProducerFenced) && !errors.Is(refused, sarama.ErrInvalidProducerEpoch) {
		return driver.Expect(refused, sarama.ErrProducerFenced, "why the older one is refused")
	}
	if err := newer.CommitTxn(); err != nil {
		return err
	}
	return expectValues(name, 0, sarama.ReadCommitted, []string{"newer"})
}

func nodeKilled() error {
	name, err := topic("killed", 1)
	if err != nil {
		return err
	}
	config := settings()
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	// Its defaults, four tries in half a second and three for metadata, are over before somebody leads.
	config.Producer.Retry.Max = 100
	config.Metadata.Retry.Max = 100
	producer, err := sarama.NewAsyncProducer(driver.Bootstrap, config)
	if err != nil {
		return err
	}
	acknowledged, failed := tally(producer)
	consumer, err := join(name, name+"-group", 0)
	if err != nil {
		return err
	}
	defer consumer.leave()
	poll := func(found driver.Found) error {
		late := time.After(5 * time.Millisecond)
		for {
			select {
			case message := <-consumer.messages:
				found[message.Offset] = string(message.Value)
			case <-late:
				return nil
			}
		}
	}
	send := func(value string) error {
		producer.Input() <- &sarama.ProducerMessage{Topic: name, Value: sarama.StringEncoder(value)}
		return nil
	}
	count, err := driver.WhileKilled(func() (int32, error) { return leader(name) }, send, poll)
	producer.AsyncClose()
	return errors.Join(err, <-failed, driver.Expect(<-acknowledged, count, "records that are acknowledged"))
}

// tally counts what becomes of a producer's messages; it is told when the producer is closed.
func tally(producer sarama.AsyncProducer) (<-chan int, <-chan error) {
	acknowledged, failed := make(chan int, 1), make(chan error, 1)
	go func() {
		count := 0
		for range producer.Successes() {
			count++
		}
		acknowledged <- count
	}()
	go func() {
		var last error
		for failure := range producer.Errors() {
			last = failure
		}
		failed <- last
	}()
	return acknowledged, failed
}

func leader(name string) (node int32, err error) {
	err = withAdmin(func(admin sarama.ClusterAdmin) error {
		described, err := admin.DescribeTopics([]string{name})
		if err != nil {
			return err
		}
		node = described[0].Partitions[0].Leader
		return nil
	})
	return node, err
}
