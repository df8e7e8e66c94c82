//! The HTTP edge: the API behind the web UI and the command line, metrics, health, and the UI itself.
//!
//! Every route is thin: read the request, call one service, shape the answer. It owns no state but its listener, and
//! must never do what no service offers.

#![allow(
    unused_qualifications,
    reason = "utoipa's macro writes out paths that are in scope already"
)]

mod accept;
mod cluster;
mod data;
mod error;
mod groups;
mod guard;
mod links;
mod metrics;
mod modules;
mod nodes;
mod openapi;
mod records;
mod sites;
mod tail;
mod topics;
mod transactions;
mod transforms;
mod ui;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;

pub use self::openapi::document as openapi_document;

use crate::config::{BrokerConfig, NodeConfig};
use crate::controller::Controller;
use crate::group::Groups;
use crate::link::Links;
use crate::metadata::View;
use crate::partition::Registry;
use crate::replication::Leaders;
use crate::security::Authority;
use crate::sys::{Sys, net};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::transaction::Transactions;
use crate::transform::{DeadLetters, Transforms};

/// JSON bodies. Modules have a limit of their own.
const BODY_BYTES_MAX: usize = 2 << 20;

/// What the API is made of. One per node.
pub struct Parts {
    pub sys: Sys,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub groups: Groups,
    pub transactions: Transactions,
    /// Streams on which any node serves Kafka requests, this one too.
    pub nodes: Arc<dyn Leaders>,
    pub config: Arc<NodeConfig>,
    pub transforms: Transforms,
    pub dead_letters: DeadLetters,
    pub links: Links,
    pub authority: Arc<Authority>,
    pub metrics: Metrics,
    pub health: Health,
}

/// What came of a dry run, as the API answers it.
#[cfg(feature = "wasm")]
pub(crate) fn dry_run_json(report: crate::transform::DryRunReport) -> serde_json::Value {
    serde_json::to_value(transforms::shown(report)).expect("it is made of texts and numbers")
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

/// Begins to serve on `listener`. Ends with the node's tasks: requests under way are finished first.
pub fn serve(parts: Parts, listener: net::Listener) {
    let tasks = parts.sys.tasks.child("http");
    let clock = parts.sys.clock.clone();
    accept::spawn(&tasks, clock, listener, router(parts));
}

/// All routes.
fn router(parts: Parts) -> Router {
    let started_ms = parts.sys.clock.unix_ms();
    let guard = guard::Guard::new(parts.sys.clock.clone());
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
        .merge(groups::routes())
        .merge(transactions::routes())
        .merge(sites::routes())
        .merge(links::routes())
        .route("/openapi.json", get(openapi::json))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(guard, guard::pass));
    Router::new()
        .nest("/api/v1", v1)
        .merge(metrics::routes())
        .fallback(ui::page)
        .with_state(api)
}
