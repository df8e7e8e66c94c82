//! What is set while nodes run: which keys there are, and what they may be set to. The values live in the metadata.

use super::properties::PropertyError;
use super::server::{When, check, find};
use headwater_protocol::ids::NodeId;

/// What the controller decides by, for all nodes: no node has a value of its own.
const OF_ALL_NODES: &[&str] = &[
    "auto.leader.rebalance.enable",
    "default.replication.factor",
    "leader.imbalance.check.interval.seconds",
    "leader.imbalance.per.broker.percentage",
    "min.insync.replicas",
    "num.partitions",
    "unclean.leader.election.enable",
];

/// Which property a key means that is set while nodes run: one of all nodes by its name, or one of a single node, whose
/// number stands before it: `2/NAME`. Whoever knows no keys of single nodes passes them over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dynamic<'a> {
    pub node: Option<NodeId>,
    pub name: &'a str,
}

impl<'a> Dynamic<'a> {
    pub fn read(key: &'a str) -> Self {
        let split = key.split_once('/');
        let of_node = split.and_then(|(node, name)| Some((node.parse().ok().map(NodeId)?, name)));
        match of_node {
            Some((node, name)) => Self {
                node: Some(node),
                name,
            },
            None => Self {
                node: None,
                name: key,
            },
        }
    }

    pub fn key(self) -> String {
        match self.node {
            Some(node) => format!("{node}/{}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// Checks the value that it is to have, and gives the form it is kept in.
    pub fn check(self, value: &str) -> Result<String, PropertyError> {
        let Self { node, name } = self;
        let refuse = |reason: &'static str| {
            Err(PropertyError::Misplaced {
                key: name.to_owned(),
                reason: reason.into(),
            })
        };
        match find(name)?.change {
            When::Start => refuse("it belongs to one node and takes effect at its start"),
            When::Live if node.is_some() && OF_ALL_NODES.contains(&name) => {
                refuse("it holds for all nodes: set it for the broker without a name")
            }
            When::Live => check(name, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_a_property_of_all_nodes_or_of_one() {
        for (key, node, name) in [
            ("log.retention.ms", None, "log.retention.ms"),
            ("2/log.retention.ms", Some(NodeId(2)), "log.retention.ms"),
            ("x/log.retention.ms", None, "x/log.retention.ms"),
            ("/a", None, "/a"),
        ] {
            let dynamic = Dynamic::read(key);
            assert_eq!(dynamic, Dynamic { node, name });
            assert_eq!(dynamic.key(), key);
        }
    }

    #[test]
    fn some_properties_are_of_all_nodes_and_some_take_a_start() {
        let check = |key: &str| {
            let checked = Dynamic::read(key).check("2");
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check("num.partitions"), Ok("2".to_owned()));
        assert_eq!(check("1/log.retention.ms"), Ok("2".to_owned()));
        for (key, reason) in [
            ("1/num.partitions", "it holds for all nodes"),
            ("1/node.id", "takes effect at its start"),
            ("x/num.partitions", "unknown key"),
        ] {
            assert!(check(key).is_err_and(|why| why.contains(reason)), "{key}");
        }
        // A misspelt name would let one node decide otherwise than the others.
        assert!(OF_ALL_NODES.iter().all(|name| find(name).is_ok()));
    }
}
