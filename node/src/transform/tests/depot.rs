//! The cluster's copy of modules: what was given to one node runs on another, and on one that has lost its files.

use super::*;
use crate::sys::disk::{self, Disk};
use crate::transform::depot::{self, Depot};
use crate::transform::modules::Modules;
use crate::transform::store::{Store, digest_of};

impl Rig {
    /// What another node of this cluster has, whose files lie in this folder.
    fn depot(&self, folder: &str) -> Depot {
        let store = Store::open(
            Arc::clone(&self.sys.disk),
            &PathBuf::from(folder),
            &self.sys.random,
        );
        Depot {
            topic: depot::topic(3, 1),
            view: self.view.clone(),
            controller: self.controller.clone(),
            registry: self.registry.clone(),
            outside: Arc::clone(&self.outside) as Arc<dyn Outside>,
            modules: Modules::new(store.unwrap(), &self.sys, self.sys.tasks.child(folder)),
            clock: self.sys.clock.clone(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    fn files(&self, digest: &str) -> Vec<PathBuf> {
        let folder = PathBuf::from("modules");
        let entries = self.disk.list(&folder).unwrap().into_iter();
        let of_module = entries.filter(|entry| entry.name.starts_with(digest));
        of_module.map(|entry| folder.join(entry.name)).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_in_many_parts_comes_to_other_nodes_as_it_was() {
    let rig = Rig::new().await;
    let (one, other, third) = (rig.depot("one"), rig.depot("other"), rig.depot("third"));
    let wasm: Vec<u8> = (0..1_300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let digest = digest_of(&wasm);
    let missing = format!("module {digest} is not on this node");
    let refused = other.wasm(&digest).await.unwrap_err();
    assert_eq!(refused.to_string(), missing, "nobody has kept it");
    one.keep(&digest, &wasm).await.unwrap();
    // Somebody else's parts are passed over, and what has another digest is not believed.
    one.keep(&digest_of(b"x"), b"y").await.unwrap();
    assert!(other.wasm(&digest).await.unwrap() == wasm);
    assert!(other.wasm(&digest_of(b"x")).await.is_err());
    one.forget(&digest, wasm.len() as u64).await.unwrap();
    assert!(
        other.wasm(&digest).await.unwrap() == wasm,
        "it has a file of its own"
    );
    assert_eq!(third.wasm(&digest).await.unwrap_err().to_string(), missing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_lost_its_files_has_them_again() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.deploy("examples/split_lines", |_| ()).await.unwrap();
    rig.append("in", 0, &[(1, "a\nb")]).await;
    rig.reached("out", 0, 2).await;
    let image = rig.view.image();
    // Beside it there may be those that came with the binary.
    let mut modules = image.modules.values();
    let module = modules.find(|module| module.name == "split-lines").unwrap();
    let component = PathBuf::from("modules").join(format!("{}.wasm", module.digest));
    for is_damaged in [false, true] {
        rig.transforms.pause("split-lines").await.unwrap();
        let files = rig.files(&module.digest);
        assert_eq!(files.len(), 2, "the component and its code: {files:?}");
        for file in files {
            rig.disk.remove_file(&file).unwrap();
        }
        if is_damaged {
            disk::replace(&rig.disk, &component, &vec![0; module.size as usize]).unwrap();
        }
        rig.transforms.resume("split-lines").await.unwrap();
        rig.append("in", 0, &[(2, "c")]).await;
        rig.reached("out", 0, 3 + usize::from(is_damaged)).await;
    }
    // When it is removed nothing stays anywhere.
    rig.transforms.remove("split-lines").await.unwrap();
    let removed = rig.transforms.remove_module(&module.name, &module.version);
    removed.await.unwrap();
    let last = rig.values("__transform_modules", 0).await.pop();
    assert_eq!(last.as_deref(), Some("-"), "a tombstone");
    let gone = async {
        while !rig.files(&module.digest).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("the files go, too");
}
