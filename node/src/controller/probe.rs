//! Whether a node that went silent is gone for certain: the kernel of its host says so when nobody listens where it did.
//!
//! A process that was killed is noticed by that within milliseconds, one whose host or network is gone only by its silence.
//! Nothing is concluded from anything but a refusal.

use std::io;
use std::time::Duration;

use headwater_protocol::ids::{BrokerEpoch, NodeId};

use crate::metadata::Node;
use crate::sys::Sys;

/// A node as it was when its host was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) node: NodeId,
    pub(super) epoch: BrokerEpoch,
}

/// Connects to the node's Kafka listener over TCP, for `patience` at most. A node without one is not asked.
pub(super) async fn is_gone(sys: Sys, node: Node, patience: Duration) -> Option<Gone> {
    if node.addresses.tcp.is_empty() {
        return None;
    }
    let connected = sys
        .clock
        .timeout(patience, connect(&sys, &node.addresses.tcp))
        .await;
    match connected {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Some(Gone {
            node: node.id,
            epoch: node.epoch,
        }),
        Ok(Ok(()) | Err(_)) | Err(_) => None,
    }
}

/// An error only if each address it has gives one; the last one then.
async fn connect(sys: &Sys, address: &str) -> io::Result<()> {
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for address in sys.net.resolve(address).await? {
        outcome = sys.net.connect_tcp(address).await.map(drop);
        match &outcome {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(()) | Err(_) => break,
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::image::Addresses;
    use std::path::Path;

    #[tokio::test]
    async fn only_a_refusal_means_that_a_node_is_gone() {
        let sys = Sys::real(Path::new(""));
        let listener = sys
            .net
            .listen_tcp(([127, 0, 0, 1], 0).into())
            .expect("a listener");
        let at = |tcp: String| {
            let addresses = Addresses {
                tcp,
                ..Addresses::default()
            };
            Node::new(NodeId(2), addresses, None)
        };
        let there = at(listener.local_addr().expect("bound").to_string());
        let ask = |node: &Node| is_gone(sys.clone(), node.clone(), Duration::from_secs(5));
        assert_eq!(ask(&there).await, None);
        assert_eq!(ask(&at(String::new())).await, None, "it has no such listener");
        drop(listener);
        let gone = Gone {
            node: NodeId(2),
            epoch: there.epoch,
        };
        assert_eq!(ask(&there).await, Some(gone));
    }
}
