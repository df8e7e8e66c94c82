//! `cargo xtask bench`: the release binary's own workloads (`headwater bench`), always on a fresh build. With arguments it
//! runs that one; without, all of them, and prints a Markdown table beside the targets. `kafka` is a comparison of its own.
//!
//! It owns the list of rows: what is run, what is read of its figures, and what we want to reach.

mod kafka;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{build, step};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    if let Some((_, rest)) = args.split_first().filter(|(first, _)| *first == "kafka") {
        return kafka::run(rest);
    }
    let binary = build::release()?;
    if !args.is_empty() {
        return Err(step::become_program(Command::new(binary).arg("bench").args(args)));
    }
    println!("| work | measured | to reach | command |\n|---|---|---|---|");
    for row in ROWS {
        let shown = match figures(&binary, row.arguments) {
            Ok(figures) => show(row.cells, &figures),
            // One workload that fails takes nothing from the others.
            Err(why) => format!("failed: {why:#}").replace('\n', " "),
        };
        let Row {
            work,
            target,
            arguments,
            ..
        } = row;
        println!("| {work} | {shown} | {target} | `bench {arguments}` |");
    }
    Ok(())
}

/// One line of the table.
struct Row {
    work: &'static str,
    arguments: &'static str,
    cells: &'static [Cell],
    target: &'static str,
}

/// One figure: where it is in the JSON, what to divide it by, how many digits behind the point, its unit.
struct Cell(&'static str, f64, usize, &'static str);

const RECORDS: &[Cell] = &[Cell("/records_per_second", 1e6, 2, "M records/s")];
const MEGABYTES: &[Cell] = &[Cell("/mb_per_second", 1.0, 0, "MB/s")];
const ACK: &[Cell] = &[
    Cell("/ack_ms/p50", 1.0, 3, "ms p50"),
    Cell("/ack_ms/p99", 1.0, 3, "p99"),
    Cell("/ack_ms/p99_9", 1.0, 3, "p99.9"),
];
const LATENCY: &[Cell] = &[
    Cell("/latency_ms/p50", 1.0, 3, "ms p50"),
    Cell("/latency_ms/p99", 1.0, 3, "p99"),
    Cell("/latency_ms/p99_9", 1.0, 3, "p99.9"),
];
const TRANSFORM: &[Cell] = &[
    Cell("/records_per_second", 1e6, 2, "M records/s"),
    Cell("/cpu_us_per_record", 1.0, 3, "us CPU/record"),
    Cell("/produce_slowdown", 1.0, 2, "x slower produce"),
];

const ROWS: &[Row] = &[
    Row {
        work: "produce 100 B, ack from memory, TCP",
        arguments: "--spawn produce --records 5000000 --size 100 --caching",
        cells: RECORDS,
        target: "4.0",
    },
    Row {
        work: "the same, QUIC",
        arguments: "--spawn --transport quic produce --records 5000000 --size 100 --caching",
        cells: RECORDS,
        target: "3.0",
    },
    Row {
        work: "produce 1 KB, ack from memory, TCP",
        arguments: "--spawn produce --records 2000000 --size 1000 --caching",
        cells: MEGABYTES,
        target: "1,300",
    },
    Row {
        work: "the same, QUIC",
        arguments: "--spawn --transport quic produce --records 2000000 --size 1000 --caching",
        cells: MEGABYTES,
        target: "750",
    },
    Row {
        work: "produce 1 KB, synced before the ack, TCP",
        arguments: "--spawn produce --records 2000000 --size 1000",
        cells: MEGABYTES,
        target: "900",
    },
    Row {
        work: "the same, QUIC",
        arguments: "--spawn --transport quic produce --records 2000000 --size 1000",
        cells: MEGABYTES,
        target: "600",
    },
    Row {
        work: "consume 100 B, TCP",
        arguments: "--spawn consume --records 5000000 --size 100",
        cells: RECORDS,
        target: "6.0",
    },
    Row {
        work: "the same, QUIC",
        arguments: "--spawn --transport quic consume --records 5000000 --size 100",
        cells: RECORDS,
        target: "4.0",
    },
    Row {
        work: "consume 1 KB, TCP",
        arguments: "--spawn consume --records 2000000 --size 1000",
        cells: MEGABYTES,
        target: "2,000",
    },
    Row {
        work: "the same, QUIC",
        arguments: "--spawn --transport quic consume --records 2000000 --size 1000",
        cells: MEGABYTES,
        target: "800",
    },
    Row {
        work: "one record at a time, ack from memory, TCP",
        arguments: "--spawn produce --each --records 20000 --caching",
        cells: ACK,
        target: "0.06 p50",
    },
    Row {
        work: "the same, QUIC",
        arguments: "--spawn --transport quic produce --each --records 20000 --caching",
        cells: ACK,
        target: "0.12 p50",
    },
    Row {
        work: "one record at a time, synced, TCP",
        arguments: "--spawn produce --each --records 20000",
        cells: ACK,
        target: "0.30 p50",
    },
    Row {
        work: "end to end, 1,000/s, ack from memory, TCP",
        arguments: "--spawn end-to-end --caching",
        cells: LATENCY,
        target: "0.15 / 0.35",
    },
    Row {
        work: "end to end, 1,000/s, synced, TCP",
        arguments: "--spawn end-to-end",
        cells: LATENCY,
        target: "0.40 / 0.80",
    },
    Row {
        work: "the same, QUIC",
        arguments: "--spawn --transport quic end-to-end",
        cells: LATENCY,
        target: "",
    },
    Row {
        work: "transform: a filter that keeps all",
        arguments: "--spawn transform --module pass --caching",
        cells: TRANSFORM,
        target: "3.0, 0.1, 1.25",
    },
    Row {
        work: "transform: a filter on a JSON field",
        arguments: "--spawn transform --module json --caching",
        cells: TRANSFORM,
        target: "",
    },
    Row {
        work: "transform: enrich",
        arguments: "--spawn transform --module enrich --caching",
        cells: TRANSFORM,
        target: "",
    },
    Row {
        work: "transform: aggregate",
        arguments: "--spawn transform --module aggregate --caching",
        cells: TRANSFORM,
        target: "",
    },
    Row {
        work: "mirror edge to core, 1 KB",
        arguments: "mirror --records 300000 --size 1000",
        cells: &[
            Cell("/backlog_mb_per_second", 1.0, 0, "MB/s backlog"),
            Cell("/live_mb_per_second", 1.0, 0, "MB/s live"),
            Cell("/wire_to_payload", 1.0, 3, "wire/payload"),
        ],
        target: "500, 200, 1.05",
    },
    Row {
        work: "start to ready",
        arguments: "startup",
        cells: &[
            Cell("/empty_ms", 1.0, 0, "ms empty"),
            Cell(
                "/cases/1/after_kill_ms",
                1.0,
                0,
                "ms with 1,000 partitions after kill -9",
            ),
            Cell("/binary_bytes", 1e6, 1, "MB binary"),
        ],
        target: "30, 500, 25",
    },
    Row {
        work: "memory: idle, and 1.5 GB through a filter",
        arguments: "memory --records 1500000 --size 1000",
        cells: &[
            Cell("/idle_bytes", 1e6, 1, "MB idle"),
            Cell("/loaded_bytes", 1e6, 1, "MB loaded"),
            Cell("/peak_bytes", 1e6, 1, "MB peak"),
        ],
        target: "16, 64, 64",
    },
];

/// Runs one workload; answers with the JSON it prints.
fn figures(binary: &Path, arguments: &str) -> anyhow::Result<Value> {
    let mut command = Command::new(binary);
    command
        .arg("bench")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null());
    let output = command.output().context("cannot start it")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{}", said.lines().next().unwrap_or("it said nothing"));
    }
    serde_json::from_slice(&output.stdout).context("its figures are not JSON")
}

fn show(cells: &[Cell], figures: &Value) -> String {
    let shown = cells.iter().map(|Cell(path, scale, digits, unit)| {
        match figures.pointer(path).and_then(Value::as_f64) {
            Some(value) => format!("{:.*} {unit}", *digits, value / scale),
            None => format!("? {unit}"),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_cells() {
        let figures = serde_json::json!({ "records_per_second": 3_456_789.0, "ack_ms": { "p50": 0.0612 } });
        assert_eq!(show(RECORDS, &figures), "3.46 M records/s");
        assert_eq!(show(ACK, &figures), "0.061 ms p50, ? p99, ? p99.9");
    }
}
