//! Who you are and what you may: the cluster's certificate authority, the TLS settings of every socket, and the
//! principal that a request acts for.
//!
//! It owns the keys under `<data>/security`. It must never log a key, and never read a clock or a file by itself:
//! time and folders are handed in.

pub mod authority;
pub mod identity;
pub mod principal;
pub mod store;
pub mod tls;

#[cfg(test)]
mod tests;

pub use authority::Authority;
pub use identity::{CertificateFacts, Fingerprint, Identity};
pub use principal::Principal;
