//! Ten thousand malformed frames: each costs its sender the connection at most, and nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_tests::{PATIENCE, Random, Site, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FRAMES: u64 = 10_000;
const WARM_UP: u64 = 2_000;
/// What the node's memory may differ by between the warm-up and the end: an allocator's noise, not a leak. One leaked
/// kilobyte a frame would be 8 MB.
const GROWTH_BYTES_MAX: u64 = 4 << 20;

/// A whole frame with its length: ApiVersions version 0, which every broker answers.
pub(crate) fn api_versions(correlation: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(18_i16.to_be_bytes());
    body.extend(0_i16.to_be_bytes());
    body.extend(correlation.to_be_bytes());
    body.extend(4_i16.to_be_bytes());
    body.extend(b"test");
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("test frames are small");
    [&length.to_be_bytes()[..], body].concat()
}

/// A connection that behaves, and must be answered whatever the others send.
struct Witness {
    stream: TcpStream,
    asked: u32,
}

impl Witness {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, asked: 0 })
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        self.asked += 1;
        self.stream.write_all(&api_versions(self.asked)).await?;
        let answer = within(PATIENCE, "the witness's answer", async {
            let length = self.stream.read_u32().await?;
            let mut body = vec![0; length as usize];
            self.stream.read_exact(&mut body).await?;
            anyhow::Ok(body)
        });
        let answer = answer.await?.context("the witness lost its connection")?;
        ensure!(
            answer[..4] == self.asked.to_be_bytes(),
            "an answer to another question"
        );
        Ok(())
    }
}

/// One malformed frame of a random kind.
pub(crate) fn malformed(random: &mut Random) -> Vec<u8> {
    let key = random.below(0..80) as i16;
    let version = random.below(0..20) as i16;
    let header = [
        &key.to_be_bytes()[..],
        &version.to_be_bytes(),
        &7_u32.to_be_bytes(),
        &(-1_i16).to_be_bytes(),
    ]
    .concat();
    let length = random.below(1..300) as usize;
    let noise = random.bytes(length);
    match random.below(0..9) {
        // Lengths that lie: negative, huge, just above what follows, zero.
        0 => [&(-1_i32).to_be_bytes()[..], &noise].concat(),
        1 => [&i32::MAX.to_be_bytes()[..], &noise].concat(),
        2 => [&(noise.len() as u32 + 1).to_be_bytes()[..], &noise].concat(),
        3 => framed(&[]),
        // Noise, alone and behind a header that is right.
        4 => framed(&noise),
        5 => framed(&[&header[..], &noise].concat()),
        // An array, a string and a compact array that promise more than there is.
        6 => framed(&[&header[..], &i32::MAX.to_be_bytes(), &noise].concat()),
        7 => framed(&[&header[..], &[0], &[0xff, 0xff, 0xff, 0xff, 0x07], &noise].concat()),
        // A good request with one byte changed.
        _ => {
            let mut frame = api_versions(7);
            let at = random.below(4..frame.len() as u64) as usize;
            frame[at] ^= 1 << random.below(0..8);
            frame
        }
    }
}

/// Sends one frame on a connection of its own and reads until the node has answered, closed, or waits for more.
async fn send(address: SocketAddr, frame: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)
        .await
        .context("the node accepts no more connections")?;
    stream.set_nodelay(true)?;
    if stream.write_all(frame).await.is_err() {
        return Ok(());
    }
    // No more will come: a frame that promised more ends here.
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    // A reset is an answer too.
    let _ = within(
        Duration::from_secs(20),
        "an end to a malformed frame",
        stream.read_to_end(&mut answer),
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn ten_thousand_malformed_frames_disturb_nobody() -> anyhow::Result<()> {
    let mut random = Random::new();
    let site = Site::new()?;
    let mut node = site.start().await?;
    // At its first start a node compiles the modules it ships with, which is no leak of anybody's frames.
    until(PATIENCE, "the built-in modules", || async {
        let modules = node.http().get("/api/v1/modules").await?.json()?;
        Ok(modules
            .as_array()
            .is_some_and(|modules| modules.len() >= 4)
            .then_some(()))
    })
    .await?;
    let mut witness = Witness::connect(node.addresses.tcp).await?;
    let mut warm_bytes = 0;
    for frame in 0..FRAMES {
        send(node.addresses.tcp, &malformed(&mut random))
            .await
            .with_context(|| format!("frame {frame}"))?;
        if frame % 50 == 0 {
            witness
                .ask()
                .await
                .with_context(|| format!("after frame {frame}"))?;
        }
        if frame == WARM_UP {
            warm_bytes = node.resident_bytes()?;
        }
    }
    witness.ask().await?;
    ensure!(node.is_running()?, "the node ended");
    let end_bytes = node.resident_bytes()?;
    eprintln!("resident: {warm_bytes} bytes after {WARM_UP} frames, {end_bytes} after {FRAMES}");
    ensure!(
        end_bytes <= warm_bytes + GROWTH_BYTES_MAX,
        "grew from {warm_bytes} to {end_bytes} bytes"
    );
    ensure!(!node.log().contains("panicked"), "the node panicked");
    assert_eq!(node.terminate().await?.code(), Some(0));
    Ok(())
}
