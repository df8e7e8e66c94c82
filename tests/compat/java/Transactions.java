import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What is asked of the client's transactions. */
final class Transactions {
    private final Compat compat;

    Transactions(Compat compat) {
        this.compat = compat;
    }

    Map<String, Compat.Check> features() {
        Map<String, Compat.Check> features = new LinkedHashMap<>();
        features.put("transactions: commit", this::commit);
        features.put("transactions: abort", this::abort);
        features.put("transactions: offsets", this::offsets);
        features.put("transactions: fencing", this::fencing);
        features.put("admin: transactions", this::administration);
        return features;
    }

    private KafkaProducer<byte[], byte[]> producer(String id) {
        var settings = compat.settings(Map.of("transactional.id", id, "max.block.ms", Compat.PATIENCE.toMillis()));
        var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
        producer.initTransactions();
        return producer;
    }

    private static void put(KafkaProducer<byte[], byte[]> producer, String topic, int partition, String value) {
        producer.send(new ProducerRecord<>(topic, partition, null, Compat.bytes(value)));
    }

    private List<String> read(String topic, int partition, int count, String isolation) {
        try (var consumer = compat.consumer(Map.of("isolation.level", isolation))) {
            consumer.assign(List.of(new TopicPartition(topic, partition)));
            return text(Compat.collect(consumer, count));
        }
    }

    private static List<String> text(List<ConsumerRecord<byte[], byte[]>> records) {
        List<String> found = new ArrayList<>();
        records.forEach(record -> found.add(new String(record.value(), StandardCharsets.UTF_8)));
        return found;
    }

    /** Nothing of an open transaction is seen; all of a committed one is, in each of its partitions. */
    private void commit() throws Exception {
        String topic = compat.topic("tx-commit", 2);
        try (var producer = producer(topic)) {
            producer.beginTransaction();
            put(producer, topic, 0, "a");
            put(producer, topic, 1, "b");
            producer.flush();
            try (var consumer = compat.consumer(Map.of("isolation.level", "read_committed"))) {
                consumer.assign(List.of(new TopicPartition(topic, 0)));
                Compat.expect(consumer.poll(Duration.ofMillis(500)).count(), 0, "records of an open transaction");
            }
            producer.commitTransaction();
        }
        Compat.expect(read(topic, 0, 1, "read_committed"), List.of("a"), "what is committed in the first");
        Compat.expect(read(topic, 1, 1, "read_committed"), List.of("b"), "what is committed in the second");
    }

    private void abort() throws Exception {
        String topic = compat.topic("tx-abort", 1);
        try (var producer = producer(topic)) {
            for (String value : List.of("a", "aborted", "b")) {
                producer.beginTransaction();
                put(producer, topic, 0, value);
                producer.flush();
                if (value.equals("aborted")) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        Compat.expect(read(topic, 0, 2, "read_committed"), List.of("a", "b"), "what is committed");
        Compat.expect(read(topic, 0, 3, "read_uncommitted"), List.of("a", "aborted", "b"), "all");
    }

    /** Reads from one topic, writes to another, and commits where it stands in the same transaction. */
    private void offsets() throws Exception {
        String from = compat.topic("tx-from", 1);
        String to = compat.topic("tx-to", 1);
        List<String> sent = Compat.values("tx");
        compat.sendValues(from, sent, Map.of());
        try (var producer = producer(to)) {
            step(producer, from, to, 0, 100, true);
            step(producer, from, to, 100, 100, false);
            step(producer, from, to, 100, 200, true);
        }
        Compat.expect(read(to, 0, sent.size(), "read_committed"), sent, "what was made of it");
        var committed = Compat.within(compat.admin.listConsumerGroupOffsets(from + "-group").partitionsToOffsetAndMetadata());
        Compat.expect(committed.get(new TopicPartition(from, 0)).offset(), (long) sent.size(), "what is committed");
    }

    private void step(KafkaProducer<byte[], byte[]> producer, String from, String to, long first, int count, boolean commits) {
        Map<String, Object> settings = Map.of("group.id", from + "-group", "isolation.level", "read_committed", "max.poll.records", 100);
        try (KafkaConsumer<byte[], byte[]> consumer = compat.consumer(settings)) {
            consumer.subscribe(List.of(from));
            var records = Compat.collect(consumer, count);
            Compat.expect(records.get(0).offset(), first, "where the group goes on");
            producer.beginTransaction();
            records.subList(0, count).forEach(record -> producer.send(new ProducerRecord<>(to, 0, null, record.value())));
            var next = Map.of(new TopicPartition(from, 0), new OffsetAndMetadata(first + count));
            producer.sendOffsetsToTransaction(next, consumer.groupMetadata());
            if (commits) {
                producer.commitTransaction();
            } else {
                producer.abortTransaction();
            }
        }
    }

    /** A producer with an id that another one has had ends the other one and its transaction. */
    private void fencing() throws Exception {
        String topic = compat.topic("tx-fencing", 1);
        try (var older = producer(topic)) {
            older.beginTransaction();
            put(older, topic, 0, "older");
            older.flush();
            try (var newer = producer(topic)) {
                newer.beginTransaction();
                put(newer, topic, 0, "newer");
                Throwable fenced = null;
                try {
                    older.commitTransaction();
                } catch (ProducerFencedException | InvalidProducerEpochException refused) {
                    fenced = refused;
                }
                Compat.expect(fenced != null, true, "the older one is fenced");
                newer.commitTransaction();
            }
        }
        Compat.expect(read(topic, 0, 1, "read_committed"), List.of("newer"), "what is committed");
    }

    private void administration() throws Exception {
        String topic = compat.topic("tx-admin", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = producer(topic)) {
            producer.beginTransaction();
            put(producer, topic, 0, "hanging");
            producer.flush();
            var described = Compat.within(compat.admin.describeTransactions(List.of(topic)).description(topic));
            Compat.expect(described.state(), TransactionState.ONGOING, "its state");
            Compat.expect(described.topicPartitions(), Set.of(partition), "its partitions");
            Compat.eventually(() -> {
                var listed = Compat.within(compat.admin.listTransactions().all());
                Compat.expect(listed.stream().anyMatch(it -> it.transactionalId().equals(topic)), true, "it is listed");
            });
            var active = Compat.within(compat.admin.describeProducers(List.of(partition)).partitionResult(partition)).activeProducers();
            Compat.expect(active.size(), 1, "producers");
            var one = active.get(0);
            Compat.expect(one.currentTransactionStartOffset().getAsLong(), 0L, "where its transaction begins");
            var hanging = new AbortTransactionSpec(partition, one.producerId(), (short) one.producerEpoch(), one.coordinatorEpoch().orElse(0));
            Compat.within(compat.admin.abortTransaction(hanging).all());
            producer.abortTransaction();
            producer.beginTransaction();
            put(producer, topic, 0, "after it");
            producer.commitTransaction();
        }
        Compat.expect(read(topic, 0, 1, "read_committed"), List.of("after it"), "what is committed");
        Compat.within(compat.admin.fenceProducers(List.of(topic)).all());
    }
}
