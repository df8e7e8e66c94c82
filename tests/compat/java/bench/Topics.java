import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;

/**
 * Makes topics, the same way for every broker, and returns when all their replicas are in sync. Kafka's own TopicCommand refuses
 * properties that Kafka does not know. Arguments: bootstrap, replicas, KEY=VALUE,KEY=VALUE (or nothing), NAME:PARTITIONS...
 */
public final class Topics {
    static final Duration PATIENCE = Duration.ofSeconds(60);

    private Topics() {}

    public static void main(String[] arguments) throws Exception {
        short replicas = Short.parseShort(arguments[1]);
        List<NewTopic> topics = new ArrayList<>();
        for (int at = 3; at < arguments.length; at++) {
            String[] topic = arguments[at].split(":");
            topics.add(new NewTopic(topic[0], Integer.parseInt(topic[1]), replicas).configs(properties(arguments[2])));
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            make(admin, topics, replicas);
        }
    }

    static Map<String, String> properties(String text) {
        Map<String, String> properties = new HashMap<>();
        for (String property : text.split(",")) {
            int at = property.indexOf('=');
            if (at > 0) {
                properties.put(property.substring(0, at), property.substring(at + 1));
            }
        }
        return properties;
    }

    static void make(Admin admin, List<NewTopic> topics, int replicas) throws Exception {
        admin.createTopics(topics).all().get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
        for (NewTopic topic : topics) {
            await(admin, topic.name(), replicas);
        }
    }

    /** Returns when every partition has a leader and so many replicas in sync. */
    static void await(Admin admin, String topic, int replicas) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (System.nanoTime() < deadline) {
            try {
                TopicDescription found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
                if (found.partitions().stream().allMatch(at -> at.leader() != null && at.isr().size() >= replicas)) {
                    return;
                }
            } catch (java.util.concurrent.ExecutionException notYet) {
                // The node that is asked may not have heard of it.
            }
            Thread.sleep(50);
        }
        throw new IllegalStateException(topic + " has not " + replicas + " replicas in sync");
    }
}
