//! Where a client is told that a node is reached: by the kind of listener it came in by itself.

use headwater_protocol::primitives::Str;

use crate::metadata::Node;
use crate::transport::ListenerKind;

/// Host and port; nothing when the node has no such listener.
pub(super) fn of(node: &Node, listener: ListenerKind) -> Option<(Str, i32)> {
    let text = match listener {
        ListenerKind::Tcp => &node.addresses.tcp,
        ListenerKind::Tls => &node.addresses.tls,
        ListenerKind::Quic => &node.addresses.quic,
    };
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Some((Str::from(host), port.parse::<u16>().ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::image::Addresses;
    use headwater_protocol::ids::NodeId;

    #[test]
    fn addresses_are_told_by_listener() {
        let check = |tcp: &str, quic: &str, told_tcp: Option<(&str, i32)>, told_quic: Option<(&str, i32)>| {
            let addresses = Addresses {
                tcp: tcp.to_owned(),
                tls: String::new(),
                quic: quic.to_owned(),
                http: String::new(),
            };
            let node = Node::new(NodeId(1), addresses, None);
            let told = |listener| of(&node, listener).map(|(host, port)| (host.to_string(), port));
            let owned = |told: Option<(&str, i32)>| told.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(told(ListenerKind::Tcp), owned(told_tcp));
            assert_eq!(told(ListenerKind::Quic), owned(told_quic));
        };
        check(
            "edge.example:9092",
            "[2001:db8::7]:9093",
            Some(("edge.example", 9092)),
            Some(("2001:db8::7", 9093)),
        );
        check("", "no port", None, None);
        check("10.0.0.1:99999", "a:1", None, Some(("a", 1)));
    }
}
