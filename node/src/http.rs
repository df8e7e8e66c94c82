//! The HTTP edge: the API behind the web UI and the command line, metrics, health, and the UI itself.
//!
//! Every route is thin: read the request, call one service, shape the answer. It owns no state but its listener, and
//! must never do what no service offers.

#![allow(
    unused_qualifications,
    reason = "utoipa's macro writes out paths that are in scope already"
)]

mod cluster;
mod data;
mod error;
mod links;
mod metrics;
mod modules;
mod openapi;
mod records;
mod sites;
mod tail;
mod topics;
mod transforms;
mod ui;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use tokio::net::TcpStream;

pub use self::openapi::document as openapi_document;

use crate::config::{BrokerConfig, NodeConfig};
use crate::controller::Controller;
use crate::link::Links;
use crate::metadata::View;
use crate::partition::Registry;
use crate::security::Authority;
use crate::sys::clock::Clock;
use crate::sys::task::Kind;
use crate::sys::{Sys, net};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::transform::Transforms;

/// JSON bodies. Modules have a limit of their own.
const BODY_BYTES_MAX: usize = 2 << 20;
/// How long accepting rests when it fails.
const PAUSE: Duration = Duration::from_millis(100);
/// How long requests under way may take once the node stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What the API is made of. One per node.
pub struct Parts {
    pub sys: Sys,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub config: Arc<NodeConfig>,
    pub transforms: Transforms,
    pub links: Links,
    pub authority: Arc<Authority>,
    pub metrics: Metrics,
    pub health: Health,
}

/// What every handler is given.
#[derive(Clone)]
pub(crate) struct Api {
    parts: Arc<Parts>,
    started_ms: i64,
}

impl Api {
    /// The properties in force, with what is set for all nodes.
    fn broker(&self) -> BrokerConfig {
        self.config
            .broker
            .with_cluster(Arc::clone(&self.view.image().broker_configs))
    }
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// Sockets as axum takes them, made by the door to the machine.
struct Sockets {
    listener: net::Listener,
    clock: Clock,
}

impl axum::serve::Listener for Sockets {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    // Out of descriptors, or a peer that is gone already: both pass.
                    tracing::debug!(%error, "a connection could not be accepted");
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Begins to serve on `listener`. Ends with the node's tasks: requests under way are finished first.
pub fn serve(parts: Parts, listener: net::Listener) {
    let tasks = parts.sys.tasks.child("http");
    let clock = parts.sys.clock.clone();
    let sockets = Sockets {
        listener,
        clock: clock.clone(),
    };
    let app = router(parts);
    let stopping = tasks.cancelled();
    tasks.spawn("serve", Kind::Critical, async move {
        let serving = axum::serve(sockets, app).with_graceful_shutdown(stopping.clone().cancelled_owned());
        let drained = async {
            stopping.cancelled().await;
            clock.sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "http stopped");
            },
            () = drained => {}
        }
    });
}

/// All routes.
fn router(parts: Parts) -> Router {
    let started_ms = parts.sys.clock.unix_ms();
    let api = Api {
        parts: Arc::new(parts),
        started_ms,
    };
    let v1 = Router::new()
        .merge(cluster::routes())
        .merge(topics::routes())
        .merge(records::routes())
        .merge(modules::routes())
        .merge(transforms::routes())
        .merge(sites::routes())
        .merge(links::routes())
        .route("/openapi.json", get(openapi::json))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    Router::new()
        .nest("/api/v1", v1)
        .merge(metrics::routes())
        .fallback(ui::page)
        .with_state(api)
}
