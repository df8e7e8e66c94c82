// sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"compat/driver"

	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 10 * time.Second
	config.Consumer.Group.Heartbeat.Interval = time.Second
	return config
}

func withAdmin(act func(sarama.ClusterAdmin) error) error {
	admin, err := sarama.NewClusterAdmin(driver.Bootstrap, settings())
	if err != nil {
		return err
	}
	defer admin.Close()
	return act(admin)
}

func topic(name string, partitions int32) (string, error) {
	name = driver.Prefix + "-" + name
	return name, withAdmin(func(admin sarama.ClusterAdmin) error {
		detail := sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: int16(driver.Replicas)}
		return admin.CreateTopic(name, &detail, false)
	})
}

func send(config *sarama.Config, messages []*sarama.ProducerMessage) error {
	producer, err := sarama.NewSyncProducer(driver.Bootstrap, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	return producer.SendMessages(messages)
}

func of(name string, values []string) []*sarama.ProducerMessage {
	messages := make([]*sarama.ProducerMessage, len(values))
	for at, value := range values {
		messages[at] = &sarama.ProducerMessage{Topic: name, Value: sarama.StringEncoder(value)}
	}
	return messages
}

func read(name string, count int) ([]*sarama.ConsumerMessage, error) {
	return readFrom(name, 0, count, settings())
}

func readFrom(name string, from int32, count int, config *sarama.Config) ([]*sarama.ConsumerMessage, error) {
	consumer, err := sarama.NewConsumer(driver.Bootstrap, config)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(name, from, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	defer partition.Close()
	late := time.After(driver.Patience)
	var found []*sarama.ConsumerMessage
	for len(found) < count {
		select {
		case message := <-partition.Messages():
			found = append(found, message)
		case <-late:
			return found, fmt.Errorf("%d records read instead of %d", len(found), count)
		}
	}
	return found, nil
}

func produce(kind string, config *sarama.Config) error {
	name, err := topic("produce-"+kind, 1)
	if err != nil {
		return err
	}
	sent := driver.Values(kind)
	if err := send(config, of(name, sent)); err != nil {
		return err
	}
	found, err := read(name, len(sent))
	if err != nil {
		return err
	}
	for at, message := range found {
		if string(message.Value) != sent[at] || message.Offset != int64(at) {
			return fmt.Errorf("record %d is not the one that was sent", at)
		}
	}
	return nil
}

func idempotent() error {
	config := settings()
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	return produce("idempotent", config)
}

func headers() error {
	name, err := topic("headers", 1)
	if err != nil {
		return err
	}
	message := of(name, []string{"v"})[0]
	message.Key = sarama.StringEncoder("k")
	message.Headers = []sarama.RecordHeader{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("a"), Value: []byte{0, 255}}}
	if err := send(settings(), []*sarama.ProducerMessage{message}); err != nil {
		return err
	}
	found, err := read(name, 1)
	if err != nil {
		return err
	}
	var told []sarama.RecordHeader
	for _, header := range found[0].Headers {
		told = append(told, *header)
	}
	return driver.Expect(told, message.Headers, "headers")
}

func offsets() error {
	name, err := topic("offsets", 1)
	if err != nil {
		return err
	}
	messages := of(name, []string{"a", "b", "c", "d", "e"})
	for at, message := range messages {
		message.Timestamp = time.UnixMilli(int64(1_000_000 * (at + 1)))
	}
	if err := send(settings(), messages); err != nil {
		return err
	}
	client, err := sarama.NewClient(driver.Bootstrap, settings())
	if err != nil {
		return err
	}
	defer client.Close()
	for _, asked := range []struct{ time, wanted int64 }{
		{sarama.OffsetOldest, 0}, {sarama.OffsetNewest, 5}, {2_500_000, 2},
	} {
		found, err := client.GetOffset(name, 0, asked.time)
		if err != nil {
			return err
		}
		if err := driver.Expect(found, asked.wanted, "an offset"); err != nil {
			return err
		}
	}
	return nil
}

// member is one of a group, in a goroutine of its own until it is told to leave.
type member struct {
	group  sarama.ConsumerGroup
	cancel context.CancelFunc
	ended  chan struct{}
	mutex  sync.Mutex
	held   int
	// What came, and what is still to be marked.
	messages chan *sarama.ConsumerMessage
	// The number of records that it commits, and then leaves.
	commits int
}

func join(name, group string, commits int) (*member, error) {
	consumers, err := sarama.NewConsumerGroup(driver.Bootstrap, group, settings())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	it := &member{
		group: consumers, cancel: cancel, ended: make(chan struct{}), commits: commits,
		messages: make(chan *sarama.ConsumerMessage, driver.Records),
	}
	go func() {
		defer close(it.ended)
		for ctx.Err() == nil {
			// What stands in its way may be a node that is away: it joins again.
			if err := consumers.Consume(ctx, []string{name}, it); err != nil {
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return it, nil
}

func (it *member) leave() {
	it.cancel()
	<-it.ended
	it.group.Close()
}

func (it *member) share() int {
	it.mutex.Lock()
	defer it.mutex.Unlock()
	return it.held
}

func (it *member) hold(partitions int) {
	it.mutex.Lock()
	it.held = partitions
	it.mutex.Unlock()
}

func (it *member) Setup(session sarama.ConsumerGroupSession) error {
	held := 0
	for _, partitions := range session.Claims() {
		held += len(partitions)
	}
	it.hold(held)
	return nil
}

func (it *member) Cleanup(sarama.ConsumerGroupSession) error {
	it.hold(0)
	return nil
}

func (it *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			if it.commits > 0 && message.Offset < int64(it.commits) {
				session.MarkMessage(message, "")
				if message.Offset == int64(it.commits-1) {
					session.Commit()
				}
			}
			select {
			case it.messages <- message:
			case <-session.Context().Done():
				return nil
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

func (it *member) take(count int) ([]*sarama.ConsumerMessage, error) {
	late := time.After(driver.Patience)
	var found []*sarama.ConsumerMessage
	for len(found) < count {
		select {
		case message := <-it.messages:
			found = append(found, message)
		case <-late:
			return found, fmt.Errorf("%d records read instead of %d", len(found), count)
		}
	}
	return found, nil
}

func groupCommit() error {
	name, err := topic("commit", 1)
	if err != nil {
		return err
	}
	if err := send(settings(), of(name, driver.Values("commit"))); err != nil {
		return err
	}
	first, err := join(name, name+"-group", 100)
	if err != nil {
		return err
	}
	_, err = first.take(101)
	first.leave()
	if err != nil {
		return err
	}
	second, err := join(name, name+"-group", 0)
	if err != nil {
		return err
	}
	defer second.leave()
	found, err := second.take(1)
	if err != nil {
		return err
	}
	return driver.Expect(found[0].Offset, 100, "the first record after the commit")
}

func groupRebalance() error {
	name, err := topic("rebalance", 4)
	if err != nil {
		return err
	}
	one, err := join(name, name+"-group", 0)
	if err != nil {
		return err
	}
	defer one.leave()
	two, err := join(name, name+"-group", 0)
	if err != nil {
		return err
	}
	until := func(shares []int, members ...*member) error {
		deadline := time.Now().Add(driver.Patience)
		for {
			var found []int
			for _, member := range members {
				found = append(found, member.share())
			}
			sort.Ints(found)
			err := driver.Expect(found, shares, "partitions of each member")
			if err == nil || time.Now().After(deadline) {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	err = until([]int{2, 2}, one, two)
	two.leave()
	if err != nil {
		return err
	}
	return until([]int{4}, one)
}

func noConsumerProtocol() error {
	return driver.Absent("sarama describes groups of the consumer protocol, and has no member for it")
}

func adminTopics() error {
	name, err := topic("admin", 2)
	if err != nil {
		return err
	}
	return withAdmin(func(admin sarama.ClusterAdmin) error {
		if err := admin.CreatePartitions(name, 3, nil, false); err != nil {
			return err
		}
		if err := driver.Eventually(func() error {
			described, err := admin.DescribeTopics([]string{name})
			if err != nil {
				return err
			}
			partitions := described[0].Partitions
			if len(partitions) == 0 {
				return errors.New("the topic is not described")
			}
			found := []int{len(partitions), len(partitions[0].Isr)}
			return driver.Expect(found, []int{3, driver.Replicas}, "partitions, replicas")
		}); err != nil {
			return err
		}
		if err := admin.DeleteTopic(name); err != nil {
			return err
		}
		nodes, _, err := admin.DescribeCluster()
		if err != nil {
			return err
		}
		return driver.Expect(len(nodes), driver.Replicas, "nodes")
	})
}

func adminConfigs() error {
	name, err := topic("configs", 1)
	if err != nil {
		return err
	}
	return withAdmin(func(admin sarama.ClusterAdmin) error {
		value := "123456"
		change := map[string]sarama.IncrementalAlterConfigsEntry{
			"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
		}
		if err := admin.IncrementalAlterConfig(sarama.TopicResource, name, change, false); err != nil {
			return err
		}
		return driver.Eventually(func() error {
			found, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: name})
			if err != nil {
				return err
			}
			for _, entry := range found {
				if entry.Name == "retention.ms" {
					return driver.Expect(entry.Value, value, "retention.ms")
				}
			}
			return errors.New("retention.ms is not described")
		})
	})
}

func adminGroups() error {
	name, err := topic("groups", 1)
	if err != nil {
		return err
	}
	if err := send(settings(), of(name, driver.Values("groups"))); err != nil {
		return err
	}
	group := driver.Prefix + "-admin-group"
	it, err := join(name, group, 10)
	if err != nil {
		return err
	}
	if _, err := it.take(11); err != nil {
		it.leave()
		return err
	}
	return withAdmin(func(admin sarama.ClusterAdmin) error {
		described, err := admin.DescribeConsumerGroups([]string{group})
		it.leave()
		if err != nil {
			return err
		}
		if err := driver.Expect([]any{described[0].State, len(described[0].Members)}, []any{"Stable", 1}, "the group"); err != nil {
			return err
		}
		listed, err := admin.ListConsumerGroups()
		if err != nil {
			return err
		}
		if _, found := listed[group]; !found {
			return errors.New("the group is not listed")
		}
		committed, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{name: {0}})
		if err != nil {
			return err
		}
		if err := driver.Expect(committed.GetBlock(name, 0).Offset, 10, "what is committed"); err != nil {
			return err
		}
		return admin.DeleteConsumerGroup(group)
	})
}

func main() {
	var features []driver.Feature
	for _, codec := range driver.Codecs {
		features = append(features, driver.Feature{Name: "produce " + codec, Check: func() error {
			config := settings()
			config.Producer.Compression = codecs[codec]
			return produce(codec, config)
		}})
	}
	features = append(features,
		driver.Feature{Name: "idempotent produce", Check: idempotent},
		driver.Feature{Name: "headers", Check: headers},
		driver.Feature{Name: "offsets by time", Check: offsets},
		driver.Feature{Name: "group: commit, resume", Check: groupCommit},
		driver.Feature{Name: "group: rebalance", Check: groupRebalance},
		driver.Feature{Name: "group: consumer protocol", Check: noConsumerProtocol},
		driver.Feature{Name: "group: topics by pattern", Check: func() error { return driver.Absent("sarama takes names only") }},
		driver.Feature{Name: "admin: topics", Check: adminTopics},
		driver.Feature{Name: "admin: configs", Check: adminConfigs},
		driver.Feature{Name: "admin: groups", Check: adminGroups},
		driver.Feature{Name: "transactions: commit", Check: txCommit},
		driver.Feature{Name: "transactions: abort", Check: txAbort},
		driver.Feature{Name: "transactions: offsets", Check: txOffsets},
		driver.Feature{Name: "transactions: fencing", Check: txFencing},
		driver.Feature{Name: "admin: transactions", Check: func() error { return driver.Absent("sarama has no calls for it") }},
		driver.Feature{Name: "node killed", Check: nodeKilled},
		driver.Feature{Name: "group: node killed (consumer protocol)", Check: noConsumerProtocol},
	)
	driver.Run("sarama", "github.com/IBM/sarama", features)
}
