import java.io.PrintWriter;
import java.util.List;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;

/** Reads a topic up to its end: `BOOTSTRAP TOPIC FILE`; writes each record to the file, and each partition's count and sum. */
public final class Batch {
    private Batch() {}

    public static void main(String[] arguments) throws Exception {
        SparkSession session = SparkSession.builder().master("local[2]").appName("batch").getOrCreate();
        session.sparkContext().setLogLevel("WARN");
        Dataset<Row> records = session.read()
            .format("kafka")
            .option("kafka.bootstrap.servers", arguments[0])
            .option("subscribe", arguments[1])
            .option("startingOffsets", "earliest")
            .option("endingOffsets", "latest")
            .load()
            .selectExpr("partition", "offset", "unix_millis(timestamp) AS time", "CAST(CAST(value AS STRING) AS LONG) AS number");
        records.createOrReplaceTempView("records");
        List<Row> each = records.collectAsList();
        List<Row> all =
            session.sql("SELECT partition, count(*), sum(number) FROM records GROUP BY partition").collectAsList();
        try (PrintWriter file = new PrintWriter(arguments[2])) {
            each.forEach(row -> file.println("record " + row.mkString(" ")));
            all.forEach(row -> file.println("sum " + row.mkString(" ")));
        }
        session.stop();
    }
}
