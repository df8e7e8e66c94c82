//! Reads what Kafka's tools print. Megabytes are 10^6 bytes here, and 2^20 there.

use super::work::Figures;

/// Of `ProducerPerformance`: its last line, which leaves the records of the warm-up out.
pub(super) fn produced(said: &str, size: u64) -> Option<Figures> {
    let line = said.lines().rfind(|line| line.contains("99.9th"))?;
    let before = |unit: &str| {
        let (front, _) = line.split_once(unit)?;
        front.rsplit([' ', '(']).next()?.parse::<f64>().ok()
    };
    let records = before(" records/sec")?;
    Some(Figures::from([
        ("records_s", records),
        ("mb_s", records * size as f64 / 1e6),
        ("p50_ms", before(" ms 50th")?),
        ("p99_ms", before(" ms 99th")?),
    ]))
}

/// Of `ConsumerPerformance`, with how many records it found. Joining the group is told apart from fetching.
pub(super) fn consumed(said: &str, size: u64) -> Option<(Figures, f64)> {
    let line = said.lines().rev().find(|line| !line.trim().is_empty())?;
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    // start, end, MiB, MiB/s, records, records/s, rebalance in ms, fetch in ms, MiB/s and records/s of the fetches
    let (records, join_ms, fetch_ms) = (number(4)?, number(6)?, number(7)?);
    let per_second = records / (fetch_ms.max(1.0) / 1e3);
    let figures = Figures::from([
        ("records_s", per_second),
        ("mb_s", per_second * size as f64 / 1e6),
        ("join_ms", join_ms),
    ]);
    Some((figures, records))
}

/// Of `EndToEndLatency`, which has its percentiles in whole milliseconds.
pub(super) fn end_to_end(said: &str) -> Option<Figures> {
    let line = said.lines().find_map(|line| line.strip_prefix("Avg latency: "))?;
    let average = line.split_whitespace().next()?.parse().ok()?;
    Some(Figures::from([("average_ms", average)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_read_without_its_warm_up() {
        let said = "100000 records sent, 1484.119917 records/sec (1.42 MB/sec), 15249.78 ms avg latency, 25212.00 ms max latency, \
                    13947 ms 50th, 23649 ms 95th, 24772 ms 99th, 25146 ms 99.9th.\n\
                    80000 steady state records sent, 1500.000000 records/sec (1.43 MB/sec), 16157.91 ms avg latency, \
                    25212.00 ms max latency, 14216 ms 50th, 23983 ms 95th, 24887 ms 99th, 25166 ms 99.9th.\n";
        let expected = Figures::from([
            ("records_s", 1500.0),
            ("mb_s", 1.5),
            ("p50_ms", 14216.0),
            ("p99_ms", 24887.0),
        ]);
        assert_eq!(produced(said, 1_000), Some(expected));
        assert_eq!(produced("it crashed", 1_000), None);
    }

    #[test]
    fn a_consumer_is_read_without_its_joining() {
        let said = "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, \
                    fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n\
                    2026-11-28 09:41:10:825, 2026-11-28 09:41:21:141, 95.3674, 9.2, 100000, 9693.7, 3500, 500, 190.7, 200000.0\n";
        let (figures, records) = consumed(said, 1_000).expect("its figures");
        let expected = Figures::from([("records_s", 200_000.0), ("mb_s", 200.0), ("join_ms", 3500.0)]);
        assert_eq!((figures, records), (expected, 100_000.0));
        assert_eq!(consumed("WARNING: no", 1_000), None);
    }

    #[test]
    fn the_average_from_end_to_end_is_found() {
        let said =
            "0\t1115.765638\nAvg latency: 28.7741 ms\nPercentiles: 50th = 22, 99th = 102, 99.9th = 179\n";
        assert_eq!(end_to_end(said), Some(Figures::from([("average_ms", 28.7741)])));
    }
}
