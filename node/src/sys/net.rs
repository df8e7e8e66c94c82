//! Sockets: made here, with the options every socket of ours has.
//! Owns the only binding, connecting and resolving. TCP_NODELAY is set on every stream, made or accepted; it
//! must never be left to the caller. A simulated net has no sockets: `transport` asks for its host instead.

#![allow(clippy::disallowed_methods, reason = "the door itself")]

pub mod simulated;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1024;
/// A dead peer behind a dead link is noticed after about this long without data.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Datagrams arrive in bursts; the machine may grant less.
const UDP_BUFFER_BYTES: usize = 8 << 20;

/// The net of the machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Net(Option<simulated::Host>);

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

impl Net {
    pub fn real() -> Self {
        Self(None)
    }

    /// The net inside the process, as one host sees it. Asked for a socket, it has none.
    pub fn simulated(host: simulated::Host) -> Self {
        Self(Some(host))
    }

    /// The host on a simulated net; None on the machine's.
    pub fn host(&self) -> Option<&simulated::Host> {
        self.0.as_ref()
    }

    fn must_be_real(&self) -> io::Result<()> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a simulated net has no sockets",
            )),
        }
    }

    /// Listens on `address`; port 0 asks for a free one, which [`Listener::local_addr`] tells.
    pub fn listen_tcp(&self, address: SocketAddr) -> io::Result<Listener> {
        self.must_be_real()?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Listener {
            listener: TcpListener::from_std(socket.into())?,
        })
    }

    /// Connects to `address`. Bound the time with `Clock::timeout`; a dropped future closes the socket.
    pub async fn connect_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.must_be_real()?;
        let stream = TcpStream::connect(address).await?;
        prepare(&stream)?;
        Ok(stream)
    }

    /// Connects to `address` over TCP for nothing but to see the connection end. Bound the time as above.
    pub async fn lifeline(&self, address: SocketAddr) -> io::Result<Lifeline> {
        let Some(host) = &self.0 else {
            return self.connect_tcp(address).await.map(Lifeline::Socket);
        };
        let connected = host.connect(address, simulated::Kind::Stream, Bytes::new());
        connected
            .await
            .map(Lifeline::Simulated)
            .map_err(|error| match error {
                simulated::ConnectError::Io(error) => error,
                simulated::ConnectError::Closed(simulated::Closed::Refused) => {
                    io::ErrorKind::ConnectionRefused.into()
                }
                simulated::ConnectError::Closed(_) => io::ErrorKind::TimedOut.into(),
            })
    }

    /// A UDP socket with large buffers, not blocking, for a QUIC endpoint.
    pub fn bind_udp(&self, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
        self.must_be_real()?;
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // The machine may cap these: smaller buffers only cost speed.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }

    /// The same for datagrams that are no QUIC. Must be called inside a runtime.
    pub fn datagrams(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::from_std(self.bind_udp(address)?)
    }

    /// The addresses behind `host:port`, in the resolver's order.
    pub async fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Some(host) = &self.0 {
            return host.resolve(host_and_port);
        }
        let addresses: Vec<_> = lookup_host(host_and_port).await?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}

/// A connection that carries nothing: the kernel at its other end closes it when the process there is gone.
#[derive(Debug)]
pub enum Lifeline {
    Socket(TcpStream),
    Simulated(simulated::Connection),
}

impl Lifeline {
    /// Returns when the connection has ended, for whatever reason. What the other end says meanwhile is not heard.
    pub async fn ended(self) {
        match self {
            Self::Socket(mut stream) => {
                let mut unheard = [0; 64];
                while matches!(stream.read(&mut unheard).await, Ok(1..)) {}
            }
            Self::Simulated(connection) => {
                connection.closed().await;
            }
        }
    }
}

impl Listener {
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection. Cancel-safe. An error may concern one connection only: go on accepting, after a
    /// pause when the process is out of descriptors.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        prepare(&stream)?;
        Ok((stream, peer))
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 6);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ends_of_a_connection_send_at_once() {
        let net = Net::real();
        let listener = net.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(net.connect_tcp(address), listener.accept());
        assert!(ours.unwrap().nodelay().unwrap());
        assert!(theirs.unwrap().0.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_lifeline_ends_with_the_other_end_and_is_refused_where_nobody_listens() {
        let net = Net::real();
        let listener = net.listen_tcp(([127, 0, 0, 1], 0).into()).expect("a listener");
        let address = listener.local_addr().expect("bound");
        let held = net.lifeline(address).await.expect("connected");
        let (mut there, _) = listener.accept().await.expect("accepted");
        tokio::io::AsyncWriteExt::write_all(&mut there, b"unheard")
            .await
            .expect("written");
        let mut ended = std::pin::pin!(held.ended());
        assert!(futures_util::poll!(ended.as_mut()).is_pending());
        drop((there, listener));
        ended.await;
        let refused = net.lifeline(address).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn names_are_resolved_and_datagram_sockets_bound() {
        let net = Net::real();
        let found = net.resolve("127.0.0.1:9").await.unwrap();
        assert_eq!(found, vec!["127.0.0.1:9".parse().unwrap()]);
        let socket = net.bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(socket.local_addr().unwrap().port(), 0);
    }
}
