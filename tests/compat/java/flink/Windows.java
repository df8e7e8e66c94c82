import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * Counts and sums numbers by key and windows of a second, exactly once: `BOOTSTRAP NAME FROM TO FOLDER NAMING [CHECKPOINT]`; runs
 * until it is killed. NAME is its group, and what its transactions' ids begin with; NAMING is how these go on.
 */
public final class Windows {
    private Windows() {}

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        String name = arguments[1];
        KafkaSource<Tuple2<String, Long>> source = KafkaSource.<Tuple2<String, Long>>builder()
            .setBootstrapServers(bootstrap)
            .setGroupId(name)
            .setTopics(arguments[2])
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setProperty("partition.discovery.interval.ms", "500")
            .setDeserializer(new Number())
            .build();
        KafkaSink<Tuple2<String, String>> sink = KafkaSink.<Tuple2<String, String>>builder()
            .setBootstrapServers(bootstrap)
            .setRecordSerializer(KafkaRecordSerializationSchema.<Tuple2<String, String>>builder()
                .setTopic(arguments[3])
                .setKeySerializationSchema(new Field(0))
                .setValueSerializationSchema(new Field(1))
                .build())
            .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
            .setTransactionalIdPrefix(name)
            .setTransactionNamingStrategy(TransactionNamingStrategy.valueOf(arguments[5]))
            // Its own is an hour, which is more than a broker allows.
            .setProperty("transaction.timeout.ms", "300000")
            .build();
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(2, settings(arguments));
        environment
            .fromSource(source, WatermarkStrategy.forMonotonousTimestamps(), "numbers")
            .keyBy(number -> number.f0)
            .window(TumblingEventTimeWindows.of(Duration.ofSeconds(1)))
            .process(new Sum())
            .sinkTo(sink);
        environment.execute();
    }

    private static Configuration settings(String[] arguments) {
        Configuration settings = new Configuration();
        settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(500));
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + arguments[4]);
        settings.set(
            CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION, ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
        // A failure must be seen, not mended.
        settings.set(RestartStrategyOptions.RESTART_STRATEGY, "none");
        if (arguments.length > 6) {
            settings.set(StateRecoveryOptions.SAVEPOINT_PATH, arguments[6]);
        }
        return settings;
    }

    private static final class Number implements KafkaRecordDeserializationSchema<Tuple2<String, Long>> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Tuple2<String, Long>> out) {
            out.collect(Tuple2.of(new String(record.key()), Long.parseLong(new String(record.value()))));
        }

        @Override
        public TypeInformation<Tuple2<String, Long>> getProducedType() {
            return Types.TUPLE(Types.STRING, Types.LONG);
        }
    }

    /** A class, as Flink looks for its type; the sink must know its topic, for its transactions' ids to come from a pool. */
    private static final class Field implements SerializationSchema<Tuple2<String, String>> {
        private final int at;

        private Field(int at) {
            this.at = at;
        }

        @Override
        public byte[] serialize(Tuple2<String, String> window) {
            return window.<String>getField(at).getBytes();
        }
    }

    private static final class Sum
        extends ProcessWindowFunction<Tuple2<String, Long>, Tuple2<String, String>, String, TimeWindow> {
        @Override
        public void process(
            String key, Context context, Iterable<Tuple2<String, Long>> numbers, Collector<Tuple2<String, String>> out) {
            long count = 0;
            long sum = 0;
            for (Tuple2<String, Long> number : numbers) {
                count++;
                sum += number.f1;
            }
            out.collect(Tuple2.of(key + "@" + context.window().getStart(), count + " " + sum));
        }
    }
}
