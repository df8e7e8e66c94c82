//! A partition's leader is killed under an idempotent producer of Kafka's: how long until it goes on.
//!
//! It owns the conversation with `Failover.java`, which measures; the killing and starting is done here, by those who know the
//! processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::brokers::{Programs, complaint};
use super::cluster::Cluster;
use super::report::median;
use super::work::Figures;

/// How long Java may be silent: longer than its own patience for any one step.
const PATIENCE: Duration = Duration::from_secs(240);
/// Lines that wait here; it says no more than two without an answer.
const LINES: usize = 16;

/// What came of the kills.
pub(super) struct Failovers {
    /// Of leaders of the partition alone.
    pub(super) leader: anyhow::Result<Figures>,
    /// Of those that led the quorum of the controllers, too.
    pub(super) both: anyhow::Result<Figures>,
}

/// One kill, as Java tells it.
#[derive(Debug, PartialEq)]
struct Kill {
    failover_ms: f64,
    silence_ms: f64,
    leads_quorum: bool,
}

/// Has leaders killed, so many of them, every other one with the quorum's lead.
pub(super) fn run(
    programs: &Programs,
    cluster: &mut Cluster,
    properties: &str,
    kills: usize,
) -> anyhow::Result<Failovers> {
    let args = [cluster.bootstrap(), properties.to_owned(), kills.to_string()];
    let mut running = programs.talk(cluster.keeper(), "Failover", &args)?;
    let (stdin, stdout) = running.pipes().context("its input and output are not piped")?;
    let kills = hear(stdin, lines(stdout), cluster)?;
    let status = running.ended_by(Instant::now() + PATIENCE)?;
    ensure!(
        status.is_some_and(|status| status.success()),
        "Failover ended with {status:?} after {} kills: {}",
        kills.len(),
        complaint(cluster.keeper())
    );
    Ok(Failovers {
        leader: figures(&kills, false),
        both: figures(&kills, true),
    })
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (to, from) = sync_channel(LINES);
    // It ends with the pipe, or when nobody listens.
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for line in lines {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    from
}

fn hear(mut stdin: ChildStdin, from: Receiver<String>, cluster: &mut Cluster) -> anyhow::Result<Vec<Kill>> {
    let mut kills = Vec::new();
    loop {
        let line = match from.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Ok(kills),
            Err(RecvTimeoutError::Timeout) => bail!("Failover says nothing any more"),
        };
        match line.split_once(' ') {
            Some(("kill", id)) => {
                let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
                cluster.kill(id.parse().context("not a broker")?)?;
                writeln!(stdin, "killed {at}")?;
            }
            Some(("start", _)) => {
                cluster.start()?;
                writeln!(stdin, "started")?;
            }
            _ => kills.push(read(&line)?),
        }
    }
}

/// What is acknowledged must be there, once: who loses records is not fast.
fn read(line: &str) -> anyhow::Result<Kill> {
    let said: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("no {name}: {line}"));
    let (acknowledged, found) = (number("acknowledged")?, number("found")?);
    ensure!(
        acknowledged == found,
        "{acknowledged} records were acknowledged, {found} are there"
    );
    Ok(Kill {
        failover_ms: number("failover_ms")?,
        silence_ms: number("silence_ms")?,
        leads_quorum: said["leads_quorum"]
            .as_bool()
            .context("whether it led the quorum")?,
    })
}

fn figures(kills: &[Kill], leads_quorum: bool) -> anyhow::Result<Figures> {
    let of_them = || kills.iter().filter(|kill| kill.leads_quorum == leads_quorum);
    let failovers: Vec<f64> = of_them().map(|kill| kill.failover_ms).collect();
    let worst = failovers.iter().copied().fold(0.0, f64::max);
    let silences = of_them().map(|kill| kill.silence_ms).collect();
    let middle = || median(failovers.clone()).zip(median(silences));
    let (failover, silence) = middle().context("no such leader was killed")?;
    Ok(Figures::from([
        ("failover_ms", failover),
        ("failover_max_ms", worst),
        ("silence_ms", silence),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(failover_ms: f64, leads_quorum: bool) -> Kill {
        Kill {
            failover_ms,
            silence_ms: failover_ms + 1.0,
            leads_quorum,
        }
    }

    #[test]
    fn kills_are_told_apart_by_who_led_the_quorum() {
        let kills = [kill(10.0, false), kill(100.0, true), kill(30.0, false)];
        let expected = Figures::from([
            ("failover_ms", 20.0),
            ("failover_max_ms", 30.0),
            ("silence_ms", 21.0),
        ]);
        assert_eq!(figures(&kills, false).expect("two of them"), expected);
        assert_eq!(figures(&kills, true).expect("one")["failover_ms"], 100.0);
        assert!(figures(&kills[..1], true).is_err());
    }

    #[test]
    fn a_broker_that_loses_records_has_no_failover_time() {
        let line = |found| {
            format!(
                "{{\"failover_ms\":5.5,\"silence_ms\":6.5,\"leads_quorum\":true,\"acknowledged\":7,\"found\":{found}}}"
            )
        };
        assert_eq!(read(&line(7)).expect("all are there"), kill(5.5, true));
        assert!(read(&line(6)).is_err() && read("{}").is_err());
    }
}
