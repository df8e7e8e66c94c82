//! A cable for QUIC between two nodes, which a test can cut, mend and meter: a UDP relay on the loopback.
//!
//! It owns its sockets and its task. A cut cable swallows datagrams and tells nobody, as a dead uplink does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

/// More than any datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A relay to one address. Dropped, it is gone.
#[derive(Debug)]
pub struct Cable {
    /// Where to dial in place of the real address.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: AtomicBool,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    swallowed: AtomicU64,
}

/// What went through, in bytes of UDP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metered {
    /// From whoever dialed to the target.
    pub up_bytes: u64,
    /// From the target to whoever dialed.
    pub down_bytes: u64,
    /// Datagrams that came while the cable was cut.
    pub swallowed: u64,
}

impl Cable {
    pub async fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = socket.local_addr()?;
        let state = Arc::new(State::default());
        let task = tokio::spawn(relay(socket, target, Arc::clone(&state)));
        Ok(Self { address, state, task })
    }

    /// From now on nothing passes, in either direction.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// What has passed so far.
    pub fn metered(&self) -> Metered {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Metered {
            up_bytes: read(&self.state.up_bytes),
            down_bytes: read(&self.state.down_bytes),
            swallowed: read(&self.state.swallowed),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gives each dialer a socket of its own towards the target, so that answers find their way back.
async fn relay(socket: Arc<UdpSocket>, target: SocketAddr, state: Arc<State>) {
    let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error is the echo of an earlier send to a port that is closed: the datagram is lost, the cable is not.
        let Ok((length, dialer)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        let way = match ways.get(&dialer) {
            Some(way) => Arc::clone(way),
            None => {
                let Ok(way) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                    continue;
                };
                let way = Arc::new(way);
                answers.spawn(answer(
                    Arc::clone(&way),
                    Arc::clone(&socket),
                    dialer,
                    Arc::clone(&state),
                ));
                ways.insert(dialer, Arc::clone(&way));
                way
            }
        };
        pass(&state, &state.up_bytes, &way, &datagram[..length], target).await;
    }
}

async fn answer(way: Arc<UdpSocket>, socket: Arc<UdpSocket>, dialer: SocketAddr, state: Arc<State>) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, _)) = way.recv_from(&mut datagram).await else {
            continue;
        };
        pass(&state, &state.down_bytes, &socket, &datagram[..length], dialer).await;
    }
}

async fn pass(state: &State, counter: &AtomicU64, socket: &UdpSocket, datagram: &[u8], to: SocketAddr) {
    if state.is_cut.load(Ordering::SeqCst) {
        state.swallowed.fetch_add(1, Ordering::SeqCst);
        return;
    }
    if socket.send_to(datagram, to).await.is_ok() {
        counter.fetch_add(datagram.len() as u64, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PATIENCE, until, within};

    async fn exchange(near: &UdpSocket, far: &UdpSocket, message: &[u8]) -> anyhow::Result<()> {
        let mut buffer = [0; 16];
        near.send(message).await?;
        let (length, from) = within(PATIENCE, "the message", far.recv_from(&mut buffer)).await??;
        assert_eq!(&buffer[..length], message);
        far.send_to(message, from).await?;
        let length = within(PATIENCE, "the answer", near.recv(&mut buffer)).await??;
        assert_eq!(&buffer[..length], message);
        Ok(())
    }

    #[tokio::test]
    async fn a_cable_carries_meters_and_can_be_cut() -> anyhow::Result<()> {
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let cable = Cable::to(far.local_addr()?).await?;
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        near.connect(cable.address).await?;
        exchange(&near, &far, b"one").await?;
        assert_eq!(
            cable.metered(),
            Metered {
                up_bytes: 3,
                down_bytes: 3,
                swallowed: 0
            }
        );

        cable.cut();
        near.send(b"lost").await?;
        until(PATIENCE, "the end of a datagram", || async {
            Ok((cable.metered().swallowed == 1).then_some(()))
        })
        .await?;

        cable.mend();
        exchange(&near, &far, b"two").await?;
        assert_eq!(
            cable.metered(),
            Metered {
                up_bytes: 6,
                down_bytes: 6,
                swallowed: 1
            }
        );
        Ok(())
    }
}
