//! What lies between two hosts, one way: how long it takes, how much it carries, whether it is cut.
//! Pure: time and random numbers are arguments. It must never know what it carries.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{HostIndex, Kind};
use crate::sys::random::Random;

/// A message that was lost and sent again takes so many times as long.
const LATE: u32 = 8;

/// The way from one host to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub latency_min: Duration,
    pub latency_max: Duration,
    /// None: what is sent together arrives together.
    pub bytes_per_second: Option<u64>,
    /// One in so many messages is lost on its way, and sent again.
    pub late_one_in: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_micros(200),
            latency_max: Duration::from_millis(2),
            bytes_per_second: None,
            late_one_in: 100,
        }
    }
}

/// How patient the two ends of a connection are with a link that carries nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A connection of many streams, which sends when it is idle, too: QUIC.
    pub session: Duration,
    /// A connection that is one stream: TCP.
    pub stream: Duration,
    pub dial: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(30),
            stream: Duration::from_secs(90),
            dial: Duration::from_secs(10),
        }
    }
}

impl Patience {
    pub(super) fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Session => self.session,
            Kind::Stream => self.stream,
        }
    }
}

/// All links of a net.
#[derive(Debug)]
pub(super) struct Links {
    random: Random,
    usual: Link,
    special: BTreeMap<(HostIndex, HostIndex), Link>,
    /// With the number of the cut, by which a later one is told from it.
    cut: BTreeMap<(HostIndex, HostIndex), u64>,
    cuts: u64,
    busy_until: BTreeMap<(HostIndex, HostIndex), Duration>,
    pub(super) patience: Patience,
}

impl Links {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            usual: Link::default(),
            special: BTreeMap::new(),
            cut: BTreeMap::new(),
            cuts: 0,
            busy_until: BTreeMap::new(),
            patience: Patience::default(),
        }
    }

    pub(super) fn set_usual(&mut self, link: Link) {
        self.usual = link;
    }

    /// None: as usual.
    pub(super) fn set(&mut self, way: (HostIndex, HostIndex), link: Option<Link>) {
        match link {
            Some(link) => drop(self.special.insert(way, link)),
            None => drop(self.special.remove(&way)),
        }
    }

    /// Cuts a link; answers with the number of the cut, None if it was cut already.
    pub(super) fn cut(&mut self, way: (HostIndex, HostIndex)) -> Option<u64> {
        if self.cut.contains_key(&way) {
            return None;
        }
        self.cuts += 1;
        self.cut.insert(way, self.cuts);
        Some(self.cuts)
    }

    /// Whether it was cut.
    pub(super) fn heal(&mut self, way: (HostIndex, HostIndex)) -> bool {
        self.cut.remove(&way).is_some()
    }

    pub(super) fn is_cut(&self, way: (HostIndex, HostIndex)) -> bool {
        self.cut.contains_key(&way)
    }

    pub(super) fn cut_number(&self, way: (HostIndex, HostIndex)) -> Option<u64> {
        self.cut.get(&way).copied()
    }

    /// When `bytes` sent now arrive.
    pub(super) fn arrival(&mut self, now: Duration, way: (HostIndex, HostIndex), bytes: usize) -> Duration {
        let link = self.special.get(&way).unwrap_or(&self.usual);
        let spread = link.latency_max.saturating_sub(link.latency_min);
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX - 1);
        let mut latency = link.latency_min + Duration::from_nanos(self.random.below(spread + 1));
        if self.random.one_in(link.late_one_in) {
            latency *= LATE;
        }
        let Some(rate) = link.bytes_per_second else {
            return now + latency;
        };
        let busy_until = self.busy_until.entry(way).or_default();
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        *busy_until = now.max(*busy_until) + Duration::from_nanos(nanos);
        *busy_until + latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_link_carries_one_message_after_the_other() {
        let mut links = Links::new(Random::seeded(1));
        links.set_usual(Link {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(1),
            bytes_per_second: Some(1_000_000),
            late_one_in: 100,
        });
        let arrivals: Vec<_> = (0..3)
            .map(|_| links.arrival(Duration::ZERO, (0, 1), 10_000))
            .collect();
        assert_eq!(arrivals, [11, 21, 31].map(Duration::from_millis));
    }

    #[test]
    fn a_cut_is_one_way_and_has_a_number() {
        let mut links = Links::new(Random::seeded(1));
        let first = links.cut((0, 1));
        assert!(first.is_some() && links.cut((0, 1)).is_none());
        assert!(links.is_cut((0, 1)) && !links.is_cut((1, 0)));
        assert!(links.heal((0, 1)) && !links.heal((0, 1)));
        assert_ne!(links.cut((0, 1)), first);
    }
}
