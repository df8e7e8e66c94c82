//! UpdateFeatures (key 57, KIP-584): an operator sets the level of features, all of those that he names or none.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::update_features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

use super::refusal::Refusal;
use crate::controller::{Change, FeatureUpdate};
use crate::metadata::features::{Level, Way};
use crate::server::request::Context;

/// `UpgradeType` of the request.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

pub(in crate::server) async fn handle(
    context: &Context,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let (code, message) = match update(context, &request).await {
        Ok(()) => (ErrorCode::NONE, None),
        Err(refusal) => (refusal.code, refusal.text()),
    };
    // Up to version 1 each feature has a result of its own: the same one, since they go together.
    let result = |update: &FeatureUpdateKey| UpdatableFeatureResult {
        feature: update.feature.clone(),
        error_code: code.0,
        error_message: message.clone(),
        ..UpdatableFeatureResult::default()
    };
    let results = if context.version <= 1 {
        request.feature_updates.iter().map(result).collect()
    } else {
        Vec::new()
    };
    UpdateFeaturesResponse {
        error_code: code.0,
        error_message: message.clone(),
        results,
        ..UpdateFeaturesResponse::default()
    }
}

async fn update(context: &Context, request: &UpdateFeaturesRequest) -> Result<(), Refusal> {
    let updates = request
        .feature_updates
        .iter()
        .map(|update| read(update, context.version))
        .collect::<Result<Vec<_>, _>>()?;
    if updates.is_empty() {
        return Err(Refusal::new(ErrorCode::INVALID_REQUEST, "no feature is named"));
    }
    let change = Change::UpdateFeatures {
        updates,
        validate_only: request.validate_only,
    };
    let proposed = context.services().controller.propose(change).await;
    proposed.map(drop).map_err(Refusal::from)
}

fn read(update: &FeatureUpdateKey, version: i16) -> Result<FeatureUpdate, Refusal> {
    let way = match update.upgrade_type {
        _ if version == 0 && update.allow_downgrade => Way::Down,
        UPGRADE => Way::Up,
        // Nothing is lost by any way down that there is.
        SAFE_DOWNGRADE | UNSAFE_DOWNGRADE => Way::Down,
        other => {
            let message = format!("feature {:?}: there is no upgrade type {other}", update.feature);
            return Err(Refusal::new(ErrorCode::INVALID_UPDATE_VERSION, message));
        }
    };
    Ok(FeatureUpdate {
        feature: update.feature.to_string(),
        level: Level(update.max_version_level),
        way,
    })
}
