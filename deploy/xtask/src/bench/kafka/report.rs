//! What was measured, side by side, with the ratios: as a table, and as JSON.
//!
//! Pure. It owns the names of the figures that stand in the table. It must never leave a failure out.

use std::fmt::Write;

use serde_json::{Value, json};

use super::brokers::{Acks, Kind};
use super::work::Figures;

/// What the others on the machine used meanwhile: it says how far the figures can be trusted.
const OTHERS: &str = "others_cores";

/// A figure: its name in the JSON, what it is called in the table, how many digits it has, and which way is better.
struct Figure(&'static str, &'static str, usize, Better);

#[derive(Debug, Clone, Copy)]
enum Better {
    More,
    Less,
}

const FIGURES: &[Figure] = &[
    Figure("mb_s", "MB/s", 1, Better::More),
    Figure("join_ms", "ms to join the group", 0, Better::Less),
    Figure("first_ms", "ms, first start", 0, Better::Less),
    Figure("again_ms", "ms, start again", 0, Better::Less),
    Figure(
        "failover_ms",
        "ms to the next acknowledgement, p50",
        0,
        Better::Less,
    ),
    Figure(
        "failover_max_ms",
        "ms to the next acknowledgement, at most",
        0,
        Better::Less,
    ),
    Figure(
        "silence_ms",
        "ms without an acknowledgement, p50",
        0,
        Better::Less,
    ),
    Figure("average_ms", "ms on average", 3, Better::Less),
    Figure("ack_p50_ms", "ms to the acknowledgement, p50", 3, Better::Less),
    Figure("ack_p99_ms", "ms to the acknowledgement, p99", 3, Better::Less),
    Figure(
        "ack_p99_9_ms",
        "ms to the acknowledgement, p99.9",
        3,
        Better::Less,
    ),
    Figure("p50_ms", "ms, p50", 3, Better::Less),
    Figure("p99_ms", "ms, p99", 3, Better::Less),
    Figure("p99_9_ms", "ms, p99.9", 3, Better::Less),
    Figure("cpu_s", "s of CPU", 2, Better::Less),
    Figure("peak_mb", "MB resident at most", 0, Better::Less),
];

/// One piece of work of one broker's turn.
pub(super) struct Sample {
    pub(super) brokers: usize,
    pub(super) acks: Acks,
    pub(super) round: usize,
    pub(super) kind: Kind,
    pub(super) work: String,
    pub(super) figures: Result<Figures, String>,
}

/// A figure of both brokers.
#[derive(Debug)]
struct Row {
    brokers: usize,
    acks: Acks,
    work: String,
    figure: usize,
    headwater: Option<f64>,
    kafka: Option<f64>,
    /// Headwater's by Kafka's, round by round.
    ratios: Vec<f64>,
}

impl Row {
    /// Of the medians.
    fn ratio(&self) -> Option<f64> {
        quotient(self.headwater?, self.kafka?)
    }
}

fn quotient(headwater: f64, kafka: f64) -> Option<f64> {
    (kafka > 0.0).then(|| headwater / kafka)
}

fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut seen: Vec<(usize, Acks, &str)> = Vec::new();
    for sample in samples {
        let key = (sample.brokers, sample.acks, sample.work.as_str());
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    let mut rows = Vec::new();
    for key in seen {
        rows.extend((0..FIGURES.len()).filter_map(|figure| row(samples, key, figure)));
    }
    rows
}

fn row(samples: &[Sample], key: (usize, Acks, &str), figure: usize) -> Option<Row> {
    let Figure(name, ..) = FIGURES[figure];
    let values = |kind: Kind| {
        let of_kind = samples.iter().filter(move |sample| {
            sample.kind == kind && (sample.brokers, sample.acks, sample.work.as_str()) == key
        });
        of_kind.filter_map(move |sample| Some((sample.round, *sample.figures.as_ref().ok()?.get(name)?)))
    };
    let headwater: Vec<_> = values(Kind::Headwater).collect();
    let kafka: Vec<_> = values(Kind::Kafka).collect();
    if headwater.is_empty() && kafka.is_empty() {
        return None;
    }
    let ratios = headwater.iter().filter_map(|(round, ours)| {
        let (_, theirs) = kafka.iter().find(|(other, _)| other == round)?;
        quotient(*ours, *theirs)
    });
    let median = |values: &[(usize, f64)]| median(values.iter().map(|(_, value)| *value).collect());
    let (brokers, acks, work) = key;
    Some(Row {
        brokers,
        acks,
        work: work.to_owned(),
        figure,
        ratios: ratios.collect(),
        headwater: median(&headwater),
        kafka: median(&kafka),
    })
}

/// The one in the middle, or half way between the two that are.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The table, in Markdown, and under it what failed.
pub(super) fn table(samples: &[Sample]) -> String {
    let mut text = String::from(
        "| brokers | acks | work | figure | Headwater | Kafka | Headwater / Kafka | of each round | better is |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows(samples) {
        let Figure(_, title, digits, better) = &FIGURES[row.figure];
        let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| number(value, *digits));
        let ratio = row
            .ratio()
            .map_or_else(|| "-".to_owned(), |ratio| format!("{} x", shown(ratio)));
        let rounds: Vec<_> = row.ratios.iter().copied().map(shown).collect();
        let (rounds, better) = (rounds.join(" "), better.word());
        let Row {
            brokers, acks, work, ..
        } = &row;
        let (headwater, kafka) = (value(row.headwater), value(row.kafka));
        let line = format!(
            "| {brokers} | {acks} | {work} | {title} | {headwater} | {kafka} | {ratio} | {rounds} | {better} |"
        );
        text.push_str(&line);
        text.push('\n');
    }
    let others: Vec<f64> = samples
        .iter()
        .filter_map(|sample| sample.figures.as_ref().ok()?.get(OTHERS).copied())
        .collect();
    let most = others.iter().copied().fold(0.0, f64::max);
    if let Some(median) = median(others) {
        let _ = writeln!(
            text,
            "\nOthers used {median:.2} cores meanwhile (median), {most:.2} at most."
        );
    }
    for (sample, why) in failures(samples) {
        let Sample {
            brokers,
            acks,
            round,
            kind,
            work,
            ..
        } = sample;
        let _ = writeln!(
            text,
            "\nFAILED: {kind}, {brokers} brokers, {acks}, round {round}, {work}: {why}"
        );
    }
    text
}

/// Thousandths of something large are noise.
fn number(value: f64, digits: usize) -> String {
    let digits = if value < 100.0 { digits } else { digits.min(1) };
    format!("{value:.digits$}")
}

/// With as many digits as it takes to see something.
fn shown(ratio: f64) -> String {
    let digits = if ratio < 0.1 { 3 } else { 2 };
    format!("{ratio:.digits$}")
}

pub(super) fn failures(samples: &[Sample]) -> impl Iterator<Item = (&Sample, &String)> {
    samples
        .iter()
        .filter_map(|sample| Some((sample, sample.figures.as_ref().err()?)))
}

impl Better {
    fn word(self) -> &'static str {
        match self {
            Self::More => "more",
            Self::Less => "less",
        }
    }
}

/// All of it: each sample, and the ratios.
pub(super) fn json(samples: &[Sample]) -> Value {
    let ratios = rows(samples).into_iter().map(|row| {
        let Figure(name, _, _, better) = &FIGURES[row.figure];
        json!({
            "brokers": row.brokers,
            "acks": row.acks.to_string(),
            "work": row.work,
            "figure": name,
            "better": better.word(),
            "headwater": row.headwater,
            "kafka": row.kafka,
            "ratio": row.ratio(),
            "ratios": row.ratios,
        })
    });
    let all = samples.iter().map(|sample| {
        let (figures, failed) = match &sample.figures {
            Ok(figures) => (json!(figures), Value::Null),
            Err(why) => (Value::Null, json!(why)),
        };
        json!({
            "brokers": sample.brokers,
            "acks": sample.acks.to_string(),
            "round": sample.round,
            "broker": sample.kind.to_string(),
            "work": sample.work,
            "figures": figures,
            "failed": failed,
        })
    });
    json!({ "ratios": ratios.collect::<Vec<_>>(), "samples": all.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: usize, kind: Kind, figures: Result<&[(&'static str, f64)], &str>) -> Sample {
        Sample {
            brokers: 1,
            acks: Acks::Synced,
            round,
            kind,
            work: "produce".to_owned(),
            figures: figures
                .map(|figures| figures.iter().copied().collect())
                .map_err(str::to_owned),
        }
    }

    #[test]
    fn ratios_are_of_medians_and_of_each_round() {
        let samples = [
            sample(
                1,
                Kind::Headwater,
                Ok(&[("mb_s", 300.0), ("others_cores", 0.1), ("cpu_s", 1.0)]),
            ),
            sample(
                1,
                Kind::Kafka,
                Ok(&[("mb_s", 100.0), ("others_cores", 0.3), ("cpu_s", 4.0)]),
            ),
            sample(2, Kind::Kafka, Ok(&[("mb_s", 200.0)])),
            sample(2, Kind::Headwater, Ok(&[("mb_s", 300.0)])),
        ];
        let text = table(&samples);
        let expected = "| 1 | synced | produce | MB/s | 300.0 | 150.0 | 2.00 x | 3.00 1.50 | more |\n\
                        | 1 | synced | produce | s of CPU | 1.00 | 4.00 | 0.25 x | 0.25 | less |\n\n\
                        Others used 0.20 cores meanwhile (median), 0.30 at most.\n";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(json(&samples)["ratios"][0]["ratio"], 2.0);
    }

    #[test]
    fn a_failure_is_told_and_takes_nothing_from_the_other() {
        let samples = [
            sample(1, Kind::Headwater, Err("it crashed")),
            sample(1, Kind::Kafka, Ok(&[("mb_s", 100.0)])),
        ];
        let text = table(&samples);
        assert!(text.contains("| MB/s | - | 100.0 | - |  | more |"), "{text}");
        assert!(
            text.contains("FAILED: headwater, 1 brokers, synced, round 1, produce: it crashed"),
            "{text}"
        );
        assert_eq!(failures(&samples).count(), 1);
        assert_eq!(json(&samples)["samples"][0]["failed"], "it crashed");
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
