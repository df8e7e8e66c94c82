//! The principal that a request acts for. Pure: facts in, a name out; it must never grant anything by itself.

use std::fmt;

use headwater_protocol::ids::NodeId;

use super::identity::CertificateFacts;

/// Who asks. Streams of one connection share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// Nobody proved anything.
    Anonymous,
    /// A client that showed a certificate of this cluster's authority which names neither a site nor a node.
    Certificate(String),
    /// An enrolled site, by its name.
    Site(String),
    /// A node of this cluster.
    Node(i32),
}

impl Principal {
    /// The principal behind a connection: a node that proved to be one, else whom the certificate names. Both must
    /// already have been verified.
    pub fn of(node: Option<NodeId>, certificate: Option<&CertificateFacts>) -> Self {
        if let Some(node) = node {
            return Self::Node(node.value());
        }
        let Some(facts) = certificate else {
            return Self::Anonymous;
        };
        if let Some(site) = facts.site() {
            return Self::Site(site.to_owned());
        }
        match facts.node() {
            Some(node) => Self::Node(node),
            None => Self::Certificate(facts.subject.clone()),
        }
    }
}

/// As Kafka writes principals: `Kind:name`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("User:ANONYMOUS"),
            Self::Certificate(name) => write!(f, "User:{name}"),
            Self::Site(name) => write!(f, "Site:{name}"),
            Self::Node(id) => write!(f, "Node:{id}"),
        }
    }
}
