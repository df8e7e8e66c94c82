//! The files under `<data>/security`: the authority's certificate and key, the node's certificate and key.
//!
//! Owns those four files; makes them at the first start and renews the node's certificate when it is due. It must
//! never replace an authority's key that is there: every site's trust hangs on it. Calls wait for the disk and belong
//! on a blocking thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::authority::{Authority, AuthorityError, pem_text};
use super::identity::{self, Identity, IdentityError};
use crate::sys::disk::{self, Disk};
use crate::sys::task::Tasks;
use rustls_pki_types::CertificateDer;

const AUTHORITY_CERTIFICATE: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const NODE_CERTIFICATE: &str = "node.pem";
const NODE_KEY: &str = "node.key";
/// A chain of a few certificates.
const FILE_BYTES_MAX: usize = 256 * 1024;
/// A certificate with less than this left is renewed at start: two and a half years of five.
const RENEW_BEFORE_MS: i64 = 913 * 24 * 60 * 60 * 1000;

/// Why the node has no keys.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Unusable { path: PathBuf, source: IdentityError },
    #[error("{file:?} is no file name")]
    Name { file: String },
    #[error("the node is stopping")]
    Stopped,
    #[error("{path} is not text")]
    NotText { path: PathBuf },
    #[error(
        "{certificate} is there but {key} is not: put the key back, or remove the certificate and enrol all sites anew"
    )]
    KeyLost { certificate: PathBuf, key: PathBuf },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What the node needs to serve and to enrol.
#[derive(Debug)]
pub struct Keys {
    pub authority: Authority,
    pub node: Identity,
}

/// For whom certificates are made.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub cluster: &'a str,
    pub node: i32,
    /// The names and addresses under which the node is reached; loopback is added.
    pub hosts: &'a [String],
}

/// Opens the keys, and makes or renews what is missing or due. Durable when it returns.
pub fn open(disk: &dyn Disk, folder: &Path, subject: &Subject<'_>, now_ms: i64) -> Result<Keys, StoreError> {
    disk.create_folder(folder).map_err(|source| StoreError::File {
        path: folder.to_owned(),
        source,
    })?;
    let authority = open_authority(disk, folder, subject.cluster, now_ms)?;
    let node = open_node(disk, folder, &authority, subject, now_ms)?;
    Ok(Keys { authority, node })
}

fn open_authority(
    disk: &dyn Disk,
    folder: &Path,
    cluster: &str,
    now_ms: i64,
) -> Result<Authority, StoreError> {
    let (certificate, key) = (folder.join(AUTHORITY_CERTIFICATE), folder.join(AUTHORITY_KEY));
    match (read(disk, &certificate)?, read(disk, &key)?) {
        (Some(certificate), Some(key)) => Ok(Authority::from_pem(&certificate, &key)?),
        (Some(_), None) => Err(StoreError::KeyLost { certificate, key }),
        // A key without a certificate was never used: the first start ended between the two.
        (None, _) => {
            let authority = Authority::create(cluster, now_ms)?;
            write(disk, &key, &authority.key_pem())?;
            write(disk, &certificate, authority.certificate_pem())?;
            Ok(authority)
        }
    }
}

fn open_node(
    disk: &dyn Disk,
    folder: &Path,
    authority: &Authority,
    subject: &Subject<'_>,
    now_ms: i64,
) -> Result<Identity, StoreError> {
    let mut hosts = subject.hosts.to_vec();
    hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    hosts.sort_unstable();
    hosts.dedup();
    let (certificate, key) = (folder.join(NODE_CERTIFICATE), folder.join(NODE_KEY));
    if let (Some(chain_pem), Some(key_pem)) = (read(disk, &certificate)?, read(disk, &key)?) {
        let found = Identity::from_pem(&chain_pem, &key_pem)?;
        if still_good(&found, authority, subject.node, &hosts, now_ms)? {
            return Ok(found);
        }
    }
    let issued = authority.issue_node(subject.node, &hosts, now_ms)?;
    let chain_pem: String = issued.identity.chain.iter().map(pem_text).collect();
    write(disk, &key, &issued.key_pem)?;
    write(disk, &certificate, &chain_pem)?;
    Ok(issued.identity)
}

fn still_good(
    found: &Identity,
    authority: &Authority,
    node: i32,
    hosts: &[String],
    now_ms: i64,
) -> Result<bool, StoreError> {
    let facts = found.facts()?;
    Ok(facts.not_after_ms.saturating_sub(now_ms) > RENEW_BEFORE_MS
        && facts.node() == Some(node)
        && hosts.iter().all(|host| facts.san.contains(host))
        && found.chain.last() == Some(authority.certificate()))
}

/// The keys of this node's sites, by file name. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SecurityStore {
    disk: Arc<dyn Disk>,
    tasks: Tasks,
    folder: PathBuf,
}

impl SecurityStore {
    /// `folder` must exist.
    pub fn new(disk: Arc<dyn Disk>, tasks: Tasks, folder: PathBuf) -> Self {
        Self { disk, tasks, folder }
    }

    /// A key in PEM, if there is one by that name.
    pub async fn read_key(&self, file: &str) -> Result<Option<String>, StoreError> {
        let (disk, path) = (Arc::clone(&self.disk), self.path(file)?);
        let reading = self.tasks.blocking("read key", move || read(&*disk, &path));
        reading.await.map_err(|_| StoreError::Stopped)?
    }

    /// Keeps a key, readable by its owner alone. Durable when it returns; if the future is dropped, it may be there.
    pub async fn write_key(&self, file: &str, key_pem: &str) -> Result<(), StoreError> {
        let (disk, path, key_pem) = (Arc::clone(&self.disk), self.path(file)?, key_pem.to_owned());
        let writing = self
            .tasks
            .blocking("write key", move || write(&*disk, &path, &key_pem));
        writing.await.map_err(|_| StoreError::Stopped)?
    }

    fn path(&self, file: &str) -> Result<PathBuf, StoreError> {
        // A name, and no way out of the folder.
        match Path::new(file).components().collect::<Vec<_>>().as_slice() {
            [std::path::Component::Normal(_)] => Ok(self.folder.join(file)),
            _ => Err(StoreError::Name {
                file: file.to_owned(),
            }),
        }
    }
}

/// A certificate chain and its key from files of the operator's.
pub fn read_identity(disk: &dyn Disk, certificate: &Path, key: &Path) -> Result<Identity, StoreError> {
    let (chain_pem, key_pem) = (read_text(disk, certificate)?, read_text(disk, key)?);
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Unusable { path, source }
    };
    let chain = identity::certificates(&chain_pem).map_err(unusable(certificate))?;
    Identity::with_key(chain, &key_pem).map_err(unusable(key))
}

/// Certificates from a file of the operator's, at least one.
pub fn read_certificates(disk: &dyn Disk, path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let text = read_text(disk, path)?;
    identity::certificates(&text).map_err(|source| StoreError::Unusable {
        path: path.to_owned(),
        source,
    })
}

fn read_text(disk: &dyn Disk, path: &Path) -> Result<String, StoreError> {
    read(disk, path)?.ok_or_else(|| StoreError::File {
        path: path.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<String>, StoreError> {
    let bytes = disk::read_if_there(disk, path, FILE_BYTES_MAX).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })?;
    match bytes.map(String::from_utf8) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(StoreError::NotText {
            path: path.to_owned(),
        }),
    }
}

fn write(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), StoreError> {
    disk::replace(disk, path, text.as_bytes()).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })
}
