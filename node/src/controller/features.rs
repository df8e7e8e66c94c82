//! The rules of feature levels: who may join, who may raise a level, what may be written below one. Pure.

use super::change::FeatureUpdate;
use super::decide::{Context, Decision};
use super::error::ProposeError;
use crate::metadata::features::{self, Level, Supported};
use crate::metadata::{Image, Node, Record};

/// Whether a process may be a node of this cluster: it must read what is written there.
pub(super) fn admit(node: &Node, image: &Image) -> Result<(), ProposeError> {
    Supported::of(node).check_image(image).map_err(|unsupported| {
        let text = format!("node {}: {unsupported}: start a newer version", node.id);
        if node.features.is_empty() {
            // A node of the first level knows no other word for it.
            ProposeError::Refused(text)
        } else {
            ProposeError::UnsupportedVersion(text)
        }
    })
}

/// An operator sets levels (KIP-584). All of them, or none.
pub(super) fn update(
    updates: &[FeatureUpdate],
    validate_only: bool,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let mut records = Vec::new();
    for FeatureUpdate { feature, level, way } in updates {
        let refuse = |reason: String| ProposeError::InvalidLevel {
            feature: feature.clone(),
            level: *level,
            reason,
        };
        let current = image.finalized(feature);
        if let Some(current) = current {
            features::check_way(current, *level, *way).map_err(refuse)?;
        }
        check_readers(feature, *level, image, context).map_err(refuse)?;
        if current != Some(*level) {
            records.push(Record::FeatureLevel {
                feature: feature.clone(),
                level: *level,
            });
        }
    }
    if validate_only {
        records.clear();
    }
    Ok(Decision::done(records))
}

/// Whether everybody reads a level: this node, which leads the quorum, every voter, and every node of the cluster, whether
/// it takes part right now or not.
fn check_readers(feature: &str, level: Level, image: &Image, context: &Context) -> Result<(), String> {
    context
        .supported
        .check(feature, level)
        .map_err(|unsupported| match unsupported.range {
            None => "there is no such feature".to_owned(),
            Some(range) => format!("the controller supports levels {range}"),
        })?;
    for voter in &context.voters {
        if !image.nodes.contains_key(voter) {
            return Err(format!(
                "what voter {voter} supports is not known: start it first"
            ));
        }
    }
    for node in image.nodes.values() {
        let supported = Supported::of(node);
        if let Err(unsupported) = supported.check(feature, level) {
            return Err(match unsupported.range {
                None => format!("node {} knows no such feature: upgrade it first", node.id),
                Some(range) => format!("node {} supports levels {range}: upgrade it first", node.id),
            });
        }
    }
    Ok(())
}

/// Lets a decision pass if the level in force, before it or after, allows its records.
pub(super) fn permit(decision: Decision, image: &Image) -> Result<Decision, ProposeError> {
    let raised = decision.records.iter().filter_map(|record| {
        let Record::FeatureLevel { feature, level } = record else {
            return None;
        };
        (feature == features::VERSION).then_some(*level)
    });
    let allowed = raised.chain([image.level()]).max().unwrap_or(Level::FIRST);
    let needed = decision.records.iter().map(Record::level).max();
    match needed {
        Some(needed) if needed > allowed => Err(ProposeError::UnsupportedVersion(format!(
            "this needs {} {needed}, and the cluster is at {allowed}: upgrade it first (`headwater cluster upgrade`)",
            features::VERSION
        ))),
        Some(_) | None => Ok(decision),
    }
}

#[cfg(test)]
mod tests;
