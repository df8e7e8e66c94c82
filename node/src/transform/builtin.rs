//! The modules inside the binary, made known to the cluster when the node starts.
//! It owns that list, which is as long as what `cargo xtask modules` had built when the node was compiled.

use std::sync::Arc;

use super::modules::Modules;
use super::store::digest_of;
use crate::controller::{Change, Controller, ProposeError};
use crate::metadata::{self, View};
use crate::sys::clock::Clock;

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// Makes every module inside the binary known that is not yet. One that cannot be is logged and left out.
pub(super) async fn register(modules: &Arc<Modules>, controller: &Controller, view: &View, clock: &Clock) {
    for (name, wasm) in MODULES {
        let digest = digest_of(wasm);
        if view
            .image()
            .modules
            .values()
            .any(|known| known.builtin && known.digest == digest)
        {
            continue;
        }
        if let Err(reason) = register_one(modules, controller, clock, wasm).await {
            tracing::warn!(module = name, reason, "a built-in module cannot be offered");
        }
    }
}

async fn register_one(
    modules: &Arc<Modules>,
    controller: &Controller,
    clock: &Clock,
    wasm: &'static [u8],
) -> Result<(), String> {
    let kept = modules.blocking(move |modules| {
        let validated = modules.validate(wasm).map_err(|error| error.to_string())?;
        modules.keep(wasm, validated).map_err(|error| error.to_string())
    });
    let kept = kept.await.map_err(|error| error.to_string())??;
    let module = metadata::Module {
        name: kept.validated.name,
        version: kept.validated.version,
        digest: kept.digest,
        size: kept.size,
        world: kept.validated.world,
        description: kept.validated.description,
        params: kept.validated.params,
        imports: kept.validated.imports,
        builtin: true,
        created_ms: clock.unix_ms(),
    };
    let (name, version) = (module.name.clone(), module.version.clone());
    match controller.propose(Change::PutModule(module.clone())).await {
        Ok(_) => Ok(()),
        Err(ProposeError::Exists { .. }) => {
            // Another build has left other bytes under the same version. They give way unless somebody uses them.
            let removed = controller.propose(Change::RemoveModule { name, version }).await;
            removed.map_err(|error| error.to_string())?;
            controller
                .propose(Change::PutModule(module))
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}
