import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * An idempotent producer writes a record each millisecond to a partition whose leader is killed: how long until a record is
 * acknowledged that was sent afterwards. Every other leader leads the quorum of the controllers, too.
 *
 * Arguments: bootstrap, KEY=VALUE,... of the topics, how many kills. It says `kill ID` and is told `killed MICROSECONDS` of the
 * clock of the day, which both sides share; it says `start ID` and is told `started`. What it measured it says as JSON.
 */
public final class Failover {
    private static final Duration WARM_UP = Duration.ofSeconds(3);
    private static final Duration PATIENCE = Duration.ofSeconds(90);
    /** What comes after the first acknowledgement belongs to it: silence may follow once more. */
    private static final Duration AFTERWARDS = Duration.ofSeconds(3);
    private static final int BYTES = 100;

    private record Ack(long sent, long acknowledged) {}

    private final String bootstrap;
    private final Map<String, String> properties;
    private final Admin admin;
    private final BufferedReader told = new BufferedReader(new InputStreamReader(System.in));

    private Failover(String bootstrap, Map<String, String> properties, Admin admin) {
        this.bootstrap = bootstrap;
        this.properties = properties;
        this.admin = admin;
    }

    public static void main(String[] arguments) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            var failover = new Failover(arguments[0], Topics.properties(arguments[1]), admin);
            for (int number = 0; number < Integer.parseInt(arguments[2]); number++) {
                failover.kill("failover-" + number, number % 2 == 1);
            }
        }
    }

    private void kill(String topic, boolean leadsQuorum) throws Exception {
        int quorum = admin.describeMetadataQuorum().quorumInfo().get(PATIENCE.toSeconds(), TimeUnit.SECONDS).leaderId();
        List<Integer> replicas = new ArrayList<>();
        for (var node : admin.describeCluster().nodes().get(PATIENCE.toSeconds(), TimeUnit.SECONDS)) {
            replicas.add(node.id());
        }
        // The first one is to lead the partition.
        replicas.sort(java.util.Comparator.comparing(id -> (id == quorum) != leadsQuorum));
        Topics.make(admin, List.of(new NewTopic(topic, Map.of(0, replicas)).configs(properties)), replicas.size());
        var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        int leader = described.partitions().get(0).leader().id();
        measure(new TopicPartition(topic, 0), leader, leader == quorum);
        say("start " + leader);
        expect("started");
        Topics.await(admin, topic, replicas.size());
    }

    private void measure(TopicPartition partition, int leader, boolean leadsQuorum) throws Exception {
        Map<String, Object> settings =
                Map.of("bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true, "linger.ms", 0);
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(settings, bytes, bytes)) {
            var sender = new Sender(producer, partition);
            sender.start();
            Thread.sleep(WARM_UP.toMillis());
            say("kill " + leader);
            long killed = Long.parseLong(expect("killed"));
            long first = sender.firstSentAfter(killed);
            Thread.sleep(AFTERWARDS.toMillis());
            sender.end();
            long found = admin.listOffsets(Map.of(partition, OffsetSpec.latest())).partitionResult(partition).get().offset();
            say(String.format(java.util.Locale.ROOT,
                    "{\"failover_ms\":%.3f,\"silence_ms\":%.3f,\"leads_quorum\":%b,\"acknowledged\":%d,\"found\":%d}",
                    (first - killed) / 1e3, sender.longestSilence() / 1e3, leadsQuorum, sender.acks.size(), found));
        }
    }

    private static long now() {
        return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
    }

    private static void say(String what) {
        System.out.println(what);
    }

    /** What stands behind this word in the next line. */
    private String expect(String word) throws IOException {
        String line = told.readLine();
        if (line == null || !line.startsWith(word)) {
            throw new IOException("`" + word + "` was to be told, not " + line);
        }
        return line.substring(word.length()).trim();
    }

    /** Sends until it is to end, and keeps when each record was sent and acknowledged. */
    private static final class Sender extends Thread {
        private final KafkaProducer<byte[], byte[]> producer;
        private final TopicPartition partition;
        private final Queue<Ack> acks = new ConcurrentLinkedQueue<>();
        private volatile boolean isToEnd;
        private volatile Exception failure;

        private Sender(KafkaProducer<byte[], byte[]> producer, TopicPartition partition) {
            this.producer = producer;
            this.partition = partition;
        }

        @Override
        public void run() {
            while (!isToEnd) {
                long sent = now();
                producer.send(new ProducerRecord<>(partition.topic(), 0, null, new byte[BYTES]), (metadata, refused) -> {
                    if (refused == null) {
                        acks.add(new Ack(sent, now()));
                    } else {
                        failure = refused;
                    }
                });
                LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(1));
            }
            producer.flush();
        }

        /** When the first record was acknowledged that was sent at this time or later. */
        private long firstSentAfter(long micros) throws Exception {
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (System.nanoTime() < deadline && failure == null) {
                for (Ack ack : acks) {
                    if (ack.sent >= micros) {
                        return ack.acknowledged;
                    }
                }
                Thread.sleep(20);
            }
            throw new IllegalStateException("nothing was acknowledged any more", failure);
        }

        private void end() throws Exception {
            isToEnd = true;
            join();
            if (failure != null) {
                throw new IllegalStateException("a record was given up", failure);
            }
        }

        private long longestSilence() {
            long longest = 0;
            long last = Long.MAX_VALUE;
            for (Ack ack : acks) {
                longest = Math.max(longest, ack.acknowledged - last);
                last = ack.acknowledged;
            }
            return longest;
        }
    }
}
