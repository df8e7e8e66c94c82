//! The cluster's metadata as everyone on this node reads it: a sequence of records agreed on by the quorum
//! (`record`), folded into an image (`image`), published through a `View`.
//!
//! Owns the image and its publication. It never decides a change: only the controller appends records.

pub mod delta;
pub mod features;
pub mod image;
pub mod module;
pub mod record;
pub mod site;
pub mod topic;
pub mod transform;

pub use delta::Delta;
pub use image::{Image, Node, NodeState};
pub use module::{Module, ParamKind, ParamSpec, World};
pub use record::Record;
pub use site::{Direction, Flow, FlowMode, GapPolicy, Link, LinkRole, Site, SiteState, Upstream};
pub use topic::{MirrorSource, PartitionState, Topic};
pub use transform::{
    Delivery, Emit, ErrorPolicy, Join, JoinKind, JoinWith, Limits, ModuleRef, Placement, StartAt, Transform,
    WindowShape,
};

use headwater_protocol::ids::{Offset, TopicId};
use std::sync::Arc;
use tokio::sync::watch;

/// A handle to the newest image. Cheap to clone.
///
/// - Images are published in the order of their offsets; a reader never sees an older one after a newer one.
/// - An image never changes once it is published.
#[derive(Clone)]
pub struct View {
    images: watch::Receiver<Arc<Image>>,
}

impl View {
    /// A view and the one publisher that feeds it, starting at `first`.
    pub fn new(first: Image) -> (Publisher, Self) {
        let (sender, images) = watch::channel(Arc::new(first));
        (Publisher { sender }, Self { images })
    }

    /// The newest image.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.images.borrow())
    }

    /// Follows the images. A slow reader skips to the newest: it compares with the one it had (`Delta`).
    pub fn watch(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }

    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.images.borrow().topics.get(name).cloned()
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.images.borrow().topic_by_id(id).cloned()
    }

    /// Returns when the image holds everything up to and including `offset`; at once if it does already.
    pub async fn reached(&self, offset: Offset) -> Result<(), Ended> {
        let mut images = self.images.clone();
        let reached = images.wait_for(|image| image.offset >= offset).await;
        reached.map(drop).map_err(|_| Ended)
    }
}

/// The publisher is gone: the node stops, or its metadata log has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node hears of no newer metadata")]
pub struct Ended;

/// The writing end of a view. There is one: the controller's task holds it.
pub struct Publisher {
    sender: watch::Sender<Arc<Image>>,
}

impl Publisher {
    /// Makes `image` the newest one.
    pub fn publish(&self, image: Arc<Image>) {
        self.sender.send_modify(|current| {
            assert!(
                image.offset >= current.offset,
                "images are published in the order of their offsets"
            );
            *current = image;
        });
    }
}

#[cfg(test)]
mod tests;
