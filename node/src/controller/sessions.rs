//! When each node was heard of last, and which ones are silent for too long. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_protocol::ids::{BrokerEpoch, NodeId};

use crate::metadata::{Image, Node, NodeState};

/// The sessions of the nodes with the controller. Kept by whoever leads the quorum, and begun anew by each leader:
/// every node then has a whole session's time to report.
#[derive(Debug)]
pub(super) struct Sessions {
    me: NodeId,
    timeout: Duration,
    heard: BTreeMap<NodeId, Instant>,
    began: Instant,
}

impl Sessions {
    pub(super) fn begin(me: NodeId, timeout: Duration, now: Instant) -> Self {
        Self {
            me,
            timeout,
            heard: BTreeMap::new(),
            began: now,
        }
    }

    pub(super) fn heard(&mut self, node: NodeId, now: Instant) {
        self.heard.insert(node, now);
    }

    /// A node that is probably gone has only so much time left to report.
    pub(super) fn doubt(&mut self, node: NodeId, grace: Duration, now: Instant) {
        if let Some(at) = (now + grace).checked_sub(self.timeout) {
            self.heard(node, at);
        }
    }

    /// Nodes that take part and were not heard of in time.
    pub(super) fn expired(&self, image: &Image, now: Instant) -> Vec<(NodeId, BrokerEpoch)> {
        self.watched(image)
            .filter(|node| self.deadline(node.id) <= now)
            .map(|node| (node.id, node.epoch))
            .collect()
    }

    /// When the next session runs out, unless its node is heard of before.
    pub(super) fn next_deadline(&self, image: &Image) -> Option<Instant> {
        self.watched(image).map(|node| self.deadline(node.id)).min()
    }

    fn watched<'a>(&self, image: &'a Image) -> impl Iterator<Item = &'a Node> + use<'a> {
        let me = self.me;
        image
            .nodes
            .values()
            .filter(move |node| node.id != me && node.state != NodeState::Fenced)
    }

    fn deadline(&self, node: NodeId) -> Instant {
        self.heard_at(node) + self.timeout
    }

    fn heard_at(&self, node: NodeId) -> Instant {
        self.heard.get(&node).copied().unwrap_or(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Record;
    use crate::metadata::image::Addresses;
    use headwater_protocol::ids::Offset;

    #[test]
    fn a_node_is_expired_when_it_was_silent_for_a_session_and_takes_part() {
        let clock = crate::sys::clock::Clock::manual(0);
        let mut image = Image::default();
        for (id, state) in [
            (1, NodeState::Active),
            (2, NodeState::Active),
            (3, NodeState::Fenced),
        ] {
            let addresses = Addresses::default();
            let mut node = Node::new(NodeId(id), addresses, None);
            node.state = state;
            image.apply(Offset(i64::from(id)), &Record::Node(node));
        }
        let (start, second) = (clock.now(), Duration::from_secs(1));
        let mut sessions = Sessions::begin(NodeId(1), second, start);
        assert_eq!(sessions.next_deadline(&image), Some(start + second));
        sessions.heard(NodeId(2), start + second / 2);
        assert!(sessions.expired(&image, start + second).is_empty());
        let expired = sessions.expired(&image, start + second + second / 2);
        assert_eq!(expired, [(NodeId(2), BrokerEpoch(0))]);
    }
}
