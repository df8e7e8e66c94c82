//! Mean and variance of a group as its values come (Welford), with or without forgetting.
//! Both are one rule: a new value has the weight 1/n, or with forgetting never less than 2/(span + 1).

use headwater_guest::Error;

const BYTES: usize = 24;

/// When a value is out of the ordinary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    sigmas: f64,
    warm_up: u64,
    /// What a new value weighs at least.
    weight_min: f64,
}

impl Rules {
    pub(crate) fn new(sigmas: f64, warm_up: u64, span: Option<u64>) -> Self {
        Self {
            sigmas,
            warm_up,
            weight_min: span.map_or(0.0, |span| 2.0 / (span as f64 + 1.0)),
        }
    }
}

/// What is kept of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    count: u64,
    mean: f64,
    variance: f64,
}

/// What a value was measured by: the values before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Judgement {
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
    /// None: all values before were the same.
    pub(crate) sigmas: Option<f64>,
}

impl Moments {
    /// Takes a value in, and judges it by those before if it is out of the ordinary. On an error nothing is changed.
    pub(crate) fn take(&mut self, value: f64, rules: &Rules) -> Result<Option<Judgement>, Error> {
        let away = value - self.mean;
        let deviation = self.variance.sqrt();
        let is_known = self.count >= rules.warm_up;
        let is_far = is_known && away.abs() > rules.sigmas * deviation;
        let judgement = is_far.then(|| Judgement {
            mean: self.mean,
            deviation,
            sigmas: (deviation > 0.0).then(|| away.abs() / deviation),
        });
        let count = self.count.saturating_add(1);
        let weight = (1.0 / count as f64).max(rules.weight_min);
        // The first value is the mean, whatever it weighs.
        let weight = if count == 1 { 1.0 } else { weight };
        let mean = self.mean + weight * away;
        let variance = (1.0 - weight) * (self.variance + weight * away * away);
        if !mean.is_finite() || !variance.is_finite() {
            return Err(Error::new("the value is too large to reckon with"));
        }
        *self = Self {
            count,
            mean,
            variance,
        };
        Ok(judgement)
    }

    pub(crate) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.mean.to_le_bytes());
        bytes[16..].copy_from_slice(&self.variance.to_le_bytes());
        bytes
    }

    /// Reads what `encode` wrote; none for anything else, with which a group begins anew.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let [count, mean, variance] = words else {
            return None;
        };
        Some(Self {
            count: u64::from_le_bytes(*count),
            mean: f64::from_le_bytes(*mean),
            variance: f64::from_le_bytes(*variance),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() <= 1e-9 * one.abs().max(other.abs()).max(1.0)
    }

    #[test]
    fn without_forgetting_they_are_those_of_all_values() {
        let rules = Rules::new(3.0, 2, None);
        let mut moments = Moments::default();
        let values: Vec<f64> = (0..500)
            .map(|n| 1e6 + f64::from((n * 7919) % 1000) / 7.0)
            .collect();
        for value in &values {
            moments.take(*value, &rules).expect("it is finite");
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        assert!(
            close(moments.mean, mean) && close(moments.variance, variance),
            "{moments:?}"
        );
        assert_eq!(Moments::decode(&moments.encode()), Some(moments));
        assert_eq!(Moments::decode(&[0; 23]), None);
    }

    #[test]
    fn with_forgetting_they_follow_a_new_level() {
        let (all, some) = (Rules::new(3.0, 2, None), Rules::new(3.0, 2, Some(10)));
        let (mut slow, mut quick) = (Moments::default(), Moments::default());
        for n in 0..200 {
            let value = if n < 100 { 0.0 } else { 10.0 };
            slow.take(value, &all).expect("it is finite");
            quick.take(value, &some).expect("it is finite");
        }
        assert!(close(slow.mean, 5.0), "{slow:?}");
        assert!(
            (quick.mean - 10.0).abs() < 1e-6 && quick.variance < 1e-4,
            "{quick:?}"
        );
    }

    #[test]
    fn a_value_is_judged_by_those_before_it_once_there_are_enough() {
        let rules = Rules::new(2.0, 4, None);
        let mut moments = Moments::default();
        for value in [1.0, 3.0, 1.0, 3.0] {
            assert_eq!(moments.take(value, &rules).expect("it is finite"), None);
        }
        assert_eq!(
            moments.take(4.0, &rules).expect("it is finite"),
            None,
            "two sigmas, not more"
        );
        let mut moments = Moments::default();
        for value in [1.0, 1.0, 1.0, 1.0] {
            moments.take(value, &rules).expect("it is finite");
        }
        let judged = moments.take(1.5, &rules).expect("it is finite");
        let expected = Judgement {
            mean: 1.0,
            deviation: 0.0,
            sigmas: None,
        };
        assert_eq!(judged, Some(expected));
        let before = moments;
        assert!(moments.take(1e200, &rules).is_err());
        assert_eq!(moments, before);
    }
}
