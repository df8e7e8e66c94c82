//! Enrolment: a site that has nothing but a token gets a certificate from its core, once.
//!
//! The site makes its own key, which never leaves it, and dials the core, believing only the authority that the token
//! names. It sends the token's secret and a certificate request on one stream; the core answers with the certificate
//! and the declaration of the link. A request that was answered, but whose answer was lost, may be repeated with the
//! same key until the token expires.

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::metadata::{Flow, Site, SiteState};
use crate::security::Fingerprint;
use crate::transport::{ReadHalf, Stream, WriteHalf};

/// A request holds a certificate request of a few hundred bytes; an answer two certificates and the flows.
const MESSAGE_BYTES_MAX: u64 = 256 * 1024;

/// What a site asks with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub site: String,
    pub secret: String,
    /// PKCS #10, in PEM.
    pub request_pem: String,
    /// What the site calls the link; which of its links it means, where it has several.
    pub link: Option<String>,
}

/// What the core answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Enrolled(Granted),
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Granted {
    pub link: String,
    pub cluster_id: String,
    /// Leaf first, then the authority.
    pub chain_pem: String,
    pub authority_pem: String,
    pub flows: Vec<Flow>,
}

/// Why the core refuses. Said to the site as it is: it reveals nothing about a site that the asker does not hold the
/// secret of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the token is not known here, or its site was removed")]
    Unknown,
    #[error("the token has expired; ask for a new one")]
    Expired,
    #[error("the token was used already; ask for a new one")]
    Used,
    #[error("the site was revoked; ask for a new invitation")]
    Revoked,
}

/// Whether `site` may be enrolled with this secret now. `repeat` tells that the same key was granted a certificate before.
pub(super) fn admit(site: Option<&Site>, digest: &str, repeat: bool, now_ms: i64) -> Result<(), Refusal> {
    // One answer for an unknown site and a wrong secret: names cannot be tried out.
    let site = site
        .filter(|site| site.token_digest == digest)
        .ok_or(Refusal::Unknown)?;
    match site.state {
        SiteState::Revoked => Err(Refusal::Revoked),
        SiteState::Enrolled if !repeat => Err(Refusal::Used),
        SiteState::Invited | SiteState::Enrolled if now_ms >= site.expires_ms => Err(Refusal::Expired),
        SiteState::Invited | SiteState::Enrolled => Ok(()),
    }
}

/// What remembers the key of a request: a digest of the request's own bytes would change with every signature.
pub(super) fn same_key(site: &Site, key: &Fingerprint) -> bool {
    site.labels
        .get(KEY_LABEL)
        .is_some_and(|known| *known == key.to_string())
}

/// Where a site's public key is noted.
pub(super) const KEY_LABEL: &str = "headwater.io/public-key";

/// Reads the one message of a direction: everything up to its end.
pub(super) async fn receive<T: serde::de::DeserializeOwned>(reader: ReadHalf) -> io::Result<T> {
    let mut text = Vec::new();
    reader.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut text).await?;
    if text.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the enrolment message is too large",
        ));
    }
    serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Sends the one message of a direction and ends it.
pub(super) async fn send<T: Serialize>(writer: &mut WriteHalf, message: &T) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    writer.write_buffers(&mut vec![Bytes::from(text)]).await?;
    writer.finish().await
}

/// Asks over `stream` and waits for the answer. The caller gives the deadline.
pub(super) async fn ask(mut stream: Stream, request: &Request) -> io::Result<Answer> {
    send(&mut stream.writer, request).await?;
    receive(stream.reader).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn site(state: SiteState) -> Site {
        Site {
            name: "a".to_owned(),
            id: "1".to_owned(),
            state,
            token_digest: "d".to_owned(),
            invited_ms: 0,
            expires_ms: 100,
            enrolled_ms: None,
            cert_fingerprint: None,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn a_token_works_once_and_in_time() {
        use SiteState::{Enrolled, Invited, Revoked};
        let check =
            |site: Option<&Site>, digest: &str, repeat: bool, now_ms: i64, expected: Result<(), Refusal>| {
                assert_eq!(admit(site, digest, repeat, now_ms), expected);
            };
        check(Some(&site(Invited)), "d", false, 99, Ok(()));
        check(Some(&site(Invited)), "d", false, 100, Err(Refusal::Expired));
        check(Some(&site(Invited)), "other", false, 99, Err(Refusal::Unknown));
        check(None, "d", false, 99, Err(Refusal::Unknown));
        check(Some(&site(Enrolled)), "d", false, 99, Err(Refusal::Used));
        check(Some(&site(Enrolled)), "d", true, 99, Ok(()));
        check(Some(&site(Enrolled)), "d", true, 100, Err(Refusal::Expired));
        check(Some(&site(Revoked)), "d", true, 99, Err(Refusal::Revoked));
    }
}
