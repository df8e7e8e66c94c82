//! [`Versions`]: what a broker said it speaks.
//!
//! Pure. It must never assume an API that the broker did not name.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use headwater_protocol::kafka::ApiKey;
use headwater_protocol::kafka::api_versions::ApiVersionsResponse;

/// The version ranges of one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    ranges: BTreeMap<i16, RangeInclusive<i16>>,
    /// Levels in force in the cluster, by feature.
    levels: BTreeMap<String, i16>,
}

impl Versions {
    pub(crate) fn new(answer: &ApiVersionsResponse) -> Self {
        let ranges = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version..=api.max_version));
        let levels = answer.finalized_features.iter();
        Self {
            ranges: ranges.collect(),
            levels: levels
                .map(|feature| (feature.name.to_string(), feature.max_version_level))
                .collect(),
        }
    }

    /// The level of a feature that was in force when the broker was asked; 0 where there is none.
    pub fn level(&self, feature: &str) -> i16 {
        self.levels.get(feature).copied().unwrap_or(0)
    }

    /// The newest version that both sides speak.
    pub fn best(&self, api: ApiKey, ours: &RangeInclusive<i16>) -> Option<i16> {
        let theirs = self.ranges.get(&(api as i16))?;
        let newest = *ours.end().min(theirs.end());
        (newest >= *ours.start() && newest >= *theirs.start()).then_some(newest)
    }

    /// Whether the broker offers an API at all.
    pub fn offers(&self, api: ApiKey) -> bool {
        self.ranges.contains_key(&(api as i16))
    }

    pub(crate) fn describe(&self, api: ApiKey) -> String {
        match self.ranges.get(&(api as i16)) {
            Some(range) => format!("{} to {}", range.start(), range.end()),
            None => "none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_wins() {
        let check = |theirs: RangeInclusive<i16>, ours: RangeInclusive<i16>, best| {
            let versions = Versions {
                ranges: [(0, theirs)].into(),
                ..Versions::default()
            };
            assert_eq!(versions.best(ApiKey::Produce, &ours), best);
        };
        check(0..=9, 3..=13, Some(9));
        check(3..=13, 3..=9, Some(9));
        check(0..=2, 3..=13, None);
        check(14..=15, 3..=13, None);
        assert_eq!(Versions::default().best(ApiKey::Produce, &(0..=1)), None);
    }
}
