//! What can go wrong, drawn from a seed, done to a lab, and undone.
//!
//! It owns the list of faults and the deck they are dealt from. It never asks more of a cluster than it promises to
//! survive: one node at a time, or all of them together where what is on disk must do.

use std::fmt;
use std::time::{Duration, Instant};

use headwater_tests::Random;

use crate::lab::{Lab, Link, NodeNumber, Port};

/// How often a disk that is to be full is filled again.
const REFILL: Duration = Duration::from_millis(50);

/// Whom a fault of the network stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Everybody,
    Nodes,
    Clients,
}

/// Which frames of a node are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Both,
    /// It is heard by nobody, and hears.
    Out,
    /// It hears nobody, and is heard.
    In,
}

/// One thing that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, started again after a while.
    Kill(NodeNumber),
    /// Every node at once.
    KillAll,
    /// SIGSTOP, then SIGCONT.
    Pause(NodeNumber),
    /// SIGTERM, started again at once.
    Restart(NodeNumber),
    /// No space left.
    FullDisk(NodeNumber),
    /// Every call fails; then the node is killed and finds what had been synced.
    DeadDisk(NodeNumber),
    /// All nodes at once lose what was not synced.
    PowerLoss,
    /// The node is cut off.
    Cut(NodeNumber, Side, Direction),
    /// Two nodes do not reach each other; others reach both.
    Apart(NodeNumber, NodeNumber),
    /// Every link loses, delays, doubles and reorders.
    Storm(Link),
}

/// The kinds, to be dealt like cards: each comes once before any comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Kill,
    KillAll,
    Pause,
    Restart,
    FullDisk,
    DeadDisk,
    PowerLoss,
    CutOff,
    CutFromNodes,
    CutOneWay,
    CutFromClients,
    Apart,
    Storm,
}

/// What one node can be put through.
const ONE: &[Kind] = &[
    Kind::Kill,
    Kind::Pause,
    Kind::Restart,
    Kind::FullDisk,
    Kind::DeadDisk,
    Kind::PowerLoss,
    Kind::CutFromClients,
    Kind::CutOneWay,
    Kind::Storm,
];

/// What a cluster can be put through.
const SEVERAL: &[Kind] = &[
    Kind::Kill,
    Kind::KillAll,
    Kind::Pause,
    Kind::Restart,
    Kind::FullDisk,
    Kind::DeadDisk,
    Kind::PowerLoss,
    Kind::CutOff,
    Kind::CutFromNodes,
    Kind::CutOneWay,
    Kind::CutFromClients,
    Kind::Apart,
    Kind::Storm,
];

/// Faults in the order in which they come, for as long as one likes.
#[derive(Debug)]
pub(crate) struct Deck {
    random: Random,
    nodes: Vec<NodeNumber>,
    kinds: Vec<Kind>,
    rest: Vec<Kind>,
}

/// A fault, how long it lasts, and how much peace there is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dealt {
    pub(crate) pause: Duration,
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
}

impl Deck {
    /// A deck of these kinds, or of all that the number of nodes allows.
    pub(crate) fn new(random: Random, nodes: Vec<NodeNumber>, only: &[Kind]) -> Self {
        let known = if nodes.len() > 1 { SEVERAL } else { ONE };
        let is_wanted = |kind: &Kind| only.is_empty() || only.contains(kind);
        Self {
            random,
            nodes,
            kinds: known.iter().copied().filter(is_wanted).collect(),
            rest: Vec::new(),
        }
    }

    /// None if there is no fault to deal.
    pub(crate) fn deal(&mut self) -> Option<Dealt> {
        if self.rest.is_empty() {
            self.rest.clone_from(&self.kinds);
        }
        if self.rest.is_empty() {
            return None;
        }
        let place = self.random.below(0..self.rest.len() as u64) as usize;
        let kind = self.rest.remove(place);
        let pause = self.milliseconds(200..2_000);
        let fault = self.draw(kind);
        let lasts = match fault {
            Fault::Kill(_) | Fault::KillAll | Fault::PowerLoss => self.milliseconds(0..3_000),
            Fault::Restart(_) => Duration::ZERO,
            Fault::DeadDisk(_) => self.milliseconds(1_000..5_000),
            // Files have a little room of their own behind their ends, which is used up first.
            Fault::FullDisk(_) => self.milliseconds(3_000..8_000),
            Fault::Pause(_) | Fault::Cut(..) | Fault::Apart(..) | Fault::Storm(_) => {
                self.milliseconds(500..8_000)
            }
        };
        Some(Dealt { pause, fault, lasts })
    }

    fn draw(&mut self, kind: Kind) -> Fault {
        let node = self.node();
        match kind {
            Kind::Kill => Fault::Kill(node),
            Kind::KillAll => Fault::KillAll,
            Kind::Pause => Fault::Pause(node),
            Kind::Restart => Fault::Restart(node),
            Kind::FullDisk => Fault::FullDisk(node),
            Kind::DeadDisk => Fault::DeadDisk(node),
            Kind::PowerLoss => Fault::PowerLoss,
            Kind::CutOff => Fault::Cut(node, Side::Everybody, Direction::Both),
            Kind::CutFromNodes => Fault::Cut(node, Side::Nodes, Direction::Both),
            Kind::CutFromClients => Fault::Cut(node, Side::Clients, Direction::Both),
            Kind::CutOneWay => {
                let direction = self.one_of(&[Direction::Out, Direction::In]);
                let side = if self.nodes.len() > 1 {
                    self.one_of(&[Side::Everybody, Side::Nodes, Side::Clients])
                } else {
                    Side::Clients
                };
                Fault::Cut(node, side, direction)
            }
            Kind::Apart => {
                let others: Vec<NodeNumber> = self
                    .nodes
                    .iter()
                    .copied()
                    .filter(|other| *other != node)
                    .collect();
                Fault::Apart(node, self.one_of(&others))
            }
            Kind::Storm => Fault::Storm(Link {
                is_cut: false,
                loss: self.random.below(0..100),
                doubled: self.random.below(0..20),
                delay: self.milliseconds(0..40),
                jitter: self.milliseconds(0..20),
            }),
        }
    }

    fn node(&mut self) -> NodeNumber {
        let nodes = self.nodes.clone();
        self.one_of(&nodes)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.below(0..choices.len() as u64) as usize]
    }

    fn milliseconds(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.below(range))
    }
}

impl Fault {
    /// Does it to the lab.
    pub(crate) async fn begin(self, lab: &mut Lab) -> anyhow::Result<()> {
        match self {
            Self::Kill(node) => lab.member(node).kill().await,
            Self::KillAll => kill_all(lab).await,
            Self::Pause(node) => lab.member(node).pause(),
            Self::Restart(node) => lab.member(node).terminate().await,
            Self::FullDisk(node) => lab.member(node).disk.fill(),
            Self::DeadDisk(node) => {
                let member = lab.member(node);
                member.hold().await?;
                member.disk.fail()?;
                member.resume()
            }
            Self::PowerLoss => {
                // What a process had not synced is in the kernel's memory when it ends, and goes with the disks.
                kill_all(lab).await?;
                lab.members.iter().try_for_each(|member| member.disk.fail())
            }
            Self::Cut(node, side, direction) => {
                cut(lab, |from, to| is_between(node.port(), side, direction, from, to));
                Ok(())
            }
            Self::Apart(one, two) => {
                let pair = [one.port(), two.port()];
                cut(lab, |from, to| pair.contains(&from) && pair.contains(&to));
                Ok(())
            }
            Self::Storm(link) => {
                lab.switch.weather().change(|_, _| true, |known| *known = link);
                Ok(())
            }
        }
    }

    /// Lets it last.
    pub(crate) async fn last(self, lab: &mut Lab, lasts: Duration) -> anyhow::Result<()> {
        let Self::FullDisk(node) = self else {
            tokio::time::sleep(lasts).await;
            return Ok(());
        };
        // The journal gives blocks back only when it commits.
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            lab.member(node).disk.fill()?;
            tokio::time::sleep(REFILL).await;
        }
        Ok(())
    }

    /// Undoes it. The nodes are running in the end, and may not be ready yet.
    pub(crate) async fn end(self, lab: &mut Lab) -> anyhow::Result<()> {
        match self {
            Self::Kill(node) | Self::Restart(node) => lab.member(node).start(),
            Self::KillAll => start_all(lab),
            Self::Pause(node) => lab.member(node).resume(),
            Self::FullDisk(node) => lab.member(node).disk.release(),
            Self::DeadDisk(node) => {
                let member = lab.member(node);
                member.kill().await?;
                member.disk.revive().await?;
                member.start()
            }
            Self::PowerLoss => {
                for member in &mut lab.members {
                    member.disk.revive().await?;
                }
                start_all(lab)
            }
            Self::Cut(..) | Self::Apart(..) | Self::Storm(_) => {
                lab.switch
                    .weather()
                    .change(|_, _| true, |link| *link = Link::default());
                Ok(())
            }
        }
    }
}

async fn kill_all(lab: &mut Lab) -> anyhow::Result<()> {
    for member in &mut lab.members {
        member.kill().await?;
    }
    Ok(())
}

fn start_all(lab: &mut Lab) -> anyhow::Result<()> {
    lab.members.iter_mut().try_for_each(crate::lab::Member::start)
}

fn cut(lab: &Lab, chosen: impl Fn(Port, Port) -> bool) {
    lab.switch.weather().change(chosen, |link| link.is_cut = true);
}

/// Whether a frame from one port to another is what a cut of this node takes away.
fn is_between(node: Port, side: Side, direction: Direction, from: Port, to: Port) -> bool {
    let other = match (from == node, to == node) {
        (true, false) if direction != Direction::In => to,
        (false, true) if direction != Direction::Out => from,
        _ => return false,
    };
    match side {
        Side::Everybody => true,
        Side::Nodes => other != Port::CLIENTS,
        Side::Clients => other == Port::CLIENTS,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(node) => write!(f, "kill -9 {node}"),
            Self::KillAll => write!(f, "kill -9 all nodes"),
            Self::Pause(node) => write!(f, "pause {node}"),
            Self::Restart(node) => write!(f, "restart {node}"),
            Self::FullDisk(node) => write!(f, "fill the disk of {node}"),
            Self::DeadDisk(node) => write!(f, "fail the disk of {node} (EIO)"),
            Self::PowerLoss => write!(f, "cut the power of all nodes"),
            Self::Cut(node, side, direction) => {
                let side = match side {
                    Side::Everybody => "everybody",
                    Side::Nodes => "other nodes",
                    Side::Clients => "clients",
                };
                match direction {
                    Direction::Both => write!(f, "cut {node} from {side}"),
                    Direction::Out => write!(f, "cut {node} to {side}, one way"),
                    Direction::In => write!(f, "cut {side} to {node}, one way"),
                }
            }
            Self::Apart(one, two) => write!(f, "cut {one} from {two}"),
            Self::Storm(link) => write!(
                f,
                "storm: {:.1} % lost, {:.1} % doubled, {} to {} ms late",
                link.loss as f64 / 10.0,
                link.doubled as f64 / 10.0,
                link.delay.as_millis(),
                (link.delay + link.jitter).as_millis()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deal(seed: u64, nodes: u8, count: usize) -> Vec<Dealt> {
        let mut deck = Deck::new(Random::seeded(seed), (1..=nodes).map(NodeNumber).collect(), &[]);
        (0..count).filter_map(|_| deck.deal()).collect()
    }

    #[test]
    fn a_seed_says_which_faults_come() {
        assert_eq!(deal(7, 3, 50), deal(7, 3, 50));
        assert_ne!(deal(7, 3, 50), deal(8, 3, 50));
    }

    #[test]
    fn each_kind_comes_before_any_comes_again() {
        let kinds = |nodes, count| {
            let mut kinds: Vec<_> = deal(1, nodes, count)
                .iter()
                .map(|dealt| std::mem::discriminant(&dealt.fault))
                .collect();
            let mut distinct: Vec<_> = Vec::new();
            kinds.retain(|kind| {
                !distinct.contains(kind) && {
                    distinct.push(*kind);
                    true
                }
            });
            kinds.len()
        };
        // Four kinds of cuts are one variant.
        assert_eq!(kinds(3, SEVERAL.len()), SEVERAL.len() - 3);
        assert_eq!(kinds(1, ONE.len()), ONE.len() - 1);
    }

    #[test]
    fn cuts_take_away_what_they_say() {
        let [clients, one, two] = [Port::CLIENTS, Port(1), Port(2)];
        let check = |side, direction, expected: &[(Port, Port)]| {
            for from in [clients, one, two] {
                for to in [clients, one, two] {
                    let is_cut = is_between(one, side, direction, from, to);
                    assert_eq!(
                        is_cut,
                        expected.contains(&(from, to)),
                        "{side:?} {direction:?} {from:?} {to:?}"
                    );
                }
            }
        };
        check(
            Side::Everybody,
            Direction::Both,
            &[(one, clients), (clients, one), (one, two), (two, one)],
        );
        check(Side::Nodes, Direction::Both, &[(one, two), (two, one)]);
        check(Side::Clients, Direction::Out, &[(one, clients)]);
        check(Side::Nodes, Direction::In, &[(two, one)]);
    }
}
