import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's client at a fixed rate, whether or not the broker keeps up: the time from when a record was due to its acknowledgement,
 * and to its consumer. Kafka's own tools give both in whole milliseconds, which hides what is to be compared.
 * Arguments: bootstrap, topic, records a second, seconds to measure, bytes of a record.
 */
public final class Paced {
    private static final int WARM_UP_SECONDS = 3;
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private final int rate;
    private final int count;
    private final long begin;
    private final AtomicLongArray acknowledged;
    private final AtomicLongArray consumed;

    private Paced(int rate, int seconds, long begin) {
        this.rate = rate;
        this.begin = begin;
        count = rate * (seconds + WARM_UP_SECONDS);
        acknowledged = new AtomicLongArray(count);
        consumed = new AtomicLongArray(count);
    }

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        TopicPartition partition = new TopicPartition(arguments[1], 0);
        Map<String, Object> writing = Map.of("bootstrap.servers", bootstrap, "acks", "all", "linger.ms", 0);
        Map<String, Object> reading = Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "latest");
        var bytes = new ByteArraySerializer();
        var plain = new ByteArrayDeserializer();
        try (var producer = new KafkaProducer<>(writing, bytes, bytes);
                var consumer = new KafkaConsumer<>(reading, plain, plain)) {
            consumer.assign(List.of(partition));
            consumer.seekToEnd(List.of(partition));
            consumer.position(partition, PATIENCE);
            int seconds = Integer.parseInt(arguments[3]);
            var paced = new Paced(Integer.parseInt(arguments[2]), seconds, System.nanoTime());
            Thread reader = new Thread(() -> paced.read(consumer));
            reader.start();
            paced.write(producer, partition, Integer.parseInt(arguments[4]));
            reader.join();
            paced.tell();
        }
    }

    private long due(int number) {
        return begin + number * 1_000_000_000L / rate;
    }

    private void write(KafkaProducer<byte[], byte[]> producer, TopicPartition to, int bytes) {
        for (int number = 0; number < count; number++) {
            while (System.nanoTime() < due(number)) {
                LockSupport.parkNanos(due(number) - System.nanoTime());
            }
            int which = number;
            byte[] value = ByteBuffer.allocate(Math.max(bytes, Integer.BYTES)).putInt(number).array();
            producer.send(new ProducerRecord<>(to.topic(), to.partition(), null, value), (metadata, failure) -> {
                if (failure == null) {
                    acknowledged.set(which, System.nanoTime() - due(which));
                } else {
                    failure.printStackTrace();
                }
            });
        }
        producer.flush();
    }

    private void read(KafkaConsumer<byte[], byte[]> consumer) {
        int found = 0;
        long deadline = due(count) + PATIENCE.toNanos();
        while (found < count && System.nanoTime() < deadline) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                int number = ByteBuffer.wrap(record.value()).getInt();
                consumed.set(number, System.nanoTime() - due(number));
                found++;
            }
        }
    }

    private void tell() {
        int from = rate * WARM_UP_SECONDS;
        long[] acks = new long[count - from];
        long[] ends = new long[count - from];
        for (int number = from; number < count; number++) {
            acks[number - from] = acknowledged.get(number);
            ends[number - from] = consumed.get(number);
            if (acks[number - from] == 0 || ends[number - from] == 0) {
                throw new IllegalStateException("record " + number + " was not acknowledged, or not consumed");
            }
        }
        System.out.printf("{\"ack_ms\":%s,\"end_to_end_ms\":%s}%n", percentiles(acks), percentiles(ends));
    }

    private static String percentiles(long[] nanos) {
        Arrays.sort(nanos);
        return String.format(java.util.Locale.ROOT, "{\"p50\":%.3f,\"p99\":%.3f,\"p99_9\":%.3f}",
                at(nanos, 0.5), at(nanos, 0.99), at(nanos, 0.999));
    }

    private static double at(long[] sorted, double share) {
        return sorted[Math.min(sorted.length - 1, (int) (sorted.length * share))] / 1e6;
    }
}
