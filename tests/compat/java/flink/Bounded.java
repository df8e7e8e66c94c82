import java.io.PrintWriter;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.CloseableIterator;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Reads a topic up to its end: `BOOTSTRAP TOPIC FILE`; writes each record to the file, and each partition's count and sum. */
public final class Bounded {
    private Bounded() {}

    public static void main(String[] arguments) throws Exception {
        KafkaSource<Tuple4<Integer, Long, Long, Long>> source = KafkaSource.<Tuple4<Integer, Long, Long, Long>>builder()
            .setBootstrapServers(arguments[0])
            .setTopics(arguments[1])
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setBounded(OffsetsInitializer.latest())
            .setDeserializer(new Place())
            .build();
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(2);
        environment.setRuntimeMode(RuntimeExecutionMode.BATCH);
        DataStream<Tuple4<Integer, Long, Long, Long>> records =
            environment.fromSource(source, WatermarkStrategy.noWatermarks(), "topic");
        DataStream<Tuple3<Integer, Long, Long>> sums = records
            .map(record -> Tuple3.of(record.f0, 1L, record.f3))
            .returns(Types.TUPLE(Types.INT, Types.LONG, Types.LONG))
            .keyBy(sum -> sum.f0)
            .reduce((one, other) -> Tuple3.of(one.f0, one.f1 + other.f1, one.f2 + other.f2));
        CloseableIterator<Tuple4<Integer, Long, Long, Long>> each = records.collectAsync();
        CloseableIterator<Tuple3<Integer, Long, Long>> all = sums.collectAsync();
        environment.execute();
        try (PrintWriter file = new PrintWriter(arguments[2])) {
            each.forEachRemaining(record -> file.printf("record %d %d %d %d%n", record.f0, record.f1, record.f2, record.f3));
            all.forEachRemaining(sum -> file.printf("sum %d %d %d%n", sum.f0, sum.f1, sum.f2));
        }
    }

    /** A record as its partition, offset, timestamp and number. */
    private static final class Place implements KafkaRecordDeserializationSchema<Tuple4<Integer, Long, Long, Long>> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Tuple4<Integer, Long, Long, Long>> out) {
            long number = Long.parseLong(new String(record.value()));
            out.collect(Tuple4.of(record.partition(), record.offset(), record.timestamp(), number));
        }

        @Override
        public TypeInformation<Tuple4<Integer, Long, Long, Long>> getProducedType() {
            return Types.TUPLE(Types.INT, Types.LONG, Types.LONG, Types.LONG);
        }
    }
}
