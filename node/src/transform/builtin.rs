//! The modules inside the binary, made known to the cluster when the node starts.

use std::sync::Arc;

use bytes::Bytes;

use super::embedded;
use super::modules::Modules;
use super::store::digest_of;
use crate::controller::{Change, Controller, ProposeError};
use crate::metadata::View;
use crate::sys::clock::Clock;

/// Makes every module inside the binary known that is not yet. One that cannot be is logged and left out.
pub(super) async fn register(modules: &Arc<Modules>, controller: &Controller, view: &View, clock: &Clock) {
    for (name, wasm) in embedded::all() {
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
    let checked = modules.check(Bytes::from_static(wasm)).await;
    let kept = modules.keep(checked.map_err(|error| error.to_string())?).await;
    let mut module = kept.map_err(|error| error.to_string())?;
    module.builtin = true;
    module.created_ms = clock.unix_ms();
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
