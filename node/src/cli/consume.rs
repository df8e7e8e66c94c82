//! `headwater consume`: the records of a topic on standard output, one a line; all of them, or a member's share.

mod member;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headwater_sdk::protocol::ids::{Offset, PartitionIndex};
use headwater_sdk::protocol::record::Headers;
use headwater_sdk::{Batch, Client, Consumer, ConsumerConfig, Isolation, OffsetSpec, RecordView, Start};
use serde_json::{Value, json};

use super::common::{Common, Format, print_bytes};
use super::failure::Failure;
use super::time;
use crate::sys::clock::Clock;

/// How often the end is looked for when no record comes.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Whose records to print
    topic: String,
    /// Where to begin: beginning, end, an offset, or a time (2001-01-01T17:00:00Z, or @ and milliseconds) [default:
    /// beginning; with --follow, end]
    #[arg(long, short = 'o', value_name = "WHERE", value_parser = place)]
    from: Option<Start>,
    /// Only this partition; may be given again
    #[arg(long, short, value_name = "N", conflicts_with = "group")]
    partition: Vec<i32>,
    /// Read as a member of this consumer group, and commit what was printed; goes on until it is stopped. --from says where
    /// to begin in partitions of which nothing was committed
    #[arg(long, short, value_name = "NAME")]
    group: Option<String>,
    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Wait for more at the end
    #[arg(long, short)]
    follow: bool,
    /// What of a record to print [default: value; with --output json, json]
    #[arg(long, value_enum)]
    format: Option<Shape>,
    /// Between key and value
    #[arg(long, value_name = "TEXT", default_value = "\t")]
    separator: String,
    /// Only records of committed transactions
    #[arg(long)]
    committed: bool,
}

/// What of a record is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    Value,
    /// The key, the separator, the value.
    KeyValue,
    /// Everything, as one JSON object a line.
    Json,
}

fn place(text: &str) -> Result<Start, String> {
    match text {
        "beginning" | "earliest" => return Ok(Start::Earliest),
        "end" | "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse::<u64>() {
        return i64::try_from(offset)
            .map(|offset| Start::Offset(Offset(offset)))
            .map_err(|_| "too large".to_owned());
    }
    let ms = text
        .strip_prefix('@')
        .and_then(|ms| ms.parse().ok())
        .or_else(|| time::parse(text));
    ms.map(Start::Timestamp).ok_or_else(|| {
        "expected beginning, end, an offset, @MILLISECONDS or a time as 2001-01-01T17:00:00Z".to_owned()
    })
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.common.client().await?;
    let done = match &arguments.group {
        Some(group) => member::read(&client, group, &arguments).await,
        None => read(&client, &arguments).await,
    };
    client.close().await;
    done
}

impl Arguments {
    fn config(&self) -> ConsumerConfig {
        let isolation = if self.committed {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        };
        ConsumerConfig {
            isolation,
            ..ConsumerConfig::default()
        }
    }

    fn start(&self) -> Start {
        self.from.unwrap_or(if self.follow {
            Start::Latest
        } else {
            Start::Earliest
        })
    }
}

async fn read(client: &Client, arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config();
    let isolation = config.isolation;
    let mut consumer = client.consumer(config)?;
    let from = arguments.start();
    let mut reading = Reading::begin(client, &mut consumer, arguments, from, isolation).await?;
    let clock = Clock::system();
    let mut printer = Printer::new(arguments);
    while !reading.is_done(&consumer) {
        match clock.timeout(LOOK, consumer.next_batch()).await {
            Err(_) => {}
            Ok(batch) => reading.print(&batch?, &mut printer)?,
        }
    }
    consumer.close().await;
    Ok(())
}

/// How far to read.
struct Reading {
    topic: String,
    /// Where each partition ended when reading began; empty when following.
    ends: BTreeMap<PartitionIndex, Offset>,
    follow: bool,
    left: Option<u64>,
}

impl Reading {
    async fn begin(
        client: &Client,
        consumer: &mut Consumer,
        arguments: &Arguments,
        from: Start,
        isolation: Isolation,
    ) -> Result<Self, Failure> {
        let topic = arguments.topic.clone();
        let partitions: Vec<PartitionIndex> = match arguments.partition.is_empty() {
            true => (0..client.topic(&topic).await?.partitions.len() as i32)
                .map(PartitionIndex)
                .collect(),
            false => arguments.partition.iter().copied().map(PartitionIndex).collect(),
        };
        let mut ends = BTreeMap::new();
        if !arguments.follow {
            let places: Vec<_> = partitions
                .iter()
                .map(|partition| (*partition, OffsetSpec::Latest))
                .collect();
            let latest = client.admin().list_offsets(&topic, &places, isolation).await?;
            ends = latest
                .into_iter()
                .filter_map(|(partition, end)| Some((partition, end.offset?)))
                .collect();
        }
        consumer.assign(&topic, &partitions, from).await?;
        if let Start::Offset(from) = from {
            ends.retain(|_, end| *end > from);
        }
        ends.retain(|_, end| *end > Offset(0) && from != Start::Latest);
        Ok(Self {
            topic,
            ends,
            follow: arguments.follow,
            left: arguments.count,
        })
    }

    fn is_done(&mut self, consumer: &Consumer) -> bool {
        let topic = &self.topic;
        self.ends
            .retain(|partition, end| consumer.position(topic, *partition).is_none_or(|at| at < *end));
        self.left == Some(0) || (!self.follow && self.ends.is_empty())
    }

    fn print(&mut self, batch: &Batch, printer: &mut Printer) -> Result<(), Failure> {
        let corrupt = |why| {
            Failure::new(format!(
                "a batch at offset {} cannot be read: {why}",
                batch.first_offset()
            ))
        };
        let end = self.ends.get(&batch.partition()).copied();
        for record in batch.records().map_err(corrupt)?.iter() {
            let record = record.map_err(corrupt)?;
            let is_behind = !self.follow && end.is_none_or(|end| record.offset >= end);
            if is_behind || self.left == Some(0) {
                break;
            }
            printer.add(batch.topic(), batch.partition(), &record);
            self.left = self.left.map(|left| left - 1);
        }
        printer.flush()
    }
}

/// Records on their way to standard output.
struct Printer {
    shape: Shape,
    separator: String,
    buffer: Vec<u8>,
}

impl Printer {
    fn new(arguments: &Arguments) -> Self {
        let shape = match arguments.common.format() {
            Format::Json => Shape::Json,
            Format::Text => Shape::Value,
        };
        Self {
            shape: arguments.format.unwrap_or(shape),
            separator: arguments.separator.clone(),
            buffer: Vec::new(),
        }
    }

    fn add(&mut self, topic: &str, partition: PartitionIndex, record: &RecordView<'_>) {
        match self.shape {
            Shape::Value => self.buffer.extend_from_slice(record.value.unwrap_or_default()),
            Shape::KeyValue => {
                self.buffer.extend_from_slice(record.key.unwrap_or_default());
                self.buffer.extend_from_slice(self.separator.as_bytes());
                self.buffer.extend_from_slice(record.value.unwrap_or_default());
            }
            Shape::Json => {
                let value = json!({
                    "topic": topic, "partition": partition.0, "offset": record.offset.0,
                    "timestamp_ms": record.timestamp_ms, "key": data(record.key), "value": data(record.value),
                    "headers": headers(record.headers),
                });
                self.buffer.extend_from_slice(value.to_string().as_bytes());
            }
        }
        self.buffer.push(b'\n');
    }

    fn flush(&mut self) -> Result<(), Failure> {
        print_bytes(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Text as text, anything else as base64.
fn data(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    })
}

fn headers(headers: Headers<'_>) -> Vec<Value> {
    let sound = headers.filter_map(Result::ok);
    sound
        .map(|header| json!({ "name": data(Some(header.key)), "value": data(header.value) }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words_offsets_and_times() {
        assert_eq!(place("beginning"), Ok(Start::Earliest));
        assert_eq!(place("end"), Ok(Start::Latest));
        assert_eq!(place("42"), Ok(Start::Offset(Offset(42))));
        assert_eq!(place("@42"), Ok(Start::Timestamp(42)));
        assert_eq!(
            place("2001-01-01T17:00:00Z"),
            Ok(Start::Timestamp(978_368_400_000))
        );
        assert!(place("-1").is_err() && place("soon").is_err());
    }

    #[test]
    fn what_is_no_text_becomes_base64() {
        assert_eq!(data(Some(b"a")), json!("a"));
        assert_eq!(data(Some(&[0xff])), json!({ "base64": "/w==" }));
        assert_eq!(data(None), Value::Null);
    }
}
