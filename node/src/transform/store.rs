//! The files of uploaded modules: each component under its digest, and beside it the code compiled from it.
//! It owns the folder. It must never hand out bytes whose digest is not the one asked for, nor compiled code without
//! this node's own mark: loading foreign code would be running it.
//!
//! ```text
//! key                     32 secret bytes, made once
//! DIGEST.wasm             the component as uploaded
//! DIGEST-ENGINE.code      HMAC-SHA256 by the key over the name and the code, then the code
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use sha2::{Digest, Sha256};

use super::MODULE_BYTES_MAX;
use crate::sys::disk::{self, Disk};
use crate::sys::random::Random;

const KEY_BYTES: usize = 32;
const MARK_BYTES: usize = 32;
/// Compiled code is a few times as large as what it was compiled from.
pub(crate) const CODE_BYTES_MAX: usize = 16 * MODULE_BYTES_MAX;

/// Why a module's file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("module {digest} is not on this node")]
    NotHere { digest: String },
    #[error("the file of module {digest} is damaged: its digest is {found}")]
    Damaged { digest: String, found: String },
    #[error("the module store: {0}")]
    Io(#[from] io::Error),
}

/// The folder of modules. All calls wait for the disk.
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    key: hmac::Key,
    /// Held while files are replaced or removed: the same module may come from several sides at once.
    changing: Mutex<()>,
}

/// SHA-256 in hex.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Store {
    pub(crate) fn open(disk: Arc<dyn Disk>, folder: &Path, random: &Random) -> Result<Self, StoreError> {
        disk.create_folder(folder)?;
        let path = folder.join("key");
        let key = match disk::read_if_there(&*disk, &path, KEY_BYTES)? {
            Some(key) if key.len() == KEY_BYTES => key,
            _ => {
                let key = random.secret::<KEY_BYTES>().to_vec();
                disk::replace(&*disk, &path, &key)?;
                key
            }
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            key,
            changing: Mutex::new(()),
        })
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        // There is nothing in it that could be half done.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a component by its digest, durably.
    pub(crate) fn put(&self, digest: &str, wasm: &[u8]) -> Result<(), StoreError> {
        let _change = self.change();
        if self.get(digest).is_err() {
            disk::replace(&*self.disk, &self.wasm_path(digest), wasm)?;
        }
        Ok(())
    }

    pub(crate) fn get(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        let wasm = disk::read_if_there(&*self.disk, &self.wasm_path(digest), MODULE_BYTES_MAX)?;
        let wasm = wasm.ok_or_else(|| StoreError::NotHere {
            digest: digest.to_owned(),
        })?;
        let found = digest_of(&wasm);
        if found != digest {
            return Err(StoreError::Damaged {
                digest: digest.to_owned(),
                found,
            });
        }
        Ok(wasm)
    }

    /// Keeps the code that this node's engine compiled from a component.
    pub(crate) fn put_code(&self, digest: &str, engine: &str, code: &[u8]) -> Result<(), StoreError> {
        let name = code_name(digest, engine);
        let mut bytes = self.mark(&name, code).as_ref().to_vec();
        bytes.extend_from_slice(code);
        let _change = self.change();
        Ok(disk::replace(&*self.disk, &self.folder.join(name), &bytes)?)
    }

    /// The compiled code, if it is here and carries this node's mark.
    pub(crate) fn code(&self, digest: &str, engine: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let name = code_name(digest, engine);
        let Some(mut bytes) = disk::read_if_there(&*self.disk, &self.folder.join(&name), CODE_BYTES_MAX)?
        else {
            return Ok(None);
        };
        if bytes.len() < MARK_BYTES {
            return Ok(None);
        }
        let code = bytes.split_off(MARK_BYTES);
        let is_ours =
            aws_lc_rs::constant_time::verify_slices_are_equal(self.mark(&name, &code).as_ref(), &bytes);
        if is_ours.is_err() {
            tracing::warn!(
                digest,
                "compiled module code without this node's mark: it is compiled again"
            );
            return Ok(None);
        }
        Ok(Some(code))
    }

    /// Removes a component and everything compiled from it.
    pub(crate) fn remove(&self, digest: &str) -> Result<(), StoreError> {
        let _change = self.change();
        for entry in self.disk.list(&self.folder)? {
            if entry.name.starts_with(digest) {
                self.disk.remove_file(&self.folder.join(entry.name))?;
            }
        }
        Ok(self.disk.sync_folder(&self.folder)?)
    }

    fn mark(&self, name: &str, code: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(name.as_bytes());
        context.update(&[0]);
        context.update(code);
        context.sign()
    }

    fn wasm_path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }
}

fn code_name(digest: &str, engine: &str) -> String {
    format!("{digest}-{engine}.code")
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::sys::Sys;
    use crate::sys::disk::Open;

    fn store(sys: &Sys) -> Store {
        Store::open(Arc::clone(&sys.disk), Path::new("modules"), &sys.random).unwrap()
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "threads that the test ends with")]
    fn a_module_may_come_from_several_sides_at_once() {
        let sys = Sys::simulated(1);
        let store = store(&sys);
        for round in 0..200_u32 {
            let wasm = round.to_be_bytes();
            let digest = digest_of(&wasm);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        store.put(&digest, &wasm).unwrap();
                        store.put_code(&digest, "engine", &wasm).unwrap();
                    });
                }
            });
            assert_eq!(store.get(&digest).unwrap(), wasm);
            assert_eq!(store.code(&digest, "engine").unwrap().as_deref(), Some(&wasm[..]));
        }
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let sys = Sys::simulated(1);
        let digest = digest_of(b"component");
        store(&sys).put(&digest, b"component").unwrap();
        store(&sys).put_code(&digest, "e1", b"machine code").unwrap();
        let again = store(&sys);
        assert_eq!(again.get(&digest).unwrap(), b"component");
        assert_eq!(again.code(&digest, "e1").unwrap().unwrap(), b"machine code");
        assert!(again.code(&digest, "e2").unwrap().is_none());
        again.remove(&digest).unwrap();
        assert!(matches!(again.get(&digest), Err(StoreError::NotHere { .. })));
        assert!(again.code(&digest, "e1").unwrap().is_none());
    }

    #[test]
    fn code_that_somebody_else_wrote_or_changed_is_not_handed_out() {
        let sys = Sys::simulated(1);
        let ours = store(&sys);
        let digest = digest_of(b"component");
        ours.put(&digest, b"component").unwrap();
        ours.put_code(&digest, "e1", b"machine code").unwrap();
        let path = Path::new("modules").join(code_name(&digest, "e1"));
        let change = |at: u64| {
            let file = sys.disk.open(&path, Open::Write).unwrap();
            file.write_at(at, &mut [IoSlice::new(b"x")]).unwrap();
        };
        for at in [0, MARK_BYTES as u64] {
            ours.put_code(&digest, "e1", b"machine code").unwrap();
            change(at);
            assert!(ours.code(&digest, "e1").unwrap().is_none(), "changed at {at}");
        }
        // Valid bytes of one module under the name of another.
        ours.put_code(&digest, "e1", b"machine code").unwrap();
        let other = Path::new("modules").join(code_name("0000", "e1"));
        sys.disk.rename(&path, &other).unwrap();
        assert!(ours.code("0000", "e1").unwrap().is_none());
    }

    #[test]
    fn a_damaged_component_is_named() {
        let sys = Sys::simulated(1);
        let store = store(&sys);
        let digest = digest_of(b"component");
        store.put(&digest, b"component").unwrap();
        let file = sys.disk.open(&store.wasm_path(&digest), Open::Write).unwrap();
        file.write_at(0, &mut [IoSlice::new(b"x")]).unwrap();
        assert!(matches!(store.get(&digest), Err(StoreError::Damaged { .. })));
    }
}
