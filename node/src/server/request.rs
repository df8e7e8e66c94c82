//! One request on its way: who asks, in which version, since when.

use std::sync::Arc;
use std::time::Instant;

use headwater_protocol::kafka::ApiKey;
use headwater_protocol::primitives::Str;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Services, Shared};
use crate::security::Principal;
use crate::transport::stream::HandshakeOver;
use crate::transport::{ListenerKind, Peer};

/// Who asks: what all requests of one stream share.
pub(super) struct Caller {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Arc<Peer>,
    pub(super) principal: Arc<Principal>,
    /// Fires when nobody waits for an answer any more, or nobody should: the stream ended or broke, the node drains.
    pub(super) hurry: CancellationToken,
    /// Whether another request of the same stream, which is another node's, is here and waits for this one to be answered.
    pub(super) pressed: watch::Sender<bool>,
    /// Set while what was read may be a replay.
    pub(super) early: Option<HandshakeOver>,
}

impl Caller {
    pub(super) fn new(shared: Arc<Shared>, peer: Arc<Peer>, early: Option<HandshakeOver>) -> Self {
        let principal = Arc::new(Principal::of(peer.node, peer.certificate.as_deref()));
        let hurry = shared.draining.child_token();
        Self {
            shared,
            peer,
            principal,
            hurry,
            pressed: watch::Sender::new(false),
            early,
        }
    }
}

/// What a handler knows beside the request itself.
pub(super) struct Context {
    pub(super) caller: Arc<Caller>,
    pub(super) key: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    /// As the client calls itself; for log lines.
    pub(super) client_id: Option<Str>,
    pub(super) received: Instant,
}

impl Context {
    pub(super) fn services(&self) -> &Services {
        &self.caller.shared.services
    }

    /// Which kind of address the client must be told.
    pub(super) fn listener(&self) -> ListenerKind {
        self.caller.peer.listener
    }
}
