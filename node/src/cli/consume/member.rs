//! `headwater consume --group`: a member's share of a topic. What was printed is committed; what was not comes again.

use headwater_sdk::{Client, ConsumerRecord, GroupConfig, GroupConsumer, RecordView};
use tokio::signal::unix::{SignalKind, signal};

use super::{Arguments, Printer};
use crate::cli::failure::Failure;

pub(super) async fn read(client: &Client, group: &str, arguments: &Arguments) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = GroupConfig {
        start: arguments.start(),
        consumer: arguments.config(),
        ..GroupConfig::new(group, [arguments.topic.as_str()])
    };
    // A member of a group waits for its topic; a person who has mistyped it wants to know.
    client.topic(&arguments.topic).await?;
    let mut consumer = client.group_consumer(config)?;
    let done = tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        done = print(&mut consumer, arguments) => done,
    };
    // What was printed is committed whatever happened then.
    consumer.close().await?;
    done
}

/// Prints record by record: what was handed out is committed, so none may wait to be printed.
async fn print(consumer: &mut GroupConsumer, arguments: &Arguments) -> Result<(), Failure> {
    let mut printer = Printer::new(arguments);
    let mut left = arguments.count;
    while left != Some(0) {
        let ConsumerRecord {
            topic,
            partition,
            record,
        } = consumer.next().await?;
        let view = RecordView {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: record.headers(),
        };
        printer.add(&topic, partition, &view);
        printer.flush()?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}
