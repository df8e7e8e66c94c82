//! The code of the built-in modules, compiled when the binary was made and put behind its end, so that a node neither
//! compiles them nor has a compiler's memory to give back.
//!
//! ```text
//! the program                 as the linker wrote it
//! code, code, ...             each module's, by zstd
//! index                       JSON: what each module is, and where its code lies
//! footer                      length of the index, length of all of this, SHA-256 of the index, MAGIC
//! ```
//!
//! It owns this format. A binary without it, with a damaged one, or on a machine that the code is not for, is a binary
//! whose modules are compiled when they are needed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::embedded;
use super::engine::{Engine, Trusted};
use super::store::{CODE_BYTES_MAX, digest_of};
use super::validate;
use crate::metadata::Module;
use crate::sys::Sys;
use crate::sys::disk::{Disk, File, Open};

const MAGIC: &[u8; 16] = b"headwater pack 1";
const FOOTER_BYTES: usize = 8 + 8 + 32 + MAGIC.len();
const INDEX_BYTES_MAX: u64 = 1 << 20;
/// Packing is done once, unpacking is as fast at any level.
const LEVEL: i32 = 19;

/// What lies behind the end of a program.
#[derive(Default)]
pub(crate) struct Pack {
    file: Option<Arc<dyn File>>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    module: Module,
    /// Where its code lies: bytes from the start of the pack (in the file: of the file).
    at: u64,
    packed_bytes: usize,
    code_bytes: usize,
    /// SHA-256 of the code, in hex.
    code_digest: String,
}

impl Pack {
    /// What lies behind the end of the program that runs now: nothing, if it cannot be used.
    pub(crate) fn of_this_program(disk: &dyn Disk) -> Self {
        let opened = disk.open(Path::new("/proc/self/exe"), Open::Read);
        opened.ok().and_then(Self::read).unwrap_or_default()
    }

    fn read(file: Arc<dyn File>) -> Option<Self> {
        let end = file.bytes().ok()?;
        let footer = exactly(&*file, end.checked_sub(FOOTER_BYTES as u64)?, FOOTER_BYTES)?;
        let (index_bytes, rest) = footer.split_first_chunk()?;
        let (pack_bytes, rest) = rest.split_first_chunk()?;
        let (index_digest, magic) = rest.split_first_chunk::<32>()?;
        if magic != MAGIC {
            return None;
        }
        let (index_bytes, pack_bytes) = (u64::from_le_bytes(*index_bytes), u64::from_le_bytes(*pack_bytes));
        if index_bytes > INDEX_BYTES_MAX {
            return None;
        }
        let start = end.checked_sub(pack_bytes)?;
        let at = end.checked_sub(FOOTER_BYTES as u64 + index_bytes)?;
        let index = exactly(&*file, at, index_bytes as usize)?;
        if Sha256::digest(&index).as_slice() != index_digest {
            return None;
        }
        let entries: Vec<Entry> = serde_json::from_slice(&index).ok()?;
        let entries = entries.into_iter().map(|mut entry| {
            entry.at = entry.at.saturating_add(start);
            (entry.module.digest.clone(), entry)
        });
        Some(Self {
            entries: entries.collect(),
            file: Some(file),
        })
    }

    /// What a built-in module is, by the digest of its component.
    pub(crate) fn module(&self, digest: &str) -> Option<&Module> {
        self.entries.get(digest).map(|entry| &entry.module)
    }

    /// The code compiled from it. None: it is not here, or damaged.
    pub(crate) fn code(&self, digest: &str) -> Option<Trusted> {
        let (file, entry) = (self.file.as_ref()?, self.entries.get(digest)?);
        if entry.packed_bytes > CODE_BYTES_MAX || entry.code_bytes > CODE_BYTES_MAX {
            return None;
        }
        let packed = exactly(&**file, entry.at, entry.packed_bytes)?;
        let code = zstd::bulk::decompress(&packed, entry.code_bytes).ok()?;
        // Part of the program that runs: who can change it can change what is around it. The digest is against damage.
        (digest_of(&code) == entry.code_digest).then(|| Trusted::vouch(code))
    }
}

/// Compiles what is embedded in this binary, for every machine of its kind: what is to be put behind its end.
pub async fn pack_builtin(sys: &Sys) -> Result<Vec<u8>, String> {
    let engine = Engine::start_portable(&sys.tasks, &sys.clock).map_err(|error| error.to_string())?;
    let (engine, clock) = (Arc::new(engine), sys.clock.clone());
    let packed = sys.tasks.blocking("pack", move || {
        let mut modules = Vec::new();
        for (name, wasm) in embedded::all() {
            let valid = validate::validate(&engine, &clock, wasm);
            let valid = valid.map_err(|error| format!("{name}: {error}"))?;
            let module = valid.facts.into_module(digest_of(wasm), wasm.len() as u64);
            modules.push((module, valid.compiled));
        }
        pack(&modules).map_err(|error| error.to_string())
    });
    packed.await.map_err(|error| error.to_string())?
}

fn pack(modules: &[(Module, Trusted)]) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut entries) = (Vec::new(), Vec::new());
    for (module, code) in modules {
        let code = code.bytes();
        let packed = zstd::bulk::compress(code, LEVEL)?;
        entries.push(Entry {
            module: module.clone(),
            at: bytes.len() as u64,
            packed_bytes: packed.len(),
            code_bytes: code.len(),
            code_digest: digest_of(code),
        });
        bytes.extend(packed);
    }
    let index = serde_json::to_vec(&entries)?;
    let pack_bytes = bytes.len() + index.len() + FOOTER_BYTES;
    bytes.extend(&index);
    bytes.extend((index.len() as u64).to_le_bytes());
    bytes.extend((pack_bytes as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&index));
    bytes.extend(MAGIC);
    Ok(bytes)
}

/// These very bytes of a file. None: they are not all there.
fn exactly(file: &dyn File, at: u64, bytes: usize) -> Option<Vec<u8>> {
    let mut buffer = Vec::with_capacity(bytes);
    file.read_at(at, &mut buffer, bytes).ok()?;
    (buffer.len() == bytes).then_some(buffer)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::metadata::World;

    fn module(name: &str, digest: &str) -> Module {
        Module {
            name: name.to_owned(),
            version: "1".to_owned(),
            digest: digest.to_owned(),
            size: 3,
            world: World::Filter,
            description: String::new(),
            params: Vec::new(),
            imports: Vec::new(),
            builtin: true,
            created_ms: 0,
        }
    }

    /// A file of these parts, as a program with a pack is one.
    fn file(parts: &[&[u8]]) -> Arc<dyn File> {
        let sys = Sys::simulated(1);
        let file = sys.disk.open(Path::new("program"), Open::Create).unwrap();
        file.write_at(0, &mut [IoSlice::new(&parts.concat())]).unwrap();
        file
    }

    fn packed() -> Vec<u8> {
        let code = |bytes: &[u8]| Trusted::vouch(bytes.to_vec());
        pack(&[
            (module("filter", "aa"), code(&[7; 1000])),
            (module("route", "bb"), code(b"other")),
        ])
        .unwrap()
    }

    #[test]
    fn what_was_packed_is_found_behind_a_program() {
        let pack = Pack::read(file(&[b"the program", &packed()])).unwrap();
        assert_eq!(pack.module("aa").unwrap().name, "filter");
        assert_eq!(pack.code("aa").unwrap().bytes(), &[7; 1000]);
        assert_eq!(pack.code("bb").unwrap().bytes(), b"other");
        assert!(pack.module("cc").is_none() && pack.code("cc").is_none());
    }

    #[test]
    fn a_program_without_a_sound_pack_has_none() {
        let packed = packed();
        assert!(Pack::read(file(&[b"the program"])).is_none());
        assert!(Pack::read(file(&[b""])).is_none());
        assert!(Pack::read(file(&[b"the program", &packed[..packed.len() - 1]])).is_none());
        // The index ends before the footer; its last byte is the list's bracket.
        let mut damaged = packed;
        let bracket = damaged.len() - FOOTER_BYTES - 1;
        damaged[bracket] ^= 1;
        assert!(Pack::read(file(&[b"the program", &damaged])).is_none());
    }

    #[test]
    fn damaged_code_is_not_handed_out() {
        let packed = packed();
        let whole = Pack::read(file(&[&packed])).unwrap();
        let other = &whole.entries["bb"];
        let mut damaged = packed;
        damaged[other.at as usize + other.packed_bytes - 1] ^= 1;
        let pack = Pack::read(file(&[&damaged])).unwrap();
        assert!(pack.code("bb").is_none());
        assert!(pack.code("aa").is_some());
    }

    #[test]
    fn a_test_has_nothing_behind_its_end() {
        let disk = crate::sys::disk::os::OsDisk::new(Path::new(""));
        assert!(Pack::of_this_program(&disk).module("aa").is_none());
    }
}
