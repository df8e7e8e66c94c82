//! Finding the cluster: addresses are tried one after the other, each a little later than the one before,
//! and the first that answers wins.
//!
//! Owns the order and the head start. QUIC goes first; TCP and TLS follow when it is slow or blocked; what
//! won is tried first the next time. It must never hold a losing attempt open.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataResponse};

use super::pool::{Lane, Pool};
use crate::config::{Address, Transport};
use crate::door;
use crate::transport::DialError;

/// The address that answered, and what it said.
pub(super) struct Seed {
    pub(super) address: Address,
    pub(super) metadata: MetadataResponse,
}

/// Every address once: those of `first` before the others, QUIC before TLS before TCP otherwise, in the
/// order given.
pub(super) fn order(addresses: impl IntoIterator<Item = Address>, first: Option<Transport>) -> Vec<Address> {
    let mut ordered: Vec<Address> = Vec::new();
    for address in addresses {
        if !ordered.contains(&address) {
            ordered.push(address);
        }
    }
    // The sort is stable: within a transport the given order stays.
    ordered.sort_by_key(|address| (Some(address.transport) != first, address.transport));
    ordered
}

/// Asks all `addresses` for metadata, each `head_start` after the one before or as soon as that has failed.
///
/// A dropped future ends all attempts.
pub(super) async fn race(
    pool: &Arc<Pool>,
    addresses: Vec<Address>,
    request: &MetadataRequest,
    head_start: Duration,
    timeout: Duration,
) -> Result<Seed, Vec<DialError>> {
    let mut waiting = VecDeque::from(addresses);
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut next_start = door::now();
    loop {
        if running.is_empty() {
            // Nothing to wait for: the next one need not wait for its turn.
            next_start = door::now();
        }
        tokio::select! {
            biased;
            Some(result) = running.next() => match result {
                Ok(seed) => return Ok(seed),
                Err(failure) => {
                    failures.push(failure);
                    next_start = door::now();
                }
            },
            () = door::sleep_until(next_start), if !waiting.is_empty() => {
                if let Some(address) = waiting.pop_front() {
                    running.push(ask(pool, address, request, timeout));
                }
                next_start = door::now() + head_start;
            }
            else => return Err(failures),
        }
    }
}

async fn ask(
    pool: &Arc<Pool>,
    address: Address,
    request: &MetadataRequest,
    timeout: Duration,
) -> Result<Seed, DialError> {
    let connection = pool.lane(address.clone(), Lane::Control).await?;
    match connection.call(request, timeout).await {
        Ok(metadata) => Ok(Seed { address, metadata }),
        Err(cause) => Err(DialError::from((address, cause))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quic_goes_first_and_the_remembered_transport_before_it() {
        let parse = |list: &str| {
            list.split(' ')
                .map(|a| a.parse().unwrap())
                .collect::<Vec<Address>>()
        };
        let check = |given, first, expected| assert_eq!(order(parse(given), first), parse(expected));
        check("b quic://a c quic://d b", None, "quic://a quic://d b c");
        check("b tls://e quic://a c", None, "quic://a tls://e b c");
        check(
            "b quic://a tls://e c",
            Some(Transport::Tcp),
            "b c quic://a tls://e",
        );
    }
}
