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

/// What may be set for single groups: their properties are called so without `group.` before it.
const OF_GROUPS: &[&str] = &["group.share.auto.offset.reset", "group.share.isolation.level"];
/// What stands before a group's name in a key.
const GROUP: &str = "group:";

/// Which property a key means that is set while nodes run: one of all nodes by its name, one of a single node, whose
/// number stands before it: `2/NAME`, or one of a single group: `group:GROUP/NAME`. Whoever knows no such keys passes them over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dynamic<'a> {
    pub node: Option<NodeId>,
    pub group: Option<&'a str>,
    pub name: &'a str,
}

impl<'a> Dynamic<'a> {
    pub fn read(key: &'a str) -> Self {
        let everywhere = Self {
            node: None,
            group: None,
            name: key,
        };
        // A group's name may hold anything, a property's no slash.
        if let Some((group, name)) = key.strip_prefix(GROUP).and_then(|rest| rest.rsplit_once('/')) {
            let group = Some(group);
            return Self {
                group,
                name,
                ..everywhere
            };
        }
        let split = key.split_once('/');
        let of_node = split.and_then(|(node, name)| Some((node.parse().ok().map(NodeId)?, name)));
        match of_node {
            Some((node, name)) => Self {
                node: Some(node),
                name,
                ..everywhere
            },
            None => everywhere,
        }
    }

    pub fn of_node(node: NodeId, name: &'a str) -> Self {
        let (node, group) = (Some(node), None);
        Self { node, group, name }
    }

    pub fn of_group(group: &'a str, name: &'a str) -> Self {
        let (node, group) = (None, Some(group));
        Self { node, group, name }
    }

    /// The properties that single groups may have, by the names that nodes know.
    pub fn of_groups() -> &'static [&'static str] {
        OF_GROUPS
    }

    /// A property of a node for all groups, as it is called where it is one group's.
    pub fn name_of_group(name: &str) -> &str {
        name.strip_prefix("group.").unwrap_or(name)
    }

    pub fn key(self) -> String {
        match (self.node, self.group) {
            (Some(node), _) => format!("{node}/{}", self.name),
            (None, Some(group)) => format!("{GROUP}{group}/{}", self.name),
            (None, None) => self.name.to_owned(),
        }
    }

    /// Checks the value that it is to have, and gives the form it is kept in.
    pub fn check(self, value: &str) -> Result<String, PropertyError> {
        let Self { node, group, name } = self;
        let refuse = |reason: &'static str| {
            Err(PropertyError::Misplaced {
                key: name.to_owned(),
                reason: reason.into(),
            })
        };
        let known = find(name)?;
        if group.is_some() {
            return match OF_GROUPS.contains(&name) {
                true => check(name, value),
                false => refuse("it is no property of single groups"),
            };
        }
        match known.change {
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
            let group = None;
            assert_eq!(dynamic, Dynamic { node, group, name });
            assert_eq!(dynamic.key(), key);
        }
        let key = "group:a/b/group.share.isolation.level";
        let dynamic = Dynamic::read(key);
        assert_eq!(dynamic.group, Some("a/b"));
        assert_eq!(dynamic.name, "group.share.isolation.level");
        assert_eq!(dynamic.key(), key);
    }

    #[test]
    fn some_properties_are_of_groups() {
        let check = |name: &str, value: &str| Dynamic::read(&format!("group:g/{name}")).check(value);
        assert!(check("group.share.auto.offset.reset", "earliest").is_ok());
        assert!(check("group.share.auto.offset.reset", "never").is_err());
        assert!(check("num.partitions", "2").is_err());
        assert!(OF_GROUPS.iter().all(|name| find(name).is_ok()));
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
