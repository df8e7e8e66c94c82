//! Who joins, who raises a level, and what is written below one.

use super::*;
use crate::config::BrokerConfig;
use crate::controller::change::Change;
use crate::controller::decide::{Tell, decide};
use crate::controller::{self, Controller, Options};
use crate::metadata::features::{LevelRange, VERSION, Way, first_records};
use crate::metadata::image::Addresses;
use crate::sys::Sys;
use headwater_protocol::ids::{BrokerEpoch, NodeId, Offset, TopicId};
use std::collections::BTreeMap;

/// A binary that supports no more than `max`.
fn binary(max: i16) -> Supported {
    Supported::up_to(&BTreeMap::from([(VERSION.to_owned(), max)]))
}

struct Cluster {
    image: Image,
    /// Who decides, and who votes.
    context: Context,
}

impl Cluster {
    /// A cluster that a binary begins, with one voter of the same kind.
    fn begun_by(max: i16) -> Self {
        let mut cluster = Self {
            image: Image::default(),
            context: Context {
                broker: BrokerConfig::new(BTreeMap::new()),
                topic_id: TopicId([1; 16]),
                voters: [NodeId(1)].into(),
                supported: binary(max),
            },
        };
        cluster
            .image
            .apply_all(Offset(0), &first_records(&cluster.context.supported));
        cluster.start(1, max, "first").expect("the first node");
        cluster
    }

    /// Another process of a node.
    fn start(&mut self, id: i32, max: i16, incarnation: &str) -> Result<Node, ProposeError> {
        let mut node = Node::new(NodeId(id), Addresses::default(), None);
        node.incarnation = incarnation.to_owned();
        node.features = binary(max).registered();
        self.ask(Change::RegisterNode(node))?;
        Ok(self.image.nodes[&NodeId(id)].clone())
    }

    fn set(&mut self, level: i16, way: Way) -> Result<(), ProposeError> {
        self.ask(set(VERSION, level, way, false)).map(drop)
    }

    fn ask(&mut self, change: Change) -> Result<Tell, ProposeError> {
        let decision = decide(change, &self.image, &self.context)?;
        let Decision { records, tell } = permit(decision, &self.image)?;
        self.image.apply_all(self.image.offset.plus(1), &records);
        Ok(tell)
    }
}

fn set(feature: &str, level: i16, way: Way, validate_only: bool) -> Change {
    let feature = feature.to_owned();
    let level = Level(level);
    Change::UpdateFeatures {
        updates: vec![FeatureUpdate { feature, level, way }],
        validate_only,
    }
}

#[test]
fn a_new_cluster_begins_at_the_newest_level_and_an_old_one_stays_at_the_first() {
    assert_eq!(Cluster::begun_by(Level::NEWEST.0).image.level(), Level::NEWEST);
    let old = Cluster::begun_by(1);
    assert_eq!((old.image.level(), old.image.features.len()), (Level::FIRST, 0));
}

#[test]
fn a_level_is_raised_when_everybody_reads_it() {
    let mut cluster = Cluster::begun_by(1);
    cluster.start(2, 1, "old").expect("admitted");
    let refused = |cluster: &mut Cluster, reason: &str| {
        let error = cluster.set(2, Way::Up).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("feature \"headwater.version\" cannot be set to level 2: {reason}")
        );
        assert_eq!(cluster.image.level(), Level::FIRST);
    };
    refused(&mut cluster, "the controller supports levels 1 to 1");
    cluster.context.supported = binary(2);
    refused(&mut cluster, "node 1 supports levels 1 to 1: upgrade it first");
    cluster.start(1, 2, "new").expect("admitted");
    refused(&mut cluster, "node 2 supports levels 1 to 1: upgrade it first");
    // One that is away counts like any other: it comes back.
    cluster.start(2, 2, "new").expect("admitted");
    cluster.context.voters.insert(NodeId(3));
    refused(&mut cluster, "what voter 3 supports is not known: start it first");
    cluster.start(3, 2, "new").expect("admitted");
    cluster.ask(set(VERSION, 2, Way::Up, true)).expect("it could be");
    assert_eq!(cluster.image.level(), Level::FIRST, "it was only asked for");
    cluster.set(2, Way::Up).expect("everybody reads it");
    assert_eq!(cluster.image.level(), Level(2));
    cluster.set(2, Way::Up).expect("it is so already");
}

#[test]
fn nobody_joins_who_cannot_read_what_is_written() {
    let mut cluster = Cluster::begun_by(2);
    let error = cluster.start(2, 1, "old").expect_err("too old");
    assert_eq!(
        error.to_string(),
        "node 2: headwater.version is at level 2 in this cluster, this node supports levels 1 to 1: start a newer version"
    );
    // It would not understand another word.
    assert!(matches!(error, ProposeError::Refused(_)), "{error:?}");
    assert!(!cluster.image.nodes.contains_key(&NodeId(2)));
    // One that says what it supports is told so by its name.
    let mut later = Node::new(NodeId(2), Addresses::default(), None);
    let (min, max) = (Level(3), Level(4));
    later.features = BTreeMap::from([(VERSION.to_owned(), LevelRange { min, max })]);
    let error = cluster.ask(Change::RegisterNode(later)).expect_err("too new");
    assert!(matches!(error, ProposeError::UnsupportedVersion(_)), "{error:?}");
}

#[test]
fn a_node_goes_back_to_an_older_binary_before_the_level_is_raised_and_not_after() {
    let mut cluster = Cluster::begun_by(1);
    cluster.context.supported = binary(2);
    cluster.start(1, 2, "new").expect("admitted");
    cluster.start(1, 1, "old again").expect("admitted");
    assert!(cluster.set(2, Way::Up).is_err(), "it is old again");
    cluster.start(1, 2, "new again").expect("admitted");
    cluster.set(2, Way::Up).expect("raised");
    assert!(cluster.start(1, 1, "too old now").is_err());
    for (level, way, reason) in [
        (1, Way::Up, "it is at level 2: ask for a downgrade to lower it"),
        (
            1,
            Way::Down,
            "nodes of level 1 could not read what was written since it is at level 2",
        ),
        (3, Way::Up, "the controller supports levels 1 to 2"),
        (
            0,
            Way::Down,
            "nodes of level 0 could not read what was written since it is at level 2",
        ),
    ] {
        let error = cluster.set(level, way).expect_err("refused").to_string();
        assert!(error.ends_with(reason), "{error}");
    }
    let other = cluster.ask(set("share.version", 1, Way::Up, false));
    assert_eq!(
        other.expect_err("refused").to_string(),
        "feature \"share.version\" cannot be set to level 1: there is no such feature"
    );
}

#[test]
fn an_old_controller_takes_no_note_of_what_a_node_supports_and_its_successor_is_told_again() {
    let mut cluster = Cluster::begun_by(1);
    let new = cluster.start(2, 2, "new").expect("admitted");
    assert!(new.features.is_empty(), "the controller does not know the field");
    cluster.context.supported = binary(2);
    let again = cluster.start(2, 2, "new").expect("the same process");
    assert_eq!(
        (again.epoch, &again.features),
        (new.epoch, &binary(2).registered())
    );
    assert!(again.epoch > BrokerEpoch(0));
}

#[test]
fn records_above_the_level_in_force_are_not_written() {
    let cluster = Cluster::begun_by(1);
    let other = Record::FeatureLevel {
        feature: "another".to_owned(),
        level: Level(1),
    };
    let permitted = permit(Decision::done(vec![other.clone()]), &cluster.image);
    assert_eq!(
        permitted.expect_err("refused").to_string(),
        "this needs headwater.version 2, and the cluster is at 1: upgrade it first (`headwater cluster upgrade`)"
    );
    assert!(permit(Decision::done(vec![other]), &Cluster::begun_by(2).image).is_ok());
}

/// The controller of a node alone, of a binary that supports no more than `max`, on what a former one left.
async fn alone(disk: &Sys, max: i16) -> (Sys, Controller) {
    let sys = Sys {
        tasks: Sys::simulated(7).tasks,
        ..disk.clone()
    };
    let options = Options {
        supported: binary(max),
        ..Options::alone("lab", BrokerConfig::new(BTreeMap::new()), &sys)
    };
    let (controller, _) = controller::start(options).await.expect("started");
    (sys, controller)
}

#[tokio::test]
async fn a_node_that_finds_a_higher_level_in_its_log_says_so_and_ends() {
    let disk = Sys::simulated(7);
    for max in [1, 2] {
        let (sys, controller) = alone(&disk, max).await;
        controller
            .propose(Change::AllocateProducerIds)
            .await
            .expect("it can read everything");
        if max == 2 {
            let mut node = Node::new(NodeId(1), Addresses::default(), None);
            node.features = binary(2).registered();
            let registered = controller.propose(Change::RegisterNode(node)).await;
            registered.expect("admitted");
            let raised = controller.propose(set(VERSION, 2, Way::Up, false)).await;
            raised.expect("it is alone");
        }
        assert_eq!(controller.known().level(), Level(max));
        sys.tasks.cancel();
        sys.tasks.ended().await;
    }
    let (sys, controller) = alone(&disk, 1).await;
    let mut failure = sys.tasks.failure();
    let refused = controller.propose(Change::AllocateProducerIds).await;
    let error = refused.expect_err("it must not go on").to_string();
    assert_eq!(
        error,
        "headwater.version is at level 2 in this cluster, this node supports levels 1 to 1"
    );
    let failure = failure
        .wait_for(Option::is_some)
        .await
        .expect("it is told")
        .clone();
    let said = failure.expect("something failed").to_string();
    assert!(said.contains("this node is too old for its cluster"), "{said}");
}
