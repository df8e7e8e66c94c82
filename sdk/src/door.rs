//! The SDK's one door to the machine: clock, randomness, tasks, names and sockets.
//!
//! Owns every call that differs from run to run. It must never know what is sent, and nothing outside this
//! file reads a clock, draws a random number, spawns a task or makes a socket.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the door that the rule points to"
)]

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub(crate) use tokio::time::{Instant, sleep_until, timeout_at};

/// The time deadlines are measured by.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time in milliseconds since 1970, as records carry it.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Sixty-four random bits. Without a source of randomness the clock's nanoseconds must do: what is drawn here
/// spreads load and retries, it keeps no secret.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        since.as_nanos() as u64
    })
}

/// A family of tasks that ends together.
///
/// - A task is told to stop by the token; [`Tasks::stop`] returns when the last has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A family that stops when this one is told to, and that this one waits for, but that can also be
    /// stopped alone.
    pub(crate) fn child(&self) -> Self {
        Self {
            tracker: self.tracker.clone(),
            cancel: self.cancel.child_token(),
        }
    }

    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// The token a task of the family watches.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// A token that keeps [`Tasks::stop`] waiting while it lives, for work that is not a task of its own.
    #[allow(dead_code, reason = "taken by callers that run in the user's task")]
    pub(crate) fn hold(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Tells the family to stop, without waiting.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits until every task has ended. Nothing can be spawned afterwards that would be waited for twice.
    pub(crate) async fn stop(&self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Runs CPU work of more than about 100 us away from the tasks. A dropped future does not stop the work.
pub(crate) async fn blocking<T, F>(work: F) -> Option<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work).await.ok()
}

/// All addresses of a host, in the resolver's order.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// Connects over TCP. Small frames leave at once: `TCP_NODELAY` is always set.
pub(crate) async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// A UDP socket for QUIC on a port of the system's choice: both address families where the host has IPv6,
/// else IPv4 alone.
pub(crate) fn bind_udp(buffer_bytes: usize) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let bind = |domain: Domain, address: SocketAddr| -> io::Result<Socket> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let socket = bind(Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        .or_else(|_| bind(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))?;
    // The kernel may grant less than asked; that costs speed, never correctness.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    Ok(socket.into())
}
