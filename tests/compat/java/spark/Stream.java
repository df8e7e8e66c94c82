import static org.apache.spark.sql.functions.col;
import static org.apache.spark.sql.functions.count;
import static org.apache.spark.sql.functions.sum;
import static org.apache.spark.sql.functions.window;

import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.streaming.Trigger;

/**
 * Counts and sums numbers by key and windows of a second, at least once: `BOOTSTRAP FROM TO FOLDER`; runs until it is killed, and
 * goes on from its checkpoint in the folder.
 */
public final class Stream {
    private Stream() {}

    public static void main(String[] arguments) throws Exception {
        SparkSession session = SparkSession.builder().master("local[2]").appName("stream").getOrCreate();
        session.sparkContext().setLogLevel("WARN");
        session.readStream()
            .format("kafka")
            .option("kafka.bootstrap.servers", arguments[0])
            .option("subscribe", arguments[1])
            .option("startingOffsets", "earliest")
            // So that there are batches enough to be killed in.
            .option("maxOffsetsPerTrigger", 500)
            .load()
            .selectExpr("timestamp", "CAST(key AS STRING) AS name", "CAST(CAST(value AS STRING) AS LONG) AS number")
            .withWatermark("timestamp", "10 seconds")
            .groupBy(window(col("timestamp"), "1 second"), col("name"))
            .agg(count("*").as("count"), sum("number").as("sum"))
            .selectExpr("concat(name, '@', unix_millis(window.start)) AS key", "concat(count, ' ', sum) AS value")
            .writeStream()
            .format("kafka")
            .option("kafka.bootstrap.servers", arguments[0])
            .option("topic", arguments[2])
            .option("checkpointLocation", arguments[3])
            .outputMode("append")
            .trigger(Trigger.ProcessingTime("100 milliseconds"))
            .start()
            .awaitTermination();
    }
}
