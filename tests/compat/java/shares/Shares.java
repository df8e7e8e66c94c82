import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Share groups (KIP-932), which older clients do not have: this is compiled only beside those that do. */
public final class Shares implements Compat.More {
    private Compat compat;

    @Override
    public Map<String, Compat.Check> features(Compat compat) {
        this.compat = compat;
        Map<String, Compat.Check> features = new LinkedHashMap<>();
        features.put(Compat.SHARES.get(0), this::shared);
        features.put(Compat.SHARES.get(1), this::acknowledged);
        features.put(Compat.SHARES.get(2), this::killed);
        features.put(Compat.SHARES.get(3), this::admin);
        return features;
    }

    /** A member that says of each record by itself what became of it. */
    private KafkaShareConsumer<byte[], byte[]> member(String group, String topic) {
        Map<String, Object> settings = new HashMap<>(compat.settings(Map.of()));
        settings.put("group.id", group);
        settings.put("share.acknowledgement.mode", "explicit");
        var member = new KafkaShareConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        member.subscribe(List.of(topic));
        return member;
    }

    /** A group that begins with the first record. */
    private String group(String name) throws Exception {
        ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, name);
        var earliest = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET);
        Collection<AlterConfigOp> change = List.of(earliest);
        Compat.within(compat.admin.incrementalAlterConfigs(Map.of(group, change)).all());
        return name;
    }

    private static String value(ConsumerRecord<byte[], byte[]> record) {
        return new String(record.value(), StandardCharsets.UTF_8);
    }

    /** Takes what there is and says what the rule says of it, then waits for that to hold. What it took, by value. */
    private static Map<String, Short> take(
            KafkaShareConsumer<byte[], byte[]> member, Function<String, AcknowledgeType> rule) {
        Map<String, Short> taken = new TreeMap<>();
        for (var record : member.poll(Duration.ofMillis(200))) {
            taken.put(value(record), record.deliveryCount().get());
            member.acknowledge(record, rule.apply(value(record)));
        }
        member.commitSync().forEach((partition, failure) -> failure.ifPresent(it -> {
            throw it;
        }));
        return taken;
    }

    private static AcknowledgeType accept(String value) {
        return AcknowledgeType.ACCEPT;
    }

    private static long deadline() {
        return System.nanoTime() + Compat.PATIENCE.toNanos();
    }

    private List<String> send(String topic, String tag) throws Exception {
        List<String> sent = new ArrayList<>();
        for (String value : Compat.values(tag)) {
            sent.add(value.trim());
        }
        compat.sendValues(topic, sent, Map.of("enable.idempotence", true));
        return sent;
    }

    /** Two members divide the records of one partition, each record once; who comes later gets none of them. */
    private void shared() throws Exception {
        String topic = compat.topic("shared", 1);
        String group = group(topic + "-group");
        List<String> found = new ArrayList<>();
        try (var one = member(group, topic); var two = member(group, topic)) {
            take(one, Shares::accept);
            take(two, Shares::accept);
            List<String> sent = new ArrayList<>();
            Set<Object> busy = new HashSet<>();
            long deadline = deadline();
            for (int round = 0; busy.size() < 2 && round < 20 && System.nanoTime() < deadline; round++) {
                sent.addAll(send(topic, "shared " + round));
                while (found.size() < sent.size() && System.nanoTime() < deadline) {
                    for (var member : List.of(one, two)) {
                        // What is taken by this one is not there for the other.
                        var taken = take(member, Shares::accept).keySet();
                        found.addAll(taken);
                        busy.addAll(taken.isEmpty() ? Set.of() : Set.of(member));
                    }
                }
            }
            Compat.expect(new ArrayList<>(new java.util.TreeSet<>(found)), new ArrayList<>(new java.util.TreeSet<>(sent)), "records");
            Compat.expect(found.size(), sent.size(), "records in all");
            Compat.expect(busy.size(), 2, "members with records");
        }
        try (var later = member(group, topic)) {
            String last = "the last one";
            compat.sendValues(topic, List.of(last), Map.of("enable.idempotence", true));
            Map<String, Short> taken = new TreeMap<>();
            for (long deadline = deadline(); taken.isEmpty() && System.nanoTime() < deadline; ) {
                taken.putAll(take(later, Shares::accept));
            }
            Compat.expect(taken, Map.of(last, (short) 1), "what is left");
        }
    }

    /** Accepted and rejected records do not come again; released ones do, counted, until it is enough. */
    private void acknowledged() throws Exception {
        String topic = compat.topic("acknowledged", 1);
        String group = group(topic + "-group");
        compat.sendValues(topic, List.of("accepted", "rejected", "released", "hopeless"), Map.of("enable.idempotence", true));
        Map<String, Integer> counts = new TreeMap<>();
        Function<String, AcknowledgeType> rule = value -> switch (value) {
            case "rejected" -> AcknowledgeType.REJECT;
            case "hopeless" -> AcknowledgeType.RELEASE;
            case "released" -> counts.getOrDefault(value, 0) == 0 ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT;
            default -> AcknowledgeType.ACCEPT;
        };
        Map<String, Integer> wanted = Map.of("accepted", 1, "rejected", 1, "released", 2, "hopeless", 5, "the end", 1);
        try (var member = member(group, topic)) {
            long deadline = deadline();
            boolean isEnding = false;
            while (!counts.containsKey("the end") && System.nanoTime() < deadline) {
                take(member, rule).forEach((value, count) -> {
                    int before = counts.merge(value, 1, Integer::sum);
                    Compat.expect((int) count, before, "how often " + value + " was delivered");
                });
                if (!isEnding && counts.getOrDefault("hopeless", 0) == 5) {
                    isEnding = true;
                    compat.sendValues(topic, List.of("the end"), Map.of("enable.idempotence", true));
                }
            }
        }
        Compat.expect(counts, new TreeMap<>(wanted), "deliveries");
    }

    /** The leader is killed and started again: each record is accepted at least once, and none again that was. */
    private void killed() throws Exception {
        String topic = compat.topic("killed-shared", 1);
        String group = group(topic + "-group");
        TopicPartition partition = new TopicPartition(topic, 0);
        List<String> sent = new ArrayList<>();
        Map<String, Integer> accepted = new TreeMap<>();
        try (var member = member(group, topic)) {
            CompletableFuture<Void> back = null;
            boolean isOver = false;
            long deadline = deadline();
            for (int round = 0; (!isOver || accepted.size() < sent.size()) && System.nanoTime() < deadline; round++) {
                if (!isOver) {
                    String value = "killed " + round;
                    compat.sendValues(topic, List.of(value), Map.of("enable.idempotence", true));
                    sent.add(value);
                }
                try {
                    take(member, Shares::accept).keySet().forEach(value -> accepted.merge(value, 1, Integer::sum));
                } catch (org.apache.kafka.common.errors.ApiException failure) {
                    // What it said then does not hold, or is not known to: it comes again, perhaps.
                    if (back == null) {
                        throw failure;
                    }
                }
                if (round == 20) {
                    back = Killed.kill(compat, partition);
                }
                isOver |= back != null && back.isDone();
            }
            if (back != null) {
                Compat.within(back);
            }
        }
        Compat.expect(accepted.keySet(), new java.util.TreeSet<>(sent), "records");
        List<String> twice = new ArrayList<>();
        accepted.forEach((value, count) -> twice.addAll(count > 1 ? List.of(value) : List.of()));
        Compat.expect(twice, List.of(), "records that came again though they were accepted");
    }

    /** A group is listed and described; where it begins is told, moved and forgotten; it goes. */
    private void admin() throws Exception {
        String topic = compat.topic("admin-shared", 1);
        String group = group(topic + "-group");
        TopicPartition partition = new TopicPartition(topic, 0);
        List<String> sent = send(topic, "admin");
        try (var member = member(group, topic)) {
            Set<String> found = new HashSet<>();
            for (long deadline = deadline(); found.size() < sent.size() && System.nanoTime() < deadline; ) {
                found.addAll(take(member, Shares::accept).keySet());
            }
            Compat.expect(found.size(), sent.size(), "records");
            var described = Compat.within(compat.admin.describeShareGroups(List.of(group)).all()).get(group);
            Compat.expect(described.members().size(), 1, "members");
        }
        var listed = Compat.within(compat.admin.listGroups(ListGroupsOptions.forShareGroups()).all());
        Compat.expect(listed.stream().anyMatch(it -> it.groupId().equals(group)), true, "it is listed");
        expectStart(group, partition, sent.size());
        Compat.eventually(() -> Compat.within(compat.admin.alterShareGroupOffsets(group, Map.of(partition, 10L)).all()));
        expectStart(group, partition, 10L);
        Compat.within(compat.admin.deleteShareGroupOffsets(group, Set.of(topic)).all());
        Compat.within(compat.admin.deleteShareGroups(List.of(group)).all());
    }

    private void expectStart(String group, TopicPartition partition, long wanted) throws Exception {
        Compat.eventually(() -> {
            var asked = Map.of(group, new ListShareGroupOffsetsSpec());
            var offsets = Compat.within(compat.admin.listShareGroupOffsets(asked).partitionsToOffsetInfo(group));
            Compat.expect(offsets.get(partition).startOffset(), wanted, "where it begins");
        });
    }
}
