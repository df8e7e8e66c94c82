//! `headwater cluster features` and `upgrade`: the levels of features, and another one for the whole cluster.

use std::collections::BTreeMap;

use headwater_sdk::{Admin, FeatureUpdate, FeatureWay};
use serde_json::{Value, json};

use super::super::common::Common;
use super::super::failure::Failure;
use super::super::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A feature and the level it is to have, as NAME=LEVEL [default: every feature, as high as all nodes support]
    #[arg(long = "feature", value_name = "NAME=LEVEL", value_parser = level)]
    features: Vec<(String, i16)>,
    /// Let the level go down, where nothing is lost by it
    #[arg(long, requires = "features")]
    downgrade: bool,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

fn level(text: &str) -> Result<(String, i16), String> {
    let (name, level) = text.split_once('=').ok_or("NAME=LEVEL is needed")?;
    let level = level.parse().map_err(|_| format!("{level:?} is no level"))?;
    Ok((name.to_owned(), level))
}

/// One feature, as the whole cluster has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Levels {
    finalized: Option<i16>,
    /// What every node supports; None: some node does not know it.
    possible: Option<(i16, i16)>,
}

/// Shows what is in force, and what could be.
pub(super) async fn show(common: &Common, admin: &Admin) -> Result<(), Failure> {
    let features = of_cluster(admin).await?;
    let shape = features.iter().map(|(name, levels)| {
        json!({
            "feature": name, "finalized": levels.finalized,
            "min": levels.possible.map(|(min, _)| min), "max": levels.possible.map(|(_, max)| max),
        })
    });
    common.answer(&Value::Array(shape.collect()), |value| {
        let mut table = Table::new(&["feature", ">level", ">min", ">max"]);
        for row in value.as_array().into_iter().flatten() {
            let name = row["feature"].as_str().unwrap_or_default().to_owned();
            let mut cells = vec![name];
            cells.extend(["finalized", "min", "max"].map(|name| super::text(&row[name])));
            table.row(cells);
        }
        table.text()
    })
}

/// Asks every node what it supports.
async fn of_cluster(admin: &Admin) -> Result<BTreeMap<String, Levels>, Failure> {
    let nodes = admin.describe_cluster().await?.brokers;
    let mut all = Vec::new();
    for (node, _) in nodes {
        all.push(admin.describe_features(Some(node)).await?.features);
    }
    let mut names: Vec<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let levels = |name: &String| {
        let of = |features: &BTreeMap<_, _>| features.get(name).copied().unwrap_or_default();
        let known: Vec<headwater_sdk::FeatureLevels> = all.iter().map(of).collect();
        let supported = known.iter().map(|levels| levels.supported);
        Levels {
            finalized: known.iter().filter_map(|levels| levels.finalized).max(),
            possible: supported
                .reduce(|one, other| Some((one?.0.max(other?.0), one?.1.min(other?.1))))
                .flatten()
                .filter(|(min, max)| min <= max),
        }
    };
    Ok(names
        .into_iter()
        .map(|name| (name.clone(), levels(name)))
        .collect())
}

/// Sets levels, and shows what is in force then.
pub(super) async fn upgrade(common: &Common, admin: &Admin, arguments: Arguments) -> Result<(), Failure> {
    let way = if arguments.downgrade {
        FeatureWay::Downgrade
    } else {
        FeatureWay::Upgrade
    };
    let wanted = if arguments.features.is_empty() {
        highest(&of_cluster(admin).await?)
    } else {
        arguments.features
    };
    let update = |(feature, level)| FeatureUpdate { feature, level, way };
    let updates: Vec<FeatureUpdate> = wanted.into_iter().map(update).collect();
    if !updates.is_empty() {
        admin.update_features(&updates, arguments.dry_run).await?;
    }
    show(common, admin).await
}

/// Every feature that could be higher, at the highest level that all nodes support.
fn highest(features: &BTreeMap<String, Levels>) -> Vec<(String, i16)> {
    let higher = features.iter().filter_map(|(name, levels)| {
        let (_, max) = levels.possible?;
        (levels.finalized.unwrap_or(0) < max).then(|| (name.clone(), max))
    });
    higher.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_goes_as_high_as_every_node_can() {
        let levels = |finalized, possible| Levels { finalized, possible };
        let features = [
            ("done", levels(Some(2), Some((1, 2)))),
            ("unknown to some", levels(Some(1), None)),
            ("behind", levels(Some(1), Some((1, 3)))),
            ("new", levels(None, Some((1, 1)))),
        ];
        let features = features.map(|(name, levels)| (name.to_owned(), levels));
        let expected = [("behind".to_owned(), 3), ("new".to_owned(), 1)];
        assert_eq!(highest(&BTreeMap::from(features)), expected);
    }

    #[test]
    fn a_level_is_named_with_its_feature() {
        assert_eq!(
            level("headwater.version=2"),
            Ok(("headwater.version".to_owned(), 2))
        );
        assert!(level("headwater.version").is_err() && level("x=high").is_err());
    }
}
