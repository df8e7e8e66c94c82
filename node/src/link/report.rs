//! What people and the API are told of sites and links. Values only.

use std::collections::BTreeMap;

use headwater_protocol::ids::Offset;

use super::board::{Board, FlowKey, Progress, Side};
use super::control::FlowState;
use super::{Shared, mapping};
use crate::metadata::{Flow, GapPolicy, Image, Link, LinkRole, Site};

/// A site and whether it is there.
#[derive(Debug, Clone)]
pub struct SiteReport {
    pub site: Site,
    pub connected: bool,
    pub last_seen_ms: Option<i64>,
    pub address: Option<String>,
    pub rtt_ms: Option<f64>,
}

/// How a link is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    Connected,
    Disconnected,
    Paused,
    /// Connected or not: some partition cannot go on without a person.
    Stuck,
}

impl LinkState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
        }
    }
}

#[derive(Debug, Clone)]
pub struct LinkReport {
    pub link: Link,
    pub state: LinkState,
    /// Since when it is connected, or not.
    pub since_ms: i64,
    pub last_seen_ms: Option<i64>,
    pub rtt_ms: Option<f64>,
    /// On the wire, over all connections since the node started: UDP payload.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Record bytes copied to this end.
    pub payload_bytes: u64,
    pub reconnects: u64,
    pub error: Option<String>,
    pub flows: Vec<FlowReport>,
}

#[derive(Debug, Clone)]
pub struct FlowReport {
    pub flow: Flow,
    pub partitions: Vec<PartitionReport>,
}

#[derive(Debug, Clone)]
pub struct PartitionReport {
    pub topic: String,
    pub copy: String,
    pub partition: i32,
    pub source_end: Offset,
    pub copied: Offset,
    pub backlog_records: i64,
    /// Bytes of the batches from the one that holds `copied` to the log's end; known at the source only.
    pub backlog_bytes: Option<u64>,
    pub state: FlowState,
    pub detail: Option<String>,
    pub last_progress_ms: Option<i64>,
}

pub(super) fn sites(shared: &Shared) -> Vec<SiteReport> {
    let image = shared.view.image();
    let now_ms = shared.sys.clock.unix_ms();
    let report = |site: &Site| {
        let link = image
            .links
            .values()
            .find(|link| link.role == LinkRole::Core && link.site == site.name);
        let connection = link
            .map(|link| shared.board(&link.name).report(now_ms))
            .unwrap_or_default();
        SiteReport {
            site: site.clone(),
            connected: connection.connected,
            last_seen_ms: connection.last_seen_ms,
            address: connection.address,
            rtt_ms: connection.rtt_ms,
        }
    };
    image.sites.values().map(|site| report(site)).collect()
}

pub(super) async fn links(shared: &Shared) -> Vec<LinkReport> {
    let image = shared.view.image();
    let mut reports = Vec::with_capacity(image.links.len());
    for link in image.links.values() {
        reports.push(report(shared, &image, link).await);
    }
    reports
}

async fn report(shared: &Shared, image: &Image, link: &Link) -> LinkReport {
    let board = shared.board(&link.name);
    let connection = board.report(shared.sys.clock.unix_ms());
    let mut flows: Vec<FlowReport> = link
        .flows
        .iter()
        .map(|flow| FlowReport {
            flow: flow.clone(),
            partitions: Vec::new(),
        })
        .collect();
    for partition in sending(shared, image, link, &board)
        .await
        .into_iter()
        .chain(receiving(link, &board))
    {
        let (index, partition) = partition;
        if let Some(flow) = flows.get_mut(index) {
            flow.partitions.push(partition);
        }
    }
    let stuck = flows
        .iter()
        .flat_map(|flow| &flow.partitions)
        .any(|partition| partition.state.is_stuck());
    let state = match (link.paused, stuck, connection.connected) {
        (true, _, _) => LinkState::Paused,
        (false, true, _) => LinkState::Stuck,
        (false, false, true) => LinkState::Connected,
        (false, false, false) => LinkState::Disconnected,
    };
    LinkReport {
        link: link.clone(),
        state,
        since_ms: connection.since_ms,
        last_seen_ms: connection.last_seen_ms,
        rtt_ms: connection.rtt_ms,
        bytes_sent: connection.bytes_sent,
        bytes_received: connection.bytes_received,
        payload_bytes: board.payload_bytes(),
        reconnects: connection.reconnects,
        error: connection.error,
        flows,
    }
}

/// The partitions this end sends: what there is comes from the logs, how far the copy is from the other end.
async fn sending(
    shared: &Shared,
    image: &Image,
    link: &Link,
    board: &Board,
) -> Vec<(usize, PartitionReport)> {
    let known: BTreeMap<_, _> = board
        .cells()
        .iter()
        .map(|cell| (cell.key().clone(), cell.read()))
        .collect();
    let mut reports = Vec::new();
    for topic in image.topics.values() {
        let Some(flow) = mapping::sends(link.role, &link.flows, topic) else {
            continue;
        };
        let Some(index) = link.flows.iter().position(|other| std::ptr::eq(other, flow)) else {
            continue;
        };
        for partition in topic.indexes() {
            let Some(here) = shared.registry.get_by_id(topic.id, partition) else {
                continue;
            };
            let key = FlowKey {
                side: Side::Sent,
                topic: topic.name.to_string(),
                partition: partition.0,
            };
            let source_end = here.watermarks().borrow().high_watermark;
            let copy = format!("{}{}", flow.prefix, topic.name);
            let mut report = line(&key, known.get(&key), copy, source_end);
            let start = here.watermarks().borrow().log_start;
            report.backlog_bytes = here.bytes_from(report.copied.max(start)).await.ok();
            note_overrun(&mut report, flow.on_gap, start);
            reports.push((index, report));
        }
    }
    reports
}

/// A source whose retention passed the copy knows of the gap by itself, before the link is back.
fn note_overrun(report: &mut PartitionReport, on_gap: GapPolicy, start: Offset) {
    let holds = matches!(on_gap, GapPolicy::Hold { .. });
    // An empty copy, or one never heard of, begins where the source does.
    if holds && !report.state.is_stuck() && Offset(0) < report.copied && report.copied < start {
        report.state = FlowState::Gap;
        report.detail = Some(format!(
            "offsets {} to {start} were deleted here before they were copied",
            report.copied
        ));
    }
}

/// The partitions this end holds copies of.
fn receiving(link: &Link, board: &Board) -> Vec<(usize, PartitionReport)> {
    let direction = mapping::receiving(link.role);
    let flow_of = |topic: &str| {
        link.flows.iter().position(|flow| {
            flow.direction == direction && flow.topics.iter().any(|p| mapping::matches(p, topic))
        })
    };
    let cells = board.cells();
    let received = cells.iter().filter(|cell| cell.key().side == Side::Received);
    let report = received.filter_map(|cell| {
        let progress = cell.read();
        let index = flow_of(&cell.key().topic)?;
        Some((
            index,
            line(
                cell.key(),
                Some(&progress),
                progress.copy.clone(),
                progress.source_end,
            ),
        ))
    });
    report.collect()
}

fn line(key: &FlowKey, known: Option<&Progress>, copy: String, source_end: Offset) -> PartitionReport {
    let copied = known.map_or(Offset(0), |progress| progress.copied);
    let waiting = known.map_or(FlowState::Waiting, |progress| progress.state);
    PartitionReport {
        topic: key.topic.clone(),
        copy,
        partition: key.partition,
        source_end,
        copied,
        backlog_records: (source_end.0 - copied.0).max(0),
        backlog_bytes: None,
        state: if waiting == FlowState::CaughtUp && copied < source_end {
            FlowState::CatchingUp
        } else {
            waiting
        },
        detail: known.and_then(|progress| progress.detail.clone()),
        last_progress_ms: known.and_then(|progress| progress.last_progress_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_deleted_what_was_not_copied_says_so() {
        let hold = GapPolicy::Hold { bytes: 1 };
        let check = |copied: i64, start: i64, on_gap: GapPolicy, expected: FlowState| {
            let key = FlowKey {
                side: Side::Sent,
                topic: "readings".to_owned(),
                partition: 0,
            };
            let mut report = line(&key, None, "copy".to_owned(), Offset(20));
            report.copied = Offset(copied);
            note_overrun(&mut report, on_gap, Offset(start));
            assert_eq!(report.state, expected, "copied {copied}, begins at {start}");
            assert_eq!(report.detail.is_some(), expected == FlowState::Gap);
        };
        check(5, 0, hold, FlowState::Waiting);
        check(5, 5, hold, FlowState::Waiting);
        check(5, 6, hold, FlowState::Gap);
        check(0, 6, hold, FlowState::Waiting);
        check(5, 6, GapPolicy::MarkGap, FlowState::Waiting);
    }
}
