//! Whether the node is alive and ready, part by part: what `/healthz` and `/readyz` answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The health of the parts of a node. Cheap to clone.
///
/// - A part is not ready until it says so.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<&'static str, State>>>,
}

/// How a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    /// It works with restrictions: the reason says which.
    Degraded(String),
    /// It does not work: the node cannot serve.
    Failed(String),
    Stopping,
}

impl Health {
    /// Says how a part is from now on.
    pub fn set(&self, part: &'static str, state: State) {
        self.parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, state);
    }

    /// All parts, by name.
    pub fn parts(&self) -> BTreeMap<&'static str, State> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether requests may be sent here: every part is ready, or works with restrictions.
    pub fn is_ready(&self) -> bool {
        let parts = self.parts();
        !parts.is_empty()
            && parts
                .values()
                .all(|state| matches!(state, State::Ready | State::Degraded(_)))
    }

    /// Whether the process should be left running.
    pub fn is_alive(&self) -> bool {
        !self
            .parts()
            .values()
            .any(|state| matches!(state, State::Failed(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_every_part_is() {
        let health = Health::default();
        assert!(!health.is_ready() && health.is_alive());
        health.set("controller", State::Ready);
        health.set("server", State::Starting);
        assert!(!health.is_ready());
        health.set("server", State::Degraded("disk full".to_owned()));
        assert!(health.is_ready());
        health.set("controller", State::Failed("metadata log".to_owned()));
        assert!(!health.is_ready() && !health.is_alive());
    }
}
