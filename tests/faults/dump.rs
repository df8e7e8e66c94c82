//! What a stopped node has stored of a topic, batch for batch, as the checker reads it.
//!
//! It reads the files of a data folder as they lie, without the broker's own reader: only the format of a batch is
//! shared. Nothing is changed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use headwater_checker::{Event, Kind};
use headwater_protocol::record::{BatchView, crc32c};

/// Where the leader epoch ends: it and the base offset before it are stamped by each broker, and told apart.
const EPOCH_END: usize = 16;

/// Writes down all partitions of a topic under a data folder; answers how many batches there are.
pub(crate) fn write(data: &Path, topic: &str, replica: &str, to: &Path) -> anyhow::Result<u64> {
    let mut out = BufWriter::new(File::create(to)?);
    let topics = data.join("topics");
    let mut count = 0;
    for folder in std::fs::read_dir(&topics).with_context(|| format!("no {}", topics.display()))? {
        let folder = folder?.path();
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // An id may hold hyphens itself: the partition comes after the last one.
        let Some((id, index)) = name.rsplit_once('-') else {
            continue;
        };
        if id == topic
            && let Ok(partition) = index.parse()
        {
            count += partition_of(&folder, replica, partition, &mut out)
                .with_context(|| format!("{replica}, partition {partition}"))?;
        }
    }
    out.flush()?;
    Ok(count)
}

fn partition_of(folder: &Path, replica: &str, partition: u32, out: &mut impl Write) -> anyhow::Result<u64> {
    let mut segments: Vec<PathBuf> = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|end| end == "log") {
            segments.push(path);
        }
    }
    segments.sort();
    let (mut start, mut end, mut count) = (None, 0, 0);
    for segment in segments {
        let mut rest = Bytes::from(std::fs::read(&segment)?);
        while !rest.is_empty() {
            let batch = BatchView::split_from(&mut rest).with_context(|| format!("{}", segment.display()))?;
            batch
                .check_crc()
                .with_context(|| format!("{}", segment.display()))?;
            let header = batch.header();
            let (base, last) = (header.base_offset.value(), header.last_offset().value());
            ensure!(base >= 0 && last >= base, "a batch goes from {base} to {last}");
            let mut event = Event::new(Kind::Batch, replica, partition);
            event.offset = Some(base as u64);
            event.last = Some(last as u64);
            event.epoch = Some(i64::from(header.partition_leader_epoch.0));
            let body = &batch.bytes()[EPOCH_END..];
            event.digest = Some((u64::from(crc32c(body)) << 32) | body.len() as u64);
            put(out, &event)?;
            start.get_or_insert(base as u64);
            end = last as u64 + 1;
            count += 1;
        }
    }
    let mut bounds = Event::new(Kind::Replica, replica, partition);
    (bounds.offset, bounds.last) = (Some(start.unwrap_or(0)), Some(end));
    put(out, &bounds)?;
    Ok(count)
}

fn put(out: &mut impl Write, event: &Event<'_>) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, event)?;
    out.write_all(b"\n")?;
    Ok(())
}
