//! Which topics a flow copies, under which name, and with which properties.
//!
//! Pure: flows and the source's inventory in, the wanted copies out.

use std::collections::BTreeMap;

use headwater_protocol::ids::TopicId;
use serde::{Deserialize, Serialize};

use crate::metadata::{Direction, Flow, GapPolicy, Image, LinkRole, Topic};

/// Topic properties that a new copy takes over from its source: those that decide what the bytes mean. How long to
/// keep them is for each end to say.
const COPIED_PROPERTIES: [&str; 3] = ["cleanup.policy", "max.message.bytes", "message.timestamp.type"];

/// A topic that the source offers, as the other end is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offered {
    pub name: String,
    pub id: TopicId,
    pub partitions: i32,
    #[serde(default)]
    pub configs: BTreeMap<String, String>,
}

/// A topic that this end is to hold as a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedCopy {
    pub source: Offered,
    /// Its name here.
    pub name: String,
    pub on_gap: GapPolicy,
}

/// Whether `pattern` matches the whole of `name`; `*` stands for any characters, none included.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let mut last = "";
    for part in parts {
        // Each part but the last is found as early as possible; the last one must end the name.
        if !last.is_empty() {
            match rest.find(last) {
                Some(at) => rest = &rest[at + last.len()..],
                None => return false,
            }
        }
        last = part;
    }
    rest.ends_with(last)
}

/// The direction in which this end is the source.
pub(super) fn sending(role: LinkRole) -> Direction {
    match role {
        LinkRole::Edge => Direction::Up,
        LinkRole::Core => Direction::Down,
    }
}

/// The direction in which this end holds the copies.
pub(super) fn receiving(role: LinkRole) -> Direction {
    match role {
        LinkRole::Edge => Direction::Down,
        LinkRole::Core => Direction::Up,
    }
}

fn flow_for<'a>(flows: &'a [Flow], direction: Direction, topic: &str) -> Option<&'a Flow> {
    flows
        .iter()
        .find(|flow| flow.direction == direction && flow.topics.iter().any(|p| matches(p, topic)))
}

/// The flow by which this end, in `role`, sends `topic`, if it does. Copies are never sent on, so that two links cannot
/// make a circle; internal topics stay where they are.
pub(super) fn sends<'a>(role: LinkRole, flows: &'a [Flow], topic: &Topic) -> Option<&'a Flow> {
    if topic.internal || topic.mirror.is_some() {
        return None;
    }
    flow_for(flows, sending(role), &topic.name)
}

/// Everything this end offers to the other.
pub(super) fn offer(role: LinkRole, flows: &[Flow], image: &Image) -> Vec<Offered> {
    let topics = image
        .topics
        .values()
        .filter(|topic| sends(role, flows, topic).is_some());
    topics
        .map(|topic| Offered {
            name: topic.name.to_string(),
            id: topic.id,
            // A topic has at most as many partitions as an i32 counts: the controller bounds them.
            partitions: topic.partitions.len() as i32,
            configs: topic
                .configs
                .iter()
                .filter(|(key, _)| COPIED_PROPERTIES.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        })
        .collect()
}

/// The copies that this end is to hold of what the other offers. What no flow names here is left out, whatever the
/// other end believes.
pub(super) fn wanted(role: LinkRole, flows: &[Flow], offered: &[Offered]) -> Vec<WantedCopy> {
    let direction = receiving(role);
    let flow = |topic: &Offered| flow_for(flows, direction, &topic.name);
    offered
        .iter()
        .filter_map(|topic| {
            let flow = flow(topic)?;
            Some(WantedCopy {
                name: format!("{}{}", flow.prefix, topic.name),
                source: topic.clone(),
                on_gap: flow.on_gap,
            })
        })
        .collect()
}

/// The name of the copy of a log that took the place of a lost one: the old copy stays as it is.
pub(super) fn successor_name(copy: &str, id: TopicId) -> String {
    let digits: String = id.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{copy}.{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::FlowMode;

    #[test]
    fn patterns() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        };
        check("flights", "flights", true);
        check("flights", "flights.late", false);
        check("*", "", true);
        check("*", "anything", true);
        check("flights.*", "flights.late", true);
        check("flights.*", "flights", false);
        check("*.late", "flights.late", true);
        check("*.late", "late", false);
        check("a*b*c", "abc", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("a**c", "abc", true);
        check("ab*ba", "aba", false);
        check("", "", true);
        check("", "a", false);
    }

    fn flow(direction: Direction, pattern: &str, prefix: &str) -> Flow {
        Flow {
            direction,
            mode: FlowMode::Mirror,
            topics: vec![pattern.to_owned()],
            prefix: prefix.to_owned(),
            on_gap: GapPolicy::MarkGap,
        }
    }

    fn offered(name: &str) -> Offered {
        Offered {
            name: name.to_owned(),
            id: TopicId::default(),
            partitions: 1,
            configs: BTreeMap::new(),
        }
    }

    #[test]
    fn the_first_flow_that_names_a_topic_takes_it() {
        let flows = [
            flow(Direction::Down, "*", "down."),
            flow(Direction::Up, "alarms", "urgent."),
            flow(Direction::Up, "a*", "site."),
        ];
        let names = |role| -> Vec<String> {
            wanted(
                role,
                &flows,
                &[offered("alarms"), offered("audio"), offered("zebra")],
            )
            .into_iter()
            .map(|copy| copy.name)
            .collect()
        };
        assert_eq!(names(LinkRole::Core), ["urgent.alarms", "site.audio"]);
        assert_eq!(names(LinkRole::Edge), ["down.alarms", "down.audio", "down.zebra"]);
    }
}
