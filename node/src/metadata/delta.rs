//! What changed between two images: what a reconciler needs to look at, and no more.

use super::{Image, Topic};
use headwater_protocol::ids::TopicId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The topics that differ between two images, and which other parts do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Topics that are new or changed, as they are now.
    pub topics_changed: Vec<Arc<Topic>>,
    /// Topics that are gone, as they were. One deleted and made again by the same name is in both lists.
    pub topics_removed: Vec<Arc<Topic>>,
    pub broker_configs: bool,
    pub nodes: bool,
    pub modules: bool,
    pub transforms: bool,
    pub sites: bool,
    pub links: bool,
    pub upstreams: bool,
}

impl Delta {
    /// What happened from `old` to `new`.
    pub fn between(old: &Image, new: &Image) -> Self {
        let (topics_changed, topics_removed) = if Arc::ptr_eq(&old.topics, &new.topics) {
            (Vec::new(), Vec::new())
        } else {
            topics(old, new)
        };
        Self {
            topics_changed,
            topics_removed,
            broker_configs: differ(&old.broker_configs, &new.broker_configs),
            nodes: differ(&old.nodes, &new.nodes),
            modules: differ(&old.modules, &new.modules),
            transforms: differ(&old.transforms, &new.transforms),
            sites: differ(&old.sites, &new.sites),
            links: differ(&old.links, &new.links),
            upstreams: differ(&old.upstreams, &new.upstreams),
        }
    }
}

fn differ<T: PartialEq>(old: &Arc<T>, new: &Arc<T>) -> bool {
    !Arc::ptr_eq(old, new) && old != new
}

fn topics(old: &Image, new: &Image) -> (Vec<Arc<Topic>>, Vec<Arc<Topic>>) {
    let by_id = |image: &Image| -> BTreeMap<TopicId, Arc<Topic>> {
        image
            .topics
            .values()
            .map(|topic| (topic.id, Arc::clone(topic)))
            .collect()
    };
    let (before, after) = (by_id(old), by_id(new));
    let changed = after.values().filter(|topic| {
        before
            .get(&topic.id)
            .is_none_or(|known| !Arc::ptr_eq(known, topic) && known != *topic)
    });
    let removed = before.values().filter(|topic| !after.contains_key(&topic.id));
    (changed.cloned().collect(), removed.cloned().collect())
}
