//! What happens to a frame on its way from one port to another: lost, late, twice, or nothing.
//!
//! Pure: chance and time are arguments. It owns one entry for each direction of each pair of ports.

use std::time::Duration;

use headwater_tests::Random;

use super::namespace::Port;

/// One direction between two ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) is_cut: bool,
    /// Frames lost, in a thousand.
    pub(crate) loss: u64,
    /// Frames that come twice, in a thousand.
    pub(crate) doubled: u64,
    pub(crate) delay: Duration,
    /// Added to the delay, up to so much, for each frame anew: later frames overtake earlier ones.
    pub(crate) jitter: Duration,
}

/// When copies of a frame arrive, counted from now. None: it is lost.
pub(crate) type Arrivals = [Option<Duration>; 2];

impl Link {
    pub(crate) fn arrivals(&self, random: &mut Random) -> Arrivals {
        if self.is_cut || (self.loss > 0 && random.below(0..1000) < self.loss) {
            return [None, None];
        }
        let twice = self.doubled > 0 && random.below(0..1000) < self.doubled;
        [Some(self.way(random)), twice.then(|| self.way(random))]
    }

    fn way(&self, random: &mut Random) -> Duration {
        let jitter = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        let late = if jitter == 0 { 0 } else { random.below(0..jitter) };
        self.delay + Duration::from_micros(late)
    }
}

/// Every direction of every pair.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    ports: usize,
    links: Vec<Link>,
}

impl Weather {
    /// Fair weather: everything arrives, at once and once.
    pub(crate) fn fair(ports: usize) -> Self {
        Self {
            ports,
            links: vec![Link::default(); ports * ports],
        }
    }

    pub(crate) fn link(&self, from: Port, to: Port) -> Link {
        self.links[self.place(from, to)]
    }

    /// Changes the link of each direction that is chosen.
    pub(crate) fn change(&mut self, chosen: impl Fn(Port, Port) -> bool, change: impl Fn(&mut Link)) {
        for from in 0..self.ports {
            for to in 0..self.ports {
                let (from, to) = (Port(from as u8), Port(to as u8));
                if from != to && chosen(from, to) {
                    let place = self.place(from, to);
                    change(&mut self.links[place]);
                }
            }
        }
    }

    fn place(&self, from: Port, to: Port) -> usize {
        usize::from(from.0) * self.ports + usize::from(to.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(link: Link) -> (usize, usize, Duration) {
        let mut random = Random::seeded(7);
        let all: Vec<Arrivals> = (0..10_000).map(|_| link.arrivals(&mut random)).collect();
        let count = |copy: usize| all.iter().filter(|arrivals| arrivals[copy].is_some()).count();
        let last = all.iter().flatten().flatten().max().copied().unwrap_or_default();
        (count(0), count(1), last)
    }

    #[test]
    fn a_link_loses_doubles_and_delays_as_it_was_told() {
        assert_eq!(arrived(Link::default()), (10_000, 0, Duration::ZERO));
        assert_eq!(
            arrived(Link {
                is_cut: true,
                ..Link::default()
            })
            .0,
            0
        );
        let (once, twice, last) = arrived(Link {
            loss: 100,
            doubled: 50,
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            ..Link::default()
        });
        assert!((8_800..9_200).contains(&once), "{once}");
        assert!((350..550).contains(&twice), "{twice}");
        assert!(
            last > Duration::from_millis(14) && last < Duration::from_millis(15),
            "{last:?}"
        );
    }

    #[test]
    fn one_direction_changes_alone() {
        let mut weather = Weather::fair(3);
        weather.change(
            |from, to| (from, to) == (Port(1), Port(2)),
            |link| link.is_cut = true,
        );
        assert!(weather.link(Port(1), Port(2)).is_cut);
        assert!(!weather.link(Port(2), Port(1)).is_cut && !weather.link(Port(1), Port(0)).is_cut);
    }
}
