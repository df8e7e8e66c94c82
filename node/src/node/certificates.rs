//! What clients are shown over TLS on TCP, and how it is exchanged while the node runs.
//!
//! Owns the look at the operator's files. It must never take what clients were shown away: files that do not fit are
//! named, and what was there before is shown on.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{ClientAuth, Tls};
use crate::security::store::{self, StoreError};
use crate::security::tls::{Demand, Names, ServerTls};
use crate::sys::Sys;
use crate::sys::disk::Disk;
use crate::sys::task::Kind;
use crate::transport::tcp::TlsSwitch;

/// How soon a renewed certificate is shown.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// TLS for clients over TCP: the operator's certificate where one is named, else the node's own, and likewise the
/// authorities that clients' certificates come from. Waits for the disk.
pub(super) fn read(disk: &dyn Disk, settings: &Tls, own: &ServerTls) -> Result<ServerTls, StoreError> {
    let mut tls = own.clone();
    if let Some(files) = &settings.certificate {
        tls.identity = store::read_identity(disk, &files.certificate, &files.key)?;
    }
    if let Some(path) = &settings.client_ca_file {
        tls.clients.authorities = store::read_certificates(disk, path)?;
        tls.clients.names = Names::Strangers;
    }
    tls.clients.demand = match settings.client_auth {
        ClientAuth::None => Demand::None,
        ClientAuth::Requested => Demand::Requested,
        ClientAuth::Required => Demand::Required,
    };
    Ok(tls)
}

/// Looks at the files now and then, after the start has read `shown` from them; who connects after they have changed is shown what they say. Connections that stand go
/// on.
pub(super) fn watch(sys: &Sys, settings: Tls, own: ServerTls, shown: &ServerTls, switches: Vec<TlsSwitch>) {
    if switches.is_empty() || (settings.certificate.is_none() && settings.client_ca_file.is_none()) {
        return;
    }
    let (disk, clock, tasks) = (Arc::clone(&sys.disk), sys.clock.clone(), sys.tasks.clone());
    let cancel = sys.tasks.cancelled();
    let mut known = Papers::of(shown);
    let watching = async move {
        let settings = Arc::new(settings);
        let mut refused = String::new();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = clock.sleep(LOOK_EVERY) => {}
            }
            let (disk, settings, own) = (Arc::clone(&disk), Arc::clone(&settings), own.clone());
            let reading = tasks.blocking("read certificates", move || {
                read(&*disk, &settings, &own).map(|tls| (Papers::of(&tls), tls))
            });
            let Ok(found) = reading.await else { return };
            let outcome = found
                .map_err(|error| error.to_string())
                .and_then(|(papers, tls)| {
                    if papers == known {
                        return Ok(());
                    }
                    let show = |switch: &TlsSwitch| switch.show(&tls).map_err(|error| error.to_string());
                    switches.iter().try_for_each(show)?;
                    tracing::info!("TLS certificates were exchanged");
                    known = papers;
                    Ok(())
                });
            match outcome {
                Ok(()) => refused.clear(),
                // Half of a pair may be there for a moment: said once, tried again.
                Err(error) if error != refused => {
                    tracing::warn!(%error, "TLS certificates stay what they were");
                    refused = error;
                }
                Err(_) => {}
            }
        }
    };
    drop(sys.tasks.spawn("certificates", Kind::BestEffort, watching));
}

/// What says whether files have changed.
#[derive(Debug, PartialEq, Eq)]
struct Papers {
    chain: Vec<Vec<u8>>,
    authorities: Vec<Vec<u8>>,
}

impl Papers {
    fn of(tls: &ServerTls) -> Self {
        let bytes = |certificates: &[rustls_pki_types::CertificateDer<'static>]| {
            certificates
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect()
        };
        Self {
            chain: bytes(&tls.identity.chain),
            authorities: bytes(&tls.clients.authorities),
        }
    }
}
