//! A full disk: writes are refused with a clear error, reads go on, and space that comes back is used at once.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use headwater_tests::{Node, PATIENCE, Site, kcat, until};

const DISK_BYTES: u64 = 64 << 20;
const BALLAST_BYTES: usize = 24 << 20;

/// A small file system in memory; unmounted in the end.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// None, with the reason printed, where this process may not mount.
    fn mount() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("headwater-disk-").tempdir()?;
        let size = format!("size={DISK_BYTES}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Ok(Some(Self { folder })),
            Ok(output) => {
                eprintln!(
                    "skipped: cannot mount a small disk: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                Ok(None)
            }
            Err(why) => {
                eprintln!("skipped: cannot mount a small disk: {why}");
                Ok(None)
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// To the last byte.
    fn fill(&self) -> anyhow::Result<()> {
        let mut rest = std::fs::File::create(self.folder.path().join("rest"))?;
        for piece in [4096, 1] {
            loop {
                match rest.write_all(&[1; 4096][..piece]) {
                    Ok(()) => {}
                    Err(full) if full.kind() == ErrorKind::StorageFull => break,
                    Err(other) => return Err(other.into()),
                }
            }
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The folder of a disk that stays mounted is only left behind.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .status();
    }
}

/// Produces one record of a million bytes; what kcat said if it was not acknowledged.
async fn produce(node: &Node, line: &[u8]) -> anyhow::Result<Option<String>> {
    let bootstrap = node.bootstrap();
    let limits = [
        "-X",
        "message.max.bytes=2000000",
        "-X",
        "retries=0",
        "-X",
        "message.timeout.ms=10000",
    ];
    let args = [
        "-b", &bootstrap, "-P", "-t", "filling", "-p", "0", "-X", "acks=all",
    ];
    let finished = kcat(args.into_iter().chain(limits), line).await?;
    Ok(
        (!finished.status.success() || finished.stderr.contains("Delivery failed"))
            .then_some(finished.stderr),
    )
}

async fn count(node: &Node) -> anyhow::Result<usize> {
    let bootstrap = node.bootstrap();
    let args = [
        "-b",
        &bootstrap,
        "-C",
        "-t",
        "filling",
        "-p",
        "0",
        "-o",
        "beginning",
        "-e",
        "-q",
        "-f",
        "%S\n",
    ];
    let output = kcat(args, b"").await?.success()?;
    Ok(String::from_utf8(output)?.lines().count())
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() -> anyhow::Result<()> {
    let Some(disk) = Disk::mount()? else { return Ok(()) };
    std::fs::write(disk.ballast(), vec![1; BALLAST_BYTES])?;
    let site = Site::with_data(&disk.path().join("data"))?;
    let node = site.start().await?;
    node.create_topic("filling", 1, &["max.message.bytes=2000000"])
        .await?;

    let line = [&[b'w'; 900_000][..], b"\n"].concat();
    let mut acknowledged = 0;
    let refusal = loop {
        if let Some(refusal) = produce(&node, &line).await? {
            break refusal;
        }
        acknowledged += 1;
        ensure!(
            acknowledged * line.len() as u64 <= DISK_BYTES,
            "more was acknowledged than the disk holds"
        );
    };
    ensure!(acknowledged > 5, "only {acknowledged} records before: {refusal}");
    // KAFKA_STORAGE_ERROR, by librdkafka's words.
    ensure!(
        refusal.to_lowercase().contains("disk error"),
        "not a clear error: {refusal}"
    );
    until(PATIENCE, "the full disk in the log", || async {
        Ok(node.log().to_lowercase().contains("full").then_some(()))
    })
    .await?;
    ensure!(
        count(&node).await? as u64 >= acknowledged,
        "reads do not see what was acknowledged"
    );

    // Others take what the node had left free; it starts all the same, again and again.
    disk.fill()?;
    let mut node = node;
    for round in 1..=2 {
        node.kill().await?;
        node = site.start().await?;
        ensure!(
            count(&node).await? as u64 >= acknowledged,
            "reads after start {round} on a full disk"
        );
        let refusal = produce(&node, &line).await?;
        ensure!(refusal.is_some(), "acknowledged on a full disk");
    }

    std::fs::remove_file(disk.ballast())?;
    until(PATIENCE, "a write after space came back", || async {
        Ok(produce(&node, &line).await?.is_none().then_some(()))
    })
    .await?;
    let seen = count(&node).await?;
    node.kill().await?;
    let node = site.start().await?;
    assert_eq!(count(&node).await?, seen, "after a restart");
    Ok(())
}
