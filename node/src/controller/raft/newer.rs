//! What a newer node wrote and this one cannot read: from then on it would miss what the others know, so it must not go on.
//!
//! Owns the first such finding of a quorum. It must never be taken back: only another binary changes it.

use std::sync::Arc;

use tokio::sync::watch;

/// Where it is told. Clones are the same.
#[derive(Clone)]
pub(super) struct Newer(Arc<watch::Sender<Option<String>>>);

impl Default for Newer {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Newer {
    pub(super) fn report(&self, found: impl ToString) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| found.to_string());
            is_first
        });
    }

    pub(super) fn found(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Returns when there is something. Cancel safe.
    pub(super) async fn wait(&self) -> String {
        let mut told = self.0.subscribe();
        let found = told.wait_for(Option::is_some).await;
        match found.map(|found| found.clone().unwrap_or_default()) {
            Ok(found) => found,
            // Its sender is held here.
            Err(_) => std::future::pending().await,
        }
    }
}
