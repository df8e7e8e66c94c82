//! `headwater produce`: each line of standard input becomes a record.

use std::collections::VecDeque;

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::protocol::record::Compression;
use headwater_sdk::{Acks, Client, Deliveries, HeaderRef, ProducerConfig, Record, TopicProducer};
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

use super::common::{Common, Format, note, pair};
use super::failure::Failure;
use super::table::count;

/// What is read of the input at once.
const READ_BYTES: usize = 256 << 10;
const LINE_BYTES_MAX: usize = 64 << 20;
/// Promises that are held before the oldest is waited for.
const DELIVERIES_MAX: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Where the records go
    topic: String,
    /// What stands between key and value; without it a line is a value [for a tab: $'\t']
    #[arg(long, short = 'k', value_name = "TEXT")]
    key_separator: Option<String>,
    /// An empty value deletes its key (needs --key-separator)
    #[arg(long, requires = "key_separator")]
    tombstones: bool,
    /// The partition, whatever the key
    #[arg(long, short, value_name = "N")]
    partition: Option<i32>,
    /// A header for every record; may be given again
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// How batches are compressed
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Compression,
    /// What a record must have reached: all (in-sync replicas, synced), 1 (the leader's log), 0 (the network)
    #[arg(long, value_name = "ACKS", default_value = "all", value_parser = acks)]
    acks: Acks,
}

pub(super) fn codec(name: &str) -> Result<Compression, String> {
    let known = || Compression::ALL.map(Compression::name).join(", ");
    Compression::from_name(name).ok_or_else(|| format!("expected one of {}", known()))
}

pub(super) fn acks(text: &str) -> Result<Acks, String> {
    match text {
        "all" | "-1" => Ok(Acks::All),
        "1" => Ok(Acks::Leader),
        "0" => Ok(Acks::None),
        _ => Err("expected all, 1 or 0".to_owned()),
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.common.client().await?;
    let input = BufReader::with_capacity(READ_BYTES, tokio::io::stdin());
    let done = send(&client, &arguments, input).await;
    client.close().await;
    let sent = done?;
    match arguments.common.format() {
        Format::Json => arguments
            .common
            .answer(&json!({ "topic": arguments.topic, "records": sent }), |_| {
                String::new()
            }),
        Format::Text => {
            note(&format!("{} records", count(sent)));
            Ok(())
        }
    }
}

async fn send(
    client: &Client,
    arguments: &Arguments,
    mut input: impl AsyncBufRead + Unpin,
) -> Result<u64, Failure> {
    let config = ProducerConfig {
        acks: arguments.acks,
        compression: arguments.compression,
        ..ProducerConfig::default()
    };
    let producer = client.producer(config)?;
    let mut sending = Sending::new(arguments, producer.topic(&arguments.topic).await?);
    let mut lines = Vec::new();
    loop {
        let read = input.fill_buf().await?;
        let is_end = read.is_empty();
        let whole = read.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let taken = whole.unwrap_or(read.len());
        lines.extend_from_slice(&read[..taken]);
        input.consume(taken);
        if lines.len() > LINE_BYTES_MAX {
            return Err(Failure::new(format!(
                "a line is longer than {LINE_BYTES_MAX} bytes"
            )));
        }
        if whole.is_some() || is_end {
            sending.send(&lines).await?;
            lines.clear();
        }
        if is_end {
            break;
        }
    }
    let sent = sending.finish().await?;
    producer.close().await;
    Ok(sent)
}

/// Lines on their way.
struct Sending<'a> {
    arguments: &'a Arguments,
    headers: Vec<HeaderRef<'a>>,
    topic: TopicProducer,
    underway: VecDeque<Deliveries>,
    acknowledged: u64,
}

impl<'a> Sending<'a> {
    fn new(arguments: &'a Arguments, topic: TopicProducer) -> Self {
        let header = |(key, value): &'a (String, String)| HeaderRef {
            key,
            value: Some(value.as_bytes()),
        };
        let headers = arguments.headers.iter().map(header).collect();
        Self {
            arguments,
            headers,
            topic,
            underway: VecDeque::new(),
            acknowledged: 0,
        }
    }

    async fn send(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
        if lines.is_empty() {
            return Ok(());
        }
        let records: Vec<Record<'_>> = lines
            .split(|byte| *byte == b'\n')
            .map(|line| record(self.arguments, line).map(|record| record.headers(&self.headers)))
            .collect::<Result<_, _>>()?;
        self.underway.push_back(self.topic.send_all(&records).await?);
        while self.underway.len() > DELIVERIES_MAX {
            self.take_oldest().await?;
        }
        Ok(())
    }

    async fn take_oldest(&mut self) -> Result<(), Failure> {
        if let Some(oldest) = self.underway.pop_front() {
            oldest.all().await?;
            self.acknowledged += oldest.record_count() as u64;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<u64, Failure> {
        while !self.underway.is_empty() {
            self.take_oldest().await?;
        }
        Ok(self.acknowledged)
    }
}

/// What a line says.
fn record<'a>(arguments: &Arguments, line: &'a [u8]) -> Result<Record<'a>, Failure> {
    let mut record = match &arguments.key_separator {
        None => Record::value(line),
        Some(separator) => {
            let separator = separator.as_bytes();
            let at = line
                .windows(separator.len().max(1))
                .position(|part| part == separator);
            let at = at.ok_or_else(|| {
                let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
                Failure::new(format!("the line {shown:?} has no key separator"))
                    .hint("--key-separator says what stands between key and value")
            })?;
            let (key, value) = (&line[..at], &line[at + separator.len()..]);
            match value.is_empty() && arguments.tombstones {
                true => Record::tombstone(key),
                false => Record::value(value).key(key),
            }
        }
    };
    if let Some(partition) = arguments.partition {
        record = record.partition(PartitionIndex(partition));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn read<'a>(flags: &[&str], line: &'a str) -> Result<Record<'a>, Failure> {
        let words = ["x", "topic"].iter().chain(flags);
        record(&Line::try_parse_from(words).unwrap().arguments, line.as_bytes())
    }

    #[test]
    fn a_line_is_a_value_or_a_key_and_a_value() {
        let check = |flags: &[&str], line: &str, expected: Record<'_>| {
            assert_eq!(
                format!("{:?}", read(flags, line).unwrap()),
                format!("{expected:?}")
            );
        };
        check(&[], "a:b", Record::value("a:b"));
        check(&["-k", ":"], "a:b:c", Record::value("b:c").key("a"));
        check(&["-k", "::"], "a::", Record::value("").key("a"));
        check(&["-k", ":", "--tombstones"], "a:", Record::tombstone("a"));
        check(&["-p", "3"], "a", Record::value("a").partition(PartitionIndex(3)));
        assert!(read(&["-k", ":"], "ab").is_err());
    }
}
