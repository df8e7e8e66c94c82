//! Taking HTTP connections in: how many there are at once, how long a client may take to ask, how the last ones end.
//!
//! It owns the connections. A slow or silent client holds its own place for a while and nothing else.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::sys::clock::Clock;
use crate::sys::net::Listener;
use crate::sys::task::{Kind, Tasks};

/// Who comes when so many are there waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take for the head of its next request, and how long a connection may lie idle.
const HEAD: Duration = Duration::from_secs(30);
/// How long accepting rests when it fails.
const PAUSE: Duration = Duration::from_millis(100);
/// How long requests under way may take once the node stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves `app` on `listener` until the tasks are cancelled; then requests under way are finished first.
pub(super) fn spawn(tasks: &Tasks, clock: Clock, listener: Listener, app: Router) {
    let connections = tasks.clone();
    let stopping = tasks.cancelled();
    tasks.spawn("accept", Kind::Critical, async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let accepting = accept(&connections, &clock, &listener, &places, &app);
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = accepting => {}
        }
    });
}

async fn accept(tasks: &Tasks, clock: &Clock, listener: &Listener, places: &Arc<Semaphore>, app: &Router) {
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (app, clock, stopping) = (app.clone(), clock.clone(), tasks.cancelled());
                tasks.spawn("connection", Kind::BestEffort, async move {
                    serve(stream, app, &clock, stopping).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, or a peer that is gone already: both pass.
                tracing::debug!(%error, "a connection could not be accepted");
                clock.sleep(PAUSE).await;
            }
        }
    }
}

/// One connection, from its first byte to its last.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    app: Router,
    clock: &Clock,
    stopping: CancellationToken,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        ended = serving.as_mut() => return said(ended),
    }
    serving.as_mut().graceful_shutdown();
    if let Ok(ended) = clock.timeout(DRAIN, serving).await {
        said(ended);
    }
}

/// A client that breaks off or talks nonsense is its own affair.
fn said(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
