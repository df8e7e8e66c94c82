//! Which partitions are on this node.

use super::Partition;
use headwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use std::sync::Arc;
use tokio::sync::watch;

/// The partitions of this node, by topic name and by topic id. Cheap to clone.
///
/// - It follows the metadata: a partition is here soon after the image says so.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    reconciled: watch::Receiver<Offset>,
}

impl Registry {
    pub fn get(&self, _topic: &str, _index: PartitionIndex) -> Option<Partition> {
        None
    }

    pub fn get_by_id(&self, _topic: TopicId, _index: PartitionIndex) -> Option<Partition> {
        None
    }

    /// All partitions, by topic name and index.
    pub fn list(&self) -> Vec<Partition> {
        Vec::new()
    }

    /// Returns when the partitions on this node are those of the image at `offset` (what `propose` answers with).
    pub async fn reconciled(&self, offset: Offset) {
        // The reconciler's end is the node's end: whoever waits is being stopped as well.
        let _ = self
            .shared
            .reconciled
            .clone()
            .wait_for(|reached| *reached >= offset)
            .await;
    }

    /// Follows the offsets up to which this node is reconciled: changes whenever partitions come or go.
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.shared.reconciled.clone()
    }
}
