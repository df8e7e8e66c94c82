//! The one-time token by which a site enrols: what it carries, as text that survives a terminal and a mail.
//!
//! Pure. It never decides whether a token is still good: the core keeps its digest and its expiry.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::security::Fingerprint;

/// What every token begins with, so that a person and a secret scanner know it.
const PREFIX: &str = "hwt_";
const VERSION: u32 = 1;
/// A token is a few hundred bytes; whatever is longer is none.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// An invitation in the hands of a site.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub site: String,
    pub secret: [u8; 32],
    /// Where the core accepts QUIC, as `host:port`, in the order to try.
    pub core: Vec<String>,
    /// The core's authority: the only one whose certificates the site believes.
    pub authority: Fingerprint,
    pub expires_ms: i64,
}

/// Why a text is not a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("this is no enrolment token: it must begin with {PREFIX}")]
    Prefix,
    #[error("the token is damaged; copy all of it")]
    Damaged,
    #[error("the token is of version {found}, this node knows {VERSION}: update the node")]
    Newer { found: u32 },
}

#[derive(Serialize, Deserialize)]
struct Written {
    v: u32,
    site: String,
    secret: String,
    core: Vec<String>,
    authority: String,
    expires_ms: i64,
}

impl Token {
    pub fn encode(&self) -> String {
        let written = Written {
            v: VERSION,
            site: self.site.clone(),
            secret: hex::encode(self.secret),
            core: self.core.clone(),
            authority: self.authority.to_string(),
            expires_ms: self.expires_ms,
        };
        let json = serde_json::to_vec(&written).expect("strings and numbers are always JSON");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads what a person pasted: blanks and line ends around and inside it do no harm.
    pub fn decode(text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Damaged);
        }
        let packed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let body = packed.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?;
        let written: Written = serde_json::from_slice(&json).map_err(|_| TokenError::Damaged)?;
        if written.v != VERSION {
            return Err(TokenError::Newer { found: written.v });
        }
        let mut secret = [0; 32];
        hex::decode_to_slice(&written.secret, &mut secret).map_err(|_| TokenError::Damaged)?;
        let authority = Fingerprint::parse(&written.authority).ok_or(TokenError::Damaged)?;
        Ok(Self {
            site: written.site,
            secret,
            core: written.core,
            authority,
            expires_ms: written.expires_ms,
        })
    }

    /// What the core keeps of the secret.
    pub fn digest(&self) -> String {
        digest(&self.secret)
    }
}

/// The digest of a secret, in hex.
pub(super) fn digest(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("site", &self.site)
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            site: "harbour-7".to_owned(),
            secret: [7; 32],
            core: vec!["core.example:9092".to_owned()],
            authority: Fingerprint([9; 32]),
            expires_ms: 1_800_000_000_000,
        }
    }

    #[test]
    fn survives_being_pasted() {
        let text = token().encode();
        let wrapped = format!("  {}\n{} \r\n", &text[..40], &text[40..]);
        assert_eq!(Token::decode(&wrapped).expect("it is whole"), token());
    }

    #[test]
    fn refuses_what_is_no_token() {
        let text = token().encode();
        assert!(matches!(Token::decode("hello"), Err(TokenError::Prefix)));
        assert!(matches!(
            Token::decode(&text[..text.len() - 9]),
            Err(TokenError::Damaged)
        ));
        assert!(matches!(
            Token::decode(&format!("hwt_{}", "A".repeat(10_000))),
            Err(TokenError::Damaged)
        ));
        let newer = format!(
            "hwt_{}",
            URL_SAFE_NO_PAD
                .encode(br#"{"v":2,"site":"a","secret":"","core":[],"authority":"","expires_ms":1}"#)
        );
        assert!(matches!(
            Token::decode(&newer),
            Err(TokenError::Newer { found: 2 })
        ));
    }

    #[test]
    fn says_nothing_of_its_secret() {
        assert!(!format!("{:?}", token()).contains("7, 7"));
        assert_eq!(token().digest().len(), 64);
    }
}
