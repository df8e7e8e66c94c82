//! What a net in memory promises: order, delay, cuts, crashes, and one history for one seed.

use std::pin::pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PORT: u16 = 9092;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Lets every task of this runtime run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Two hosts and the time.
struct Rig {
    fabric: Fabric,
    near: Host,
    far: Host,
    now: Duration,
}

impl Rig {
    fn new() -> Self {
        let fabric = Fabric::paced(Random::seeded(3));
        fabric.set_usual_link(Link {
            latency_min: ms(1),
            latency_max: ms(1),
            bytes_per_second: None,
            late_one_in: 100,
        });
        let (near, far) = (fabric.boot("near"), fabric.boot("far"));
        Self {
            fabric,
            near,
            far,
            now: Duration::ZERO,
        }
    }

    async fn pass(&mut self, time: Duration) {
        self.now += time;
        self.fabric.advance(self.now);
        settle().await;
    }

    fn target(&self) -> SocketAddr {
        self.near.resolve("far:9092").unwrap()[0]
    }

    fn listen(&self, kind: Kind) -> Listener {
        self.far
            .listen(SocketAddr::from(([0, 0, 0, 0], PORT)), kind)
            .unwrap()
    }

    /// Both ends of a connection.
    async fn connect(&mut self, listener: &Listener) -> (Connection, Connection) {
        let greeting = Bytes::from_static(b"hello");
        let near = self.near.clone();
        let dial = near.connect(self.target(), listener.kind, greeting);
        let mut both = pin!(async { tokio::join!(dial, listener.accept()) });
        for _ in 0..100 {
            if let Poll::Ready((near, far)) = futures_util::poll!(both.as_mut()) {
                return (near.unwrap(), far.unwrap());
            }
            self.pass(ms(1)).await;
        }
        panic!("no connection");
    }
}

#[tokio::test]
async fn bytes_take_their_time_and_keep_their_order() {
    let mut rig = Rig::new();
    let listener = rig.listen(Kind::Session);
    let (near, far) = rig.connect(&listener).await;
    assert_eq!(far.greeting(), "hello");
    let (_, mut sender) = near.open().await.unwrap();
    sender.write_all(b"one").await.unwrap();
    sender.write_all(b"two").await.unwrap();
    sender.shutdown().await.unwrap();
    let mut accepting = pin!(far.accept());
    assert!(
        futures_util::poll!(accepting.as_mut()).is_pending(),
        "nothing has arrived"
    );
    assert!(futures_util::poll!(pin!(sender.delivered())).is_pending());
    rig.pass(ms(20)).await;
    let (mut receiver, _back) = accepting.await.unwrap();
    let mut text = String::new();
    receiver.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "onetwo");
    sender.delivered().await.unwrap();
}

#[tokio::test]
async fn a_cut_holds_up_one_way_and_loses_nothing() {
    let mut rig = Rig::new();
    let listener = rig.listen(Kind::Stream);
    let (near, far) = rig.connect(&listener).await;
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
        (near.accept().await.unwrap(), far.accept().await.unwrap());
    rig.fabric.cut("near", "far");
    near_out.write_all(b"late").await.unwrap();
    far_out.write_all(b"soon").await.unwrap();
    rig.pass(ms(100)).await;
    let mut four = [0; 4];
    near_in.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"soon");
    assert!(futures_util::poll!(pin!(far_in.read_exact(&mut four))).is_pending());
    rig.fabric.heal("near", "far");
    rig.pass(ms(20)).await;
    far_in.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"late");
}

#[tokio::test]
async fn a_cut_that_lasts_breaks_the_connection_at_both_ends() {
    let mut rig = Rig::new();
    let listener = rig.listen(Kind::Session);
    let (near, far) = rig.connect(&listener).await;
    rig.fabric.cut("far", "near");
    rig.pass(Patience::default().session - ms(1)).await;
    assert!(futures_util::poll!(pin!(near.closed())).is_pending());
    rig.pass(ms(2)).await;
    assert_eq!(
        (near.closed().await, far.closed().await),
        (Closed::Lost("timed out"), Closed::Lost("timed out"))
    );
    let near = rig.near.clone();
    let mut dial = pin!(near.connect(rig.target(), Kind::Session, Bytes::new()));
    assert!(futures_util::poll!(dial.as_mut()).is_pending());
    rig.pass(Patience::default().dial).await;
    assert!(matches!(
        dial.await,
        Err(ConnectError::Closed(Closed::Lost("no answer")))
    ));
}

#[tokio::test]
async fn nobody_listens_means_refused_or_silence() {
    let mut rig = Rig::new();
    let near = rig.near.clone();
    let mut stream = pin!(near.connect(rig.target(), Kind::Stream, Bytes::new()));
    let mut session = pin!(near.connect(rig.target(), Kind::Session, Bytes::new()));
    assert!(futures_util::poll!(stream.as_mut()).is_pending());
    assert!(futures_util::poll!(session.as_mut()).is_pending());
    rig.pass(ms(20)).await;
    assert!(matches!(stream.await, Err(ConnectError::Closed(Closed::Refused))));
    assert!(futures_util::poll!(session.as_mut()).is_pending());
}

#[tokio::test]
async fn a_crashed_process_is_reset_and_a_dead_machine_is_silent_until_it_is_back() {
    for (how, kind, is_told) in [
        (Crash::Process, Kind::Stream, true),
        (Crash::Power, Kind::Stream, false),
        (Crash::Process, Kind::Session, false),
    ] {
        let mut rig = Rig::new();
        let listener = rig.listen(kind);
        let (near, far) = rig.connect(&listener).await;
        let (_, mut dead) = match kind {
            Kind::Stream => far.accept().await.unwrap(),
            Kind::Session => far.open().await.unwrap(),
        };
        rig.fabric.crash("far", how);
        dead.write_all(b"from the grave").await.unwrap_err();
        drop((dead, far, listener));
        rig.pass(ms(20)).await;
        assert_eq!(
            futures_util::poll!(pin!(near.closed())).is_ready(),
            is_told,
            "{how:?} {kind:?}"
        );
        rig.far = rig.fabric.boot("far");
        rig.pass(ms(20)).await;
        assert!(matches!(near.closed().await, Closed::Lost(_)));
        let listener = rig.listen(kind);
        let _again = rig.connect(&listener).await;
    }
}

#[tokio::test]
async fn a_reset_breaks_both_ends_and_a_full_pipe_waits() {
    let mut rig = Rig::new();
    let listener = rig.listen(Kind::Session);
    let (near, far) = rig.connect(&listener).await;
    let (_, mut sender) = near.open().await.unwrap();
    let much = vec![7; 1 << 20];
    let mut writing = pin!(sender.write_all(&much));
    for _ in 0..50 {
        assert!(futures_util::poll!(writing.as_mut()).is_pending());
        rig.pass(ms(1)).await;
    }
    rig.fabric.reset("far", "near");
    writing.await.unwrap_err();
    assert_eq!(far.closed().await, Closed::Lost("reset by the network"));
}

#[tokio::test]
async fn what_nobody_holds_is_forgotten() {
    let mut rig = Rig::new();
    for kind in [Kind::Stream, Kind::Session] {
        let listener = rig.listen(kind);
        let (near, far) = rig.connect(&listener).await;
        drop((near, far));
        let (near, far) = rig.connect(&listener).await;
        rig.fabric.crash("far", Crash::Power);
        drop((near, far, listener));
        rig.far = rig.fabric.boot("far");
    }
    rig.pass(ms(50)).await;
    rig.fabric.with(|state| {
        assert_eq!((state.connections.len(), state.pipes.len()), (0, 0));
    });
}

#[tokio::test]
async fn one_seed_gives_one_history() {
    async fn history(seed: u64) -> Vec<Seen> {
        let mut rig = Rig::new();
        rig.fabric = Fabric::paced(Random::seeded(seed));
        (rig.near, rig.far) = (rig.fabric.boot("near"), rig.fabric.boot("far"));
        rig.fabric.watch();
        let listener = rig.listen(Kind::Session);
        let (near, _far) = rig.connect(&listener).await;
        let mut streams = Vec::new();
        for size in 1..20 {
            let (receiver, mut sender) = near.open().await.unwrap();
            sender.write_all(&vec![1; size * 100]).await.unwrap();
            streams.push((receiver, sender));
        }
        rig.pass(ms(100)).await;
        rig.fabric.seen()
    }
    assert_eq!(history(5).await, history(5).await);
    assert_ne!(history(5).await, history(6).await);
}
