//! [`Coordinator`]: the way to whoever coordinates a transactional id, or the group whose offsets are committed.
//!
//! Owns which broker that is at the moment, and one request at a time to it: what was asked first is done first, also where
//! it has to be asked again. It must never ask on when its time is up.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::{ErrorCode, Request};

use super::{Flow, TransactionError};
use crate::admin::{Coordinated, find_coordinator};
use crate::client::{Client, Lane};
use crate::connection::Versions;
use crate::door::{self, Instant};
use crate::error::Error;

/// The feature by which brokers say that they serve both flows, and from which level on.
const FEATURE: &str = "transaction.version";
const IMPLIED_SINCE: i16 = 2;

pub(in crate::producer) struct Coordinator {
    client: Client,
    coordinated: Coordinated,
    key: String,
    /// Where it was last. Held by whoever asks.
    node: tokio::sync::Mutex<Option<NodeId>>,
}

/// A request and how it is sent.
pub(in crate::producer) struct Ask<'a, R> {
    pub(in crate::producer) request: &'a R,
    /// The newest version it may be sent in.
    pub(in crate::producer) newest: i16,
    pub(in crate::producer) deadline: Instant,
}

/// Why a coordinator did not do it.
pub(in crate::producer) enum Refusal {
    /// For good.
    Code(ErrorCode),
    /// Nobody did by the deadline.
    Late(String),
    /// It cannot be asked.
    Impossible(Error),
}

impl Refusal {
    /// As it is told by whoever asked.
    pub(in crate::producer) fn into_error(
        self,
        what: &str,
        timeout: std::time::Duration,
        of: impl FnOnce(ErrorCode) -> TransactionError,
    ) -> TransactionError {
        match self {
            Self::Code(code) => of(code),
            Self::Late(last) => TransactionError::TimedOut {
                what: what.to_owned(),
                timeout,
                last,
            },
            Self::Impossible(error) => TransactionError::Failed(Box::new(error)),
        }
    }
}

impl Coordinator {
    pub(in crate::producer) fn new(client: Client, coordinated: Coordinated, key: &str) -> Self {
        Self {
            client,
            coordinated,
            key: key.to_owned(),
            node: tokio::sync::Mutex::new(None),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Asks until it is done, is refused for good, or the time is up. `code` finds what an answer refuses, if it does.
    pub(in crate::producer) async fn ask<R: Request>(
        &self,
        ask: Ask<'_, R>,
        code: impl Fn(&R::Response) -> ErrorCode,
    ) -> Result<(R::Response, Flow), Refusal> {
        let mut node = self.node.lock().await;
        for failures in 1.. {
            let last = match self.attempt(&mut node, &ask).await {
                Ok((answer, flow)) => match code(&answer) {
                    ErrorCode::NONE => return Ok((answer, flow)),
                    code if !code.is_retriable() => return Err(Refusal::Code(code)),
                    code => {
                        if has_moved(code) {
                            *node = None;
                        }
                        code.to_string()
                    }
                },
                Err(error) if !error.is_retriable() => return Err(Refusal::Impossible(error)),
                Err(error) => {
                    *node = None;
                    error.to_string()
                }
            };
            let pause = self.client.config().backoff.pause(failures, door::random_u64());
            if door::now() + pause >= ask.deadline {
                return Err(Refusal::Late(last));
            }
            door::sleep_until(door::now() + pause).await;
            if node.is_none() {
                // Where nobody can be reached, the next attempt says so.
                let _ = self.client.metadata().refresh().await;
            }
        }
        unreachable!("it is asked until there is an answer, or no time")
    }

    async fn attempt<R: Request>(
        &self,
        node: &mut Option<NodeId>,
        ask: &Ask<'_, R>,
    ) -> Result<(R::Response, Flow), Error> {
        let at = match *node {
            Some(at) => at,
            None => *node.insert(find_coordinator(&self.client, self.coordinated, &self.key).await?),
        };
        let connection = self.client.connection(at, Lane::Control).await?;
        let flow = connection
            .versions()
            .map_or(Flow::Named, |versions| flow_of(versions));
        let left = ask.deadline.saturating_duration_since(door::now());
        let timeout = self.client.config().request_timeout.min(left);
        let answer = connection.call_up_to(ask.newest, ask.request, timeout).await?;
        Ok((answer, flow))
    }
}

/// What a broker's ApiVersions says.
fn flow_of(versions: &Versions) -> Flow {
    if versions.level(FEATURE) >= IMPLIED_SINCE {
        Flow::Implied
    } else {
        Flow::Named
    }
}

fn has_moved(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE
    )
}
