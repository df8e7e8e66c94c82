import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** An idempotent producer and a group go on while the leader of their partition is killed and started again. */
final class Killed {
    private final Compat compat;

    Killed(Compat compat) {
        this.compat = compat;
    }

    void run(String tag, Map<String, Object> more) throws Exception {
        String topic = compat.topic(tag, 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        Map<Long, String> found = new TreeMap<>();
        Map<String, Object> group = new HashMap<>(more);
        group.put("group.id", topic + "-group");
        Map<String, Object> settings = compat.settings(Map.of("enable.idempotence", true, "acks", "all"));
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                var consumer = compat.consumer(group)) {
            consumer.subscribe(List.of(topic));
            CompletableFuture<Void> back = null;
            int last = Integer.MAX_VALUE;
            for (int number = 0; number < last; number++) {
                sent.add(producer.send(new ProducerRecord<>(topic, 0, null, Compat.bytes("killed " + number))));
                keep(consumer.poll(Duration.ofMillis(5)), found);
                if (number == 200) {
                    consumer.commitSync();
                    back = kill(compat, partition);
                }
                if (back != null && back.isDone() && last == Integer.MAX_VALUE) {
                    back.get();
                    last = number + 200;
                }
            }
            for (Future<RecordMetadata> each : sent) {
                Compat.within(each);
            }
            long deadline = System.nanoTime() + Compat.PATIENCE.toNanos();
            while (found.size() < sent.size() && System.nanoTime() < deadline) {
                keep(consumer.poll(Duration.ofMillis(200)), found);
            }
            consumer.commitSync();
            var committed = consumer.committed(java.util.Set.of(partition)).get(partition);
            Compat.expect(committed.offset(), (long) sent.size(), "what is committed");
        }
        Map<Long, String> wanted = new TreeMap<>();
        for (int number = 0; number < sent.size(); number++) {
            wanted.put((long) number, "killed " + number);
        }
        Compat.expect(found, wanted, "records by offset");
    }

    private static void keep(Iterable<ConsumerRecord<byte[], byte[]>> records, Map<Long, String> found) {
        records.forEach(record -> found.put(record.offset(), new String(record.value(), StandardCharsets.UTF_8)));
    }

    /** Has the ring kill the leader; done when it is back. */
    static CompletableFuture<Void> kill(Compat compat, TopicPartition partition) throws Exception {
        var described = Compat.within(compat.admin.describeTopics(List.of(partition.topic())).allTopicNames());
        Compat.tell("kill", described.get(partition.topic()).partitions().get(0).leader().idString());
        return CompletableFuture.runAsync(() -> {
            try {
                new BufferedReader(new InputStreamReader(System.in)).readLine();
            } catch (java.io.IOException failure) {
                throw new java.io.UncheckedIOException(failure);
            }
        });
    }
}
