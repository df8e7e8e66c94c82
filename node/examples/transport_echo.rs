//! How fast the transports are by themselves: one client sends frames over one stream and waits for a short answer
//! to each, several in flight. No broker, no disk: the ceiling of everything above.
//!
//! `cargo run --release --example transport_echo -- tcp|tls|quic FRAME_BYTES IN_FLIGHT FRAMES SERVER_THREADS`
//! prints one line. `SERVER_THREADS` 0 is a current-thread runtime per side.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a tool that prints what it measured"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use headwater::security::Authority;
use headwater::security::tls::{ALPN_KAFKA, Clients, NothingRevoked, ServerTls, Trust};
use headwater::sys::net::Net;
use headwater::transport::dialer::Credentials;
use headwater::transport::quic::Settings;
use headwater::transport::{Dialer, Incoming, Listener, ListenerKind, Stream, quic, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

const NOW_MS: i64 = 1_790_000_000_000;
const ANSWER: [u8; 16] = [7; 16];

struct Work {
    carrier: String,
    frame_bytes: usize,
    in_flight: usize,
    frames: usize,
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().expect("a runtime")
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [carrier, frame_bytes, in_flight, frames, threads] = arguments.as_slice() else {
        eprintln!("tcp|tls|quic FRAME_BYTES IN_FLIGHT FRAMES SERVER_THREADS");
        return;
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let work = Work {
        carrier: carrier.clone(),
        frame_bytes: number(frame_bytes),
        in_flight: number(in_flight),
        frames: number(frames),
    };
    let threads = number(threads);
    let authority = Authority::create("bench", NOW_MS).expect("an authority");
    let identity = authority
        .issue_node(1, &["127.0.0.1".to_owned()], NOW_MS)
        .expect("a certificate")
        .identity;
    let tls = ServerTls {
        identity,
        clients: Clients::ANYBODY,
        revocations: Arc::new(NothingRevoked),
    };
    let credentials = Credentials {
        trust: Trust::Authorities(vec![authority.certificate().clone()]),
        identity: None,
        alpn: ALPN_KAFKA,
    };
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let carrier = work.carrier.clone();
    let server = std::thread::Builder::new();
    let _server = server.spawn(move || {
        runtime(threads).block_on(async move {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut listener = match carrier.as_str() {
                "quic" => Listener::Quic(
                    quic::Listener::bind(&Net::real(), any, &tls, &Settings::default()).expect("a socket"),
                ),
                "tls" => Listener::Tcp(tcp::Listener::bind(&Net::real(), any, Some(&tls)).expect("a socket")),
                _ => Listener::Tcp(tcp::Listener::bind(&Net::real(), any, None).expect("a socket")),
            };
            sender
                .send(listener.local_address().expect("an address"))
                .expect("the client waits");
            serve(&mut listener).await;
        });
    });
    let target = receiver.recv().expect("the server listens").to_string();
    runtime(threads).block_on(run(work, target, credentials));
}

async fn serve(listener: &mut Listener) {
    let incoming = listener
        .accept()
        .await
        .expect("a connection")
        .expect("a connection")
        .establish()
        .await;
    let (mut stream, _session) = match incoming.expect("a handshake") {
        Incoming::Stream { stream, peer } => {
            assert_eq!(peer.listener, ListenerKind::Tcp);
            (stream, None)
        }
        Incoming::Session(session) => (session.accept_stream().await.expect("a stream"), Some(session)),
    };
    while let Ok(size) = stream.reader.read_u32().await {
        let mut frame = bytes::BytesMut::with_capacity(size as usize);
        while frame.len() < size as usize {
            let rest = size as usize - frame.len();
            if (&mut stream.reader)
                .take(rest as u64)
                .read_buf(&mut frame)
                .await
                .unwrap_or(0)
                == 0
            {
                return;
            }
        }
        if stream
            .writer
            .write_buffers(&mut vec![Bytes::from_static(&ANSWER)])
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn run(work: Work, target: String, credentials: Credentials) {
    let dialer = Dialer::new(Net::real(), Settings::default());
    let (stream, session) = match work.carrier.as_str() {
        "quic" => {
            let session = dialer.dial(&target, &credentials).await.expect("a connection");
            (session.open_stream().await.expect("a stream"), Some(session))
        }
        "tls" => (
            dialer
                .dial_stream(&target, Some(&credentials))
                .await
                .expect("a connection"),
            None,
        ),
        _ => (
            dialer.dial_stream(&target, None).await.expect("a connection"),
            None,
        ),
    };
    let Stream {
        mut reader,
        mut writer,
    } = stream;
    let frame = Bytes::from(vec![0x5a; work.frame_bytes]);
    let prefix = Bytes::copy_from_slice(
        &u32::try_from(work.frame_bytes)
            .expect("a small frame")
            .to_be_bytes(),
    );
    let begin = Instant::now();
    let mut times = Vec::with_capacity(work.frames);
    let (mut sent, mut answered) = (0, 0);
    let mut started = std::collections::VecDeque::new();
    let mut answer = ANSWER;
    while answered < work.frames {
        while sent < work.frames && sent - answered < work.in_flight {
            started.push_back(Instant::now());
            writer
                .write_buffers(&mut vec![prefix.clone(), frame.clone()])
                .await
                .expect("an open stream");
            sent += 1;
        }
        reader.read_exact(&mut answer).await.expect("an answer");
        answered += 1;
        times.push(started.pop_front().expect("one per frame").elapsed());
    }
    let seconds = begin.elapsed().as_secs_f64();
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6;
    println!(
        "{} {} B x {} in flight {}: {:.0} MB/s, {:.0} frames/s, p50 {:.0} us, p99 {:.0} us{}",
        work.carrier,
        work.frame_bytes,
        work.frames,
        work.in_flight,
        (work.frames * work.frame_bytes) as f64 / seconds / 1e6,
        work.frames as f64 / seconds,
        at(0.5),
        at(0.99),
        session.map_or(String::new(), |session| format!(", {:?}", session.stats())),
    );
    writer.shutdown().await.expect("an open stream");
}
