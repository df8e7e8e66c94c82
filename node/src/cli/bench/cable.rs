//! A cable between an edge and its core that can be cut and that counts every byte: a relay of datagrams on the loopback.
//!
//! Owns its sockets and its task. A cut cable swallows datagrams and tells nobody, as a dead uplink does. It serves one
//! dialer: a node dials everything from one socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::UdpSocket;

use crate::cli::failure::Failure;
use crate::sys::Sys;
use crate::sys::task::{Kind, Tasks};

/// More than any datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A relay to one address. It ends when this is dropped.
pub(super) struct Cable {
    /// Where to dial in place of the real address.
    pub(super) address: String,
    state: Arc<State>,
    scope: Tasks,
}

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    bytes: AtomicU64,
}

impl Cable {
    pub(super) fn to(sys: &Sys, target: &str) -> Result<Self, Failure> {
        let target: SocketAddr = target
            .parse()
            .map_err(|why| Failure::new(format!("{target} is no address: {why}")))?;
        let bind = || sys.net.datagrams(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (near, far) = (bind()?, bind()?);
        let address = near.local_addr()?.to_string();
        let state = Arc::new(State::default());
        let scope = sys.tasks.child("cable");
        let (carrying, cancelled) = (Arc::clone(&state), scope.cancelled());
        scope.spawn("relay", Kind::BestEffort, async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = relay(&near, &far, target, &carrying) => {}
            }
        });
        Ok(Self {
            address,
            state,
            scope,
        })
    }

    /// From now on nothing passes, in either direction.
    pub(super) fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
    }

    pub(super) fn mend(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// UDP payload that has passed so far, both directions together.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

async fn relay(near: &UdpSocket, far: &UdpSocket, target: SocketAddr, state: &State) {
    let (mut up, mut down) = (vec![0; DATAGRAM_BYTES_MAX], vec![0; DATAGRAM_BYTES_MAX]);
    let mut dialer = None;
    loop {
        // An error is the echo of an earlier send to a port that is closed: the datagram is lost, the cable is not.
        tokio::select! {
            came = near.recv_from(&mut up) => if let Ok((length, from)) = came {
                dialer = Some(from);
                pass(state, far, &up[..length], target).await;
            },
            came = far.recv_from(&mut down) => if let (Ok((length, _)), Some(dialer)) = (came, dialer) {
                pass(state, near, &down[..length], dialer).await;
            },
        }
    }
}

async fn pass(state: &State, socket: &UdpSocket, datagram: &[u8], to: SocketAddr) {
    if state.is_cut.load(Ordering::SeqCst) {
        return;
    }
    if socket.send_to(datagram, to).await.is_ok() {
        state.bytes.fetch_add(datagram.len() as u64, Ordering::SeqCst);
    }
}
