import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's own client. Called and answered as driver.py, one folder up, says; more of it is seen here than elsewhere. */
public final class Compat {
    static final Duration PATIENCE = Duration.ofSeconds(60);
    private static final int RECORDS = 300;
    private static final Map<String, Object> CLASSIC = Map.of("session.timeout.ms", 10_000, "heartbeat.interval.ms", 1000);
    /** In it, both times are the coordinator's to say. */
    private static final Map<String, Object> CONSUMER_PROTOCOL = Map.of("group.protocol", "consumer");

    private final String bootstrap;
    private final String prefix;
    private final short replicas;
    final Admin admin;

    private Compat(String[] arguments) {
        bootstrap = arguments[0];
        prefix = arguments[1];
        replicas = Short.parseShort(arguments[2]);
        admin = Admin.create(settings(Map.of()));
    }

    interface Check {
        void run() throws Exception;
    }

    /** Features that are compiled only beside the clients that have them. */
    interface More {
        Map<String, Check> features(Compat compat);
    }

    /** The client has no way to do it. */
    private static final class Absent extends Exception {
        Absent(String why) {
            super(why);
        }
    }

    /** What `shares/Shares.java` has, in its order. */
    static final List<String> SHARES = List.of(
            "share group: shared", "share group: acknowledge", "share group: node killed", "admin: share groups");

    public static void main(String[] arguments) {
        Compat compat = new Compat(arguments);
        tell("client", "kafka-clients (Java)", "version", version());
        compat.features().forEach((feature, check) -> {
            String outcome = "pass";
            String why = "";
            try {
                check.run();
            } catch (Absent absent) {
                outcome = "absent";
                why = absent.getMessage();
            } catch (Throwable failure) {
                failure.printStackTrace();
                Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
                outcome = "fail";
                why = cause.toString();
            }
            tell("feature", feature, "outcome", outcome, "why", why.substring(0, Math.min(300, why.length())));
        });
        compat.admin.close(Duration.ofSeconds(5));
        System.exit(0);
    }

    /** As the client's archive says it. */
    private static String version() {
        Properties about = new Properties();
        try (InputStream file = Admin.class.getResourceAsStream("/kafka/kafka-version.properties")) {
            about.load(file);
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
        return about.getProperty("version");
    }

    private Map<String, Check> features() {
        Map<String, Check> features = new LinkedHashMap<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            // Without idempotence, one batch that is sent again may come after the next one.
            Map<String, Object> settings = Map.of(
                    "compression.type", codec, "enable.idempotence", false, "max.in.flight.requests.per.connection", 1);
            features.put("produce " + codec, () -> produce(codec, settings));
        }
        features.put("idempotent produce", () -> produce("once", Map.of("enable.idempotence", true)));
        features.put("headers", this::headers);
        features.put("offsets by time", this::offsets);
        features.put("group: commit, resume", () -> groupCommit("commit", CLASSIC));
        features.put("group: rebalance", () -> groupRebalance("rebalance", CLASSIC));
        features.put("group: consumer protocol", this::groupConsumerProtocol);
        features.put("group: topics by pattern", this::groupPattern);
        features.put("admin: topics", this::adminTopics);
        features.put("admin: configs", this::adminConfigs);
        features.put("admin: groups", this::adminGroups);
        features.put("admin: cluster", this::adminCluster);
        features.putAll(new Transactions(this).features());
        features.put("node killed", () -> new Killed(this).run("killed", Map.of()));
        features.put("group: node killed (consumer protocol)", this::killedConsumerProtocol);
        features.putAll(shares());
        return features;
    }

    private Map<String, Check> shares() {
        try {
            More shares = (More) Class.forName("Shares").getDeclaredConstructor().newInstance();
            return shares.features(this);
        } catch (ReflectiveOperationException none) {
            Map<String, Check> absent = new LinkedHashMap<>();
            SHARES.forEach(feature -> absent.put(feature, () -> {
                throw new Absent("this version has no share groups");
            }));
            return absent;
        }
    }

    static void tell(String... pairs) {
        StringBuilder line = new StringBuilder("{");
        for (int at = 0; at < pairs.length; at += 2) {
            String value = pairs[at + 1].replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("[\\p{Cntrl}]", " ");
            line.append(at > 0 ? "," : "").append('"').append(pairs[at]).append("\":\"").append(value).append('"');
        }
        System.out.println(line.append('}'));
    }

    static void expect(Object found, Object wanted, String what) {
        if (!found.equals(wanted)) {
            throw new AssertionError(what + ": " + found + " instead of " + wanted);
        }
    }

    static <T> T within(Future<T> future) throws Exception {
        return future.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
    }

    /** Gives the check ten seconds: the node that is asked may learn of a change after the one that made it. */
    static void eventually(Check check) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(10).toNanos();
        while (true) {
            try {
                check.run();
                return;
            } catch (AssertionError | ExecutionException failure) {
                if (System.nanoTime() > deadline) {
                    throw failure;
                }
                Thread.sleep(50);
            }
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static List<String> values(String tag) {
        List<String> values = new ArrayList<>();
        for (int number = 0; number < RECORDS; number++) {
            values.add(tag + " " + number + " " + "water ".repeat(number % 13));
        }
        return values;
    }

    Map<String, Object> settings(Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", bootstrap));
        settings.putAll(more);
        return settings;
    }

    String topic(String name, int partitions) throws Exception {
        String full = prefix + "-" + name;
        within(admin.createTopics(List.of(new NewTopic(full, partitions, replicas))).all());
        return full;
    }

    private void send(List<ProducerRecord<byte[], byte[]>> records, Map<String, Object> more) throws Exception {
        Map<String, Object> settings = settings(more);
        settings.put("acks", "all");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            records.forEach(record -> sent.add(producer.send(record)));
            producer.flush();
            for (Future<RecordMetadata> each : sent) {
                within(each);
            }
        }
    }

    void sendValues(String name, List<String> values, Map<String, Object> more) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        values.forEach(value -> records.add(new ProducerRecord<>(name, 0, null, bytes(value))));
        send(records, more);
    }

    KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> more) {
        Map<String, Object> settings = settings(more);
        settings.putIfAbsent("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", false);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<ConsumerRecord<byte[], byte[]>> collect(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (found.size() < count && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(200)).forEach(found::add);
        }
        if (found.size() < count) {
            throw new AssertionError(found.size() + " records read instead of " + count);
        }
        return found;
    }

    private List<ConsumerRecord<byte[], byte[]>> read(String name, int count) {
        try (var consumer = consumer(Map.of())) {
            consumer.assign(List.of(new TopicPartition(name, 0)));
            return collect(consumer, count);
        }
    }

    private void produce(String tag, Map<String, Object> more) throws Exception {
        String name = topic("produce-" + tag, 1);
        List<String> sent = values(tag);
        sendValues(name, sent, more);
        List<String> found = new ArrayList<>();
        read(name, sent.size()).forEach(record -> found.add(new String(record.value(), StandardCharsets.UTF_8)));
        expect(found, sent, "values");
    }

    private void headers() throws Exception {
        String name = topic("headers", 1);
        List<Header> sent = List.of(new RecordHeader("a", bytes("1")), new RecordHeader("a", new byte[] {0, -1}), new RecordHeader("n", null));
        send(List.of(new ProducerRecord<>(name, 0, bytes("k"), null, sent)), Map.of());
        var found = read(name, 1).get(0);
        expect(Arrays.asList(found.headers().toArray()), sent, "headers");
        expect(Optional.ofNullable(found.value()), Optional.empty(), "the value");
    }

    private void offsets() throws Exception {
        String name = topic("offsets", 1);
        TopicPartition partition = new TopicPartition(name, 0);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (long at = 1; at <= 5; at++) {
            records.add(new ProducerRecord<>(name, 0, at * 1_000_000, null, bytes("x")));
        }
        send(records, Map.of());
        try (var consumer = consumer(Map.of())) {
            expect(consumer.endOffsets(List.of(partition)).get(partition), 5L, "the end");
            expect(consumer.offsetsForTimes(Map.of(partition, 2_500_000L)).get(partition).offset(), 2L, "the offset of a time");
        }
        for (var asked : Map.of(OffsetSpec.earliest(), 0L, OffsetSpec.latest(), 5L, OffsetSpec.maxTimestamp(), 4L).entrySet()) {
            var listed = within(admin.listOffsets(Map.of(partition, asked.getKey())).partitionResult(partition));
            expect(listed.offset(), asked.getValue(), asked.getKey().toString());
        }
    }

    private KafkaConsumer<byte[], byte[]> member(String name, String group, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("group.id", group);
        var member = consumer(settings);
        member.subscribe(List.of(name));
        return member;
    }

    private static void commit(KafkaConsumer<byte[], byte[]> member, String name, long offset) {
        member.commitSync(Map.of(new TopicPartition(name, 0), new OffsetAndMetadata(offset)));
    }

    private void groupCommit(String tag, Map<String, Object> settings) throws Exception {
        String name = topic(tag, 1);
        sendValues(name, values("commit"), Map.of());
        try (var first = member(name, name + "-group", settings)) {
            collect(first, 100);
            commit(first, name, 100);
        }
        try (var second = member(name, name + "-group", settings)) {
            expect(collect(second, 1).get(0).offset(), 100L, "the first record after the commit");
        }
    }

    private void groupRebalance(String tag, Map<String, Object> settings) throws Exception {
        String name = topic(tag, 4);
        try (var one = member(name, name + "-group", settings)) {
            try (var two = member(name, name + "-group", settings)) {
                until(List.of(2, 2), List.of(one, two));
            }
            until(List.of(4), List.of(one));
        }
    }

    private static void until(List<Integer> shares, List<KafkaConsumer<byte[], byte[]>> members) {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        List<Integer> found = new ArrayList<>();
        while (!found.equals(shares) && System.nanoTime() < deadline) {
            found.clear();
            members.forEach(member -> member.poll(Duration.ofMillis(100)));
            members.forEach(member -> found.add(member.assignment().size()));
        }
        expect(found, shares, "partitions of each member");
    }

    private void groupConsumerProtocol() throws Exception {
        groupCommit("commit-consumer", CONSUMER_PROTOCOL);
        groupRebalance("rebalance-consumer", CONSUMER_PROTOCOL);
        expectConsumerProtocol("commit-consumer");
        expectConsumerProtocol("rebalance-consumer");
    }

    private void killedConsumerProtocol() throws Exception {
        new Killed(this).run("killed-consumer", CONSUMER_PROTOCOL);
        expectConsumerProtocol("killed-consumer");
    }

    private void expectConsumerProtocol(String tag) throws Exception {
        String group = prefix + "-" + tag + "-group";
        var described = within(admin.describeConsumerGroups(List.of(group)).all()).get(group);
        expect(described.type(), GroupType.CONSUMER, "the type of the group");
    }

    private void groupPattern() throws Exception {
        String earlier = topic("pattern-earlier", 1);
        sendValues(earlier, List.of("earlier"), Map.of());
        try (var it = consumer(Map.of("group.id", prefix + "-pattern-group", "metadata.max.age.ms", 1000))) {
            it.subscribe(Pattern.compile(prefix + "-pattern-.*"));
            expect(collect(it, 1).get(0).topic(), earlier, "the topic that was there");
            it.commitSync();
            String later = topic("pattern-later", 1);
            sendValues(later, List.of("later"), Map.of());
            expect(collect(it, 1).get(0).topic(), later, "the topic that came later");
        }
    }

    private void adminTopics() throws Exception {
        String name = topic("admin", 2);
        within(admin.createPartitions(Map.of(name, NewPartitions.increaseTo(3))).all());
        eventually(() -> {
            TopicDescription described = within(admin.describeTopics(List.of(name)).allTopicNames()).get(name);
            expect(described.partitions().size(), 3, "partitions");
            expect(described.partitions().get(0).isr().size(), (int) replicas, "replicas in sync");
            expect(within(admin.listTopics().names()).contains(name), true, "it is listed");
        });
        within(admin.deleteTopics(List.of(name)).all());
    }

    private void expectValue(ConfigResource resource, String key, String wanted, String what) throws Exception {
        eventually(() -> {
            Config config = within(admin.describeConfigs(List.of(resource)).all()).get(resource);
            String found = config.get(key).value() + " " + config.get(key).source();
            expect(found.endsWith(wanted) ? wanted : found, wanted, what);
        });
    }

    private void alter(ConfigResource resource, String key, String value, AlterConfigOp.OpType type) throws Exception {
        Collection<AlterConfigOp> change = List.of(new AlterConfigOp(new ConfigEntry(key, value), type));
        within(admin.incrementalAlterConfigs(Map.of(resource, change)).all());
    }

    private void adminConfigs() throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, topic("configs", 1));
        alter(topic, "retention.ms", "123456", AlterConfigOp.OpType.SET);
        expectValue(topic, "retention.ms", "123456 DYNAMIC_TOPIC_CONFIG", "retention.ms");
        ConfigResource all = new ConfigResource(ConfigResource.Type.BROKER, "");
        ConfigResource one = new ConfigResource(ConfigResource.Type.BROKER, "1");
        String key = "leader.replication.throttled.rate";
        alter(all, key, "1000000000", AlterConfigOp.OpType.SET);
        expectValue(one, key, "1000000000 DYNAMIC_DEFAULT_BROKER_CONFIG", "what is set for all nodes");
        alter(one, key, "2000000000", AlterConfigOp.OpType.SET);
        expectValue(one, key, "2000000000 DYNAMIC_BROKER_CONFIG", "what is set for one node");
        alter(one, key, "", AlterConfigOp.OpType.DELETE);
        alter(all, key, "", AlterConfigOp.OpType.DELETE);
        expectValue(one, key, " DEFAULT_CONFIG", "it is as it was");
    }

    private void adminGroups() throws Exception {
        String name = topic("groups", 1);
        String group = prefix + "-admin-group";
        TopicPartition partition = new TopicPartition(name, 0);
        sendValues(name, values("groups"), Map.of());
        try (var it = member(name, group, CLASSIC)) {
            collect(it, 10);
            commit(it, name, 10);
            ConsumerGroupDescription described = within(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            expect(described.members().size(), 1, "members");
        }
        expect(within(admin.listConsumerGroups().all()).stream().anyMatch(it -> it.groupId().equals(group)), true, "it is listed");
        var committed = within(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        expect(committed.get(partition).offset(), 10L, "what is committed");
        within(admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(3))).all());
        within(admin.deleteConsumerGroups(List.of(group)).all());
    }

    private void adminCluster() throws Exception {
        String name = topic("cluster", 1);
        TopicPartition partition = new TopicPartition(name, 0);
        sendValues(name, values("cluster"), Map.of("enable.idempotence", true));
        expect(within(admin.describeCluster().nodes()).size(), (int) replicas, "nodes");
        var quorum = within(admin.describeMetadataQuorum().quorumInfo());
        expect(quorum.voters().size() + quorum.observers().size(), (int) replicas, "voters and observers");
        Map<Integer, Map<String, LogDirDescription>> folders = within(admin.describeLogDirs(List.of(1)).allDescriptions());
        expect(folders.get(1).size(), 1, "folders of logs");
        var producers = within(admin.describeProducers(List.of(partition)).partitionResult(partition));
        expect(producers.activeProducers().size(), 1, "idempotent producers");
        // Its leader is the preferred one: nothing is to be done, and that is told.
        var elected = within(admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions());
        expect(elected.get(partition).isPresent(), true, "an answer of the election");
        var features = within(admin.describeFeatures().featureMetadata());
        expect(new TreeMap<>(features.finalizedFeatures()).containsKey("headwater.version"), true, "the level in force");
    }
}
