//! Levels of features: what brokers support, what is in force, and another one (KIP-584).
//!
//! Owns the translation of these calls only.

use std::collections::BTreeMap;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use headwater_protocol::kafka::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use headwater_protocol::primitives::Str;

use super::topics::accepted;
use super::{Admin, Kind};
use crate::client::Target;
use crate::error::Error;

/// `UpgradeType` of the request.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;

/// The features of a cluster, as one broker knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureDescription {
    /// Rises with the metadata; `None` where nothing is in force yet.
    pub epoch: Option<i64>,
    /// By name.
    pub features: BTreeMap<String, FeatureLevels>,
}

/// The levels of one feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureLevels {
    /// What the broker that was asked supports, lowest and highest; `None`: it does not know the feature.
    pub supported: Option<(i16, i16)>,
    /// What is in force in the cluster; `None`: no level was set yet.
    pub finalized: Option<i16>,
}

/// Which way the level of a feature is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureWay {
    Upgrade,
    /// Refused where something would be lost by it.
    Downgrade,
}

/// Another level of one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    pub feature: String,
    pub level: i16,
    pub way: FeatureWay,
}

impl Admin {
    /// What is in force, and what one broker supports: `node`, or any.
    ///
    /// ```no_run
    /// # use headwater_sdk::Admin;
    /// # async fn story(admin: Admin) -> Result<(), headwater_sdk::Error> {
    /// for (name, levels) in admin.describe_features(None).await?.features {
    ///     println!("{name} is at {:?}", levels.finalized);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_features(&self, node: Option<NodeId>) -> Result<FeatureDescription, Error> {
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("headwater-sdk"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
            ..Default::default()
        };
        let target = node.map_or(Target::Any, Target::Node);
        let what = "describe the features";
        self.ask(Kind::Question, target, what, &request, |answer| {
            accepted(what, answer.error_code, None)?;
            Ok(described(&answer))
        })
        .await
    }

    /// Sets levels of features, all or none; with `validate_only` it is only said whether that could be.
    ///
    /// ```no_run
    /// # use headwater_sdk::{Admin, FeatureUpdate, FeatureWay};
    /// # async fn story(admin: Admin) -> Result<(), headwater_sdk::Error> {
    /// let feature = "headwater.version".to_owned();
    /// let update = FeatureUpdate { feature, level: 2, way: FeatureWay::Upgrade };
    /// admin.update_features(&[update], false).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update_features(&self, updates: &[FeatureUpdate], validate_only: bool) -> Result<(), Error> {
        let key = |update: &FeatureUpdate| FeatureUpdateKey {
            feature: Str::from(update.feature.as_str()),
            max_version_level: update.level,
            upgrade_type: match update.way {
                FeatureWay::Upgrade => UPGRADE,
                FeatureWay::Downgrade => SAFE_DOWNGRADE,
            },
            ..Default::default()
        };
        let request = UpdateFeaturesRequest {
            timeout_ms: self.timeout_ms(),
            feature_updates: updates.iter().map(key).collect(),
            validate_only,
            ..Default::default()
        };
        let what = "set the level of features";
        self.ask(Kind::Change, Target::Controller, what, &request, |answer| {
            accepted(what, answer.error_code, answer.error_message.as_ref())?;
            let mut results = answer.results.iter();
            results.try_for_each(|result| accepted(what, result.error_code, result.error_message.as_ref()))
        })
        .await
    }
}

fn described(answer: &ApiVersionsResponse) -> FeatureDescription {
    let mut features: BTreeMap<String, FeatureLevels> = BTreeMap::new();
    for key in &answer.supported_features {
        features.entry(key.name.to_string()).or_default().supported =
            Some((key.min_version, key.max_version));
    }
    for key in &answer.finalized_features {
        features.entry(key.name.to_string()).or_default().finalized = Some(key.max_version_level);
    }
    FeatureDescription {
        epoch: Some(answer.finalized_features_epoch).filter(|epoch| *epoch >= 0),
        features,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::kafka::api_versions::{FinalizedFeatureKey, SupportedFeatureKey};

    #[test]
    fn what_is_supported_and_what_is_in_force_are_brought_together() {
        let answer = ApiVersionsResponse {
            supported_features: vec![SupportedFeatureKey {
                name: Str::from_static("a"),
                min_version: 1,
                max_version: 3,
                ..Default::default()
            }],
            finalized_features_epoch: 7,
            finalized_features: vec![FinalizedFeatureKey {
                name: Str::from_static("b"),
                max_version_level: 2,
                min_version_level: 2,
                ..Default::default()
            }],
            ..Default::default()
        };
        let described = described(&answer);
        assert_eq!(described.epoch, Some(7));
        let levels = |supported, finalized| FeatureLevels { supported, finalized };
        let expected = [
            ("a".to_owned(), levels(Some((1, 3)), None)),
            ("b".to_owned(), levels(None, Some(2))),
        ];
        assert_eq!(described.features, BTreeMap::from(expected));
        assert_eq!(super::described(&ApiVersionsResponse::default()).epoch, None);
    }
}
