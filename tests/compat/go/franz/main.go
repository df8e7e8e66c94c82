// franz-go, with kadm for administration.
package main

import (
	"context"
	"errors"
	"sort"
	"strconv"
	"sync/atomic"
	"time"

	"compat/driver"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(driver.Bootstrap...))...)
}

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), driver.Patience)
}

func withAdmin(act func(context.Context, *kadm.Client) error) error {
	it, err := client()
	if err != nil {
		return err
	}
	defer it.Close()
	ctx, cancel := patient()
	defer cancel()
	return act(ctx, kadm.NewClient(it))
}

func topic(name string, partitions int32) (string, error) {
	name = driver.Prefix + "-" + name
	return name, withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		_, err := admin.CreateTopic(ctx, partitions, int16(driver.Replicas), nil, name)
		return err
	})
}

func send(name string, records []*kgo.Record, options ...kgo.Opt) error {
	options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(name))
	it, err := client(options...)
	if err != nil {
		return err
	}
	defer it.Close()
	ctx, cancel := patient()
	defer cancel()
	return it.ProduceSync(ctx, records...).FirstErr()
}

func of(values []string) []*kgo.Record {
	records := make([]*kgo.Record, len(values))
	for at, value := range values {
		records[at] = kgo.StringRecord(value)
	}
	return records
}

func collect(it *kgo.Client, count int) ([]*kgo.Record, error) {
	ctx, cancel := patient()
	defer cancel()
	var found []*kgo.Record
	for len(found) < count {
		fetches := it.PollRecords(ctx, count-len(found))
		if err := fetches.Err(); err != nil {
			return found, err
		}
		found = append(found, fetches.Records()...)
	}
	return found, nil
}

func read(name string, count int) ([]*kgo.Record, error) {
	start := map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().AtStart()}}
	it, err := client(kgo.ConsumePartitions(start))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	return collect(it, count)
}

func produce(kind string, options ...kgo.Opt) error {
	name, err := topic("produce-"+kind, 1)
	if err != nil {
		return err
	}
	sent := driver.Values(kind)
	if err := send(name, of(sent), options...); err != nil {
		return err
	}
	records, err := read(name, len(sent))
	if err != nil {
		return err
	}
	for at, record := range records {
		if string(record.Value) != sent[at] || record.Offset != int64(at) {
			return errors.New("record " + strconv.Itoa(at) + " is not the one that was sent")
		}
	}
	return nil
}

func headers() error {
	name, err := topic("headers", 1)
	if err != nil {
		return err
	}
	record := kgo.KeyStringRecord("k", "v")
	record.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte{0, 255}}}
	if err := send(name, []*kgo.Record{record}); err != nil {
		return err
	}
	found, err := read(name, 1)
	if err != nil {
		return err
	}
	return driver.Expect(found[0].Headers, record.Headers, "headers")
}

func offsets() error {
	name, err := topic("offsets", 1)
	if err != nil {
		return err
	}
	records := of([]string{"a", "b", "c", "d", "e"})
	for at, record := range records {
		record.Timestamp = time.UnixMilli(int64(1_000_000 * (at + 1)))
	}
	if err := send(name, records); err != nil {
		return err
	}
	return withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		for _, asked := range []struct {
			list   func() (kadm.ListedOffsets, error)
			wanted int64
		}{
			{func() (kadm.ListedOffsets, error) { return admin.ListStartOffsets(ctx, name) }, 0},
			{func() (kadm.ListedOffsets, error) { return admin.ListEndOffsets(ctx, name) }, 5},
			{func() (kadm.ListedOffsets, error) { return admin.ListOffsetsAfterMilli(ctx, 2_500_000, name) }, 2},
		} {
			listed, err := asked.list()
			if err != nil {
				return err
			}
			found, _ := listed.Lookup(name, 0)
			if err := driver.Expect(found.Offset, asked.wanted, "an offset"); err != nil {
				return err
			}
		}
		return nil
	})
}

// How a member keeps in touch in the classic protocol; in the other one the coordinator says so.
var classic = []kgo.Opt{kgo.HeartbeatInterval(time.Second), kgo.SessionTimeout(10 * time.Second)}

var consumerProtocol = []kgo.Opt{kgo.ServerSideBalancer()}

// member joins a group; it tells how many partitions it has.
func member(name, group string, more []kgo.Opt) (*kgo.Client, *atomic.Int32, error) {
	held := new(atomic.Int32)
	count := func(change int32) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, moved map[string][]int32) {
			held.Add(change * int32(len(moved[name])))
		}
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(name), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.OnPartitionsAssigned(count(1)),
		kgo.OnPartitionsRevoked(count(-1)), kgo.OnPartitionsLost(count(-1)),
	}
	it, err := client(append(options, more...)...)
	return it, held, err
}

func commit(it *kgo.Client, records []*kgo.Record) error {
	ctx, cancel := patient()
	defer cancel()
	return it.CommitRecords(ctx, records...)
}

func groupCommit(tag string, options []kgo.Opt) error {
	name, err := topic(tag, 1)
	if err != nil {
		return err
	}
	if err := send(name, of(driver.Values("commit"))); err != nil {
		return err
	}
	first, _, err := member(name, name+"-group", options)
	if err != nil {
		return err
	}
	found, err := collect(first, 100)
	if err == nil {
		err = commit(first, found)
	}
	first.Close()
	if err != nil {
		return err
	}
	second, _, err := member(name, name+"-group", options)
	if err != nil {
		return err
	}
	defer second.Close()
	found, err = collect(second, 1)
	if err != nil {
		return err
	}
	return driver.Expect(found[0].Offset, 100, "the first record after the commit")
}

func groupRebalance(tag string, options []kgo.Opt) error {
	name, err := topic(tag, 4)
	if err != nil {
		return err
	}
	one, held, err := member(name, name+"-group", options)
	if err != nil {
		return err
	}
	defer one.Close()
	two, heldByTwo, err := member(name, name+"-group", options)
	if err != nil {
		return err
	}
	until := func(shares []int, members ...*atomic.Int32) error {
		deadline := time.Now().Add(driver.Patience)
		for {
			var found []int
			for _, member := range members {
				found = append(found, int(member.Load()))
			}
			sort.Ints(found)
			err := driver.Expect(found, shares, "partitions of each member")
			if err == nil || time.Now().After(deadline) {
				return err
			}
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			one.PollFetches(ctx)
			cancel()
		}
	}
	if err := until([]int{2, 2}, held, heldByTwo); err != nil {
		two.Close()
		return err
	}
	two.Close()
	return until([]int{4}, held)
}

func groupConsumerProtocol() error {
	if err := groupCommit("commit-consumer", consumerProtocol); err != nil {
		return err
	}
	if err := groupRebalance("rebalance-consumer", consumerProtocol); err != nil {
		return err
	}
	return errors.Join(expectConsumerProtocol("commit-consumer"), expectConsumerProtocol("rebalance-consumer"))
}

// expectConsumerProtocol is there because the client falls back to the classic protocol without a word.
func expectConsumerProtocol(tag string) error {
	return withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		listed, err := admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		return driver.Expect(listed[driver.Prefix+"-"+tag+"-group"].GroupType, "consumer", "the type of the group")
	})
}

func groupPattern() error {
	pattern := []kgo.Opt{kgo.ConsumeRegex(), kgo.MetadataMaxAge(time.Second), kgo.MetadataMinAge(100 * time.Millisecond)}
	var it *kgo.Client
	for _, tag := range []string{"pattern-earlier", "pattern-later"} {
		name, err := topic(tag, 1)
		if err != nil {
			return err
		}
		if err := send(name, of([]string{tag})); err != nil {
			return err
		}
		if it == nil {
			it, _, err = member("^"+driver.Prefix+"-pattern-", driver.Prefix+"-pattern-group", pattern)
			if err != nil {
				return err
			}
			defer it.Close()
		}
		found, err := collect(it, 1)
		if err != nil {
			return err
		}
		if err := errors.Join(driver.Expect(found[0].Topic, name, "the topic"), commit(it, found)); err != nil {
			return err
		}
	}
	return nil
}

func adminTopics() error {
	name, err := topic("admin", 2)
	if err != nil {
		return err
	}
	return withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		if responses, err := admin.UpdatePartitions(ctx, 3, name); err != nil || responses.Error() != nil {
			return errors.Join(err, responses.Error())
		}
		if err := driver.Eventually(func() error {
			described, err := admin.ListTopics(ctx, name)
			if err != nil {
				return err
			}
			partitions := described[name].Partitions
			if len(partitions) == 0 {
				return errors.New("the topic is not described")
			}
			found := []int{len(partitions), len(partitions[0].ISR)}
			return driver.Expect(found, []int{3, driver.Replicas}, "partitions, replicas")
		}); err != nil {
			return err
		}
		if responses, err := admin.DeleteTopics(ctx, name); err != nil || responses.Error() != nil {
			return errors.Join(err, responses.Error())
		}
		nodes, err := admin.ListBrokers(ctx)
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
	return withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		change := kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("123456")}
		altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{change}, name)
		if err != nil || altered[0].Err != nil {
			return errors.Join(err, altered[0].Err)
		}
		return driver.Eventually(func() error {
			described, err := admin.DescribeTopicConfigs(ctx, name)
			if err != nil {
				return err
			}
			for _, config := range described[0].Configs {
				if config.Key == "retention.ms" {
					return driver.Expect(config.MaybeValue(), "123456", "retention.ms")
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
	if err := send(name, of(driver.Values("groups"))); err != nil {
		return err
	}
	group := driver.Prefix + "-admin-group"
	it, _, err := member(name, group, classic)
	if err != nil {
		return err
	}
	found, err := collect(it, 10)
	if err == nil {
		err = commit(it, found)
	}
	if err != nil {
		it.Close()
		return err
	}
	return withAdmin(func(ctx context.Context, admin *kadm.Client) error {
		described, err := admin.DescribeGroups(ctx, group)
		it.Close()
		if err != nil {
			return err
		}
		state := described[group]
		if err := driver.Expect([]any{state.State, len(state.Members)}, []any{"Stable", 1}, "the group"); err != nil {
			return err
		}
		listed, err := admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		if _, found := listed[group]; !found {
			return errors.New("the group is not listed")
		}
		committed, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		offset, _ := committed.Lookup(name, 0)
		if err := driver.Expect(offset.At, 10, "what is committed"); err != nil {
			return err
		}
		deleted, err := admin.DeleteGroups(ctx, group)
		return errors.Join(err, deleted.Error())
	})
}

func main() {
	var features []driver.Feature
	for _, codec := range driver.Codecs {
		features = append(features, driver.Feature{Name: "produce " + codec, Check: func() error {
			return produce(codec, kgo.ProducerBatchCompression(codecs[codec]), kgo.DisableIdempotentWrite())
		}})
	}
	features = append(features,
		driver.Feature{Name: "idempotent produce", Check: func() error { return produce("idempotent") }},
		driver.Feature{Name: "headers", Check: headers},
		driver.Feature{Name: "offsets by time", Check: offsets},
		driver.Feature{Name: "group: commit, resume", Check: func() error { return groupCommit("commit", classic) }},
		driver.Feature{Name: "group: rebalance", Check: func() error { return groupRebalance("rebalance", classic) }},
		driver.Feature{Name: "group: consumer protocol", Check: groupConsumerProtocol},
		driver.Feature{Name: "group: topics by pattern", Check: groupPattern},
		driver.Feature{Name: "admin: topics", Check: adminTopics},
		driver.Feature{Name: "admin: configs", Check: adminConfigs},
		driver.Feature{Name: "admin: groups", Check: adminGroups},
		driver.Feature{Name: "transactions: commit", Check: txCommit},
		driver.Feature{Name: "transactions: abort", Check: txAbort},
		driver.Feature{Name: "transactions: offsets", Check: txOffsets},
		driver.Feature{Name: "transactions: fencing", Check: txFencing},
		driver.Feature{Name: "admin: transactions", Check: adminTransactions},
		driver.Feature{Name: "node killed", Check: func() error { return nodeKilled("killed", classic) }},
		driver.Feature{Name: "group: node killed (consumer protocol)", Check: nodeKilledConsumerProtocol},
	)
	driver.Run("franz-go", "github.com/twmb/franz-go", features)
}
