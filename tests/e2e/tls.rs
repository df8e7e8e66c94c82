//! Kafka over TLS beside TCP: each client is told the addresses of the listener it came by, and shows who it is where that is
//! demanded.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use headwater_sdk::{Client, Config, ConsumerConfig, ProducerConfig, Record, Start, Trust};
use headwater_tests::{Node, PATIENCE, Site, headwater, kcat, until, within};

fn site() -> anyhow::Result<Site> {
    Ok(Site::new()?.argument("--listen-tls").argument("127.0.0.1:0"))
}

fn address(node: &Node) -> anyhow::Result<String> {
    let address = node.addresses.tls.context("the node listens for TLS")?;
    Ok(address.to_string())
}

/// The authority whose certificates the node shows, as a file.
async fn authority(site: &Site, node: &Node) -> anyhow::Result<PathBuf> {
    let pem = node.http().get("/api/v1/cluster/ca.pem").await?.text();
    let path = site.path().join("ca.pem");
    std::fs::write(&path, pem)?;
    Ok(path)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[tokio::test]
async fn the_sdk_produces_and_consumes_over_tls() -> anyhow::Result<()> {
    let site = site()?;
    let node = site.start().await?;
    node.create_topic("t", 1, &[]).await?;
    let trust = Trust::Ca(std::fs::read_to_string(authority(&site, &node).await?)?);
    let config = Config::new(&format!("tls://{}", address(&node)?))?;
    ensure!(
        Client::connect(config.clone().with_trust(Trust::Fingerprint("ab".repeat(32))))
            .await
            .is_err(),
        "another certificate is refused"
    );
    let client = Client::connect(config.with_trust(trust)).await?;
    let described = client.admin().describe_cluster().await?;
    let told: Vec<_> = described.brokers.iter().map(|(_, broker)| broker.port).collect();
    let bound = node.addresses.tls.map(|it| vec![it.port()]);
    ensure!(Some(told) == bound, "the TLS listener's own port is told");
    let producer = client.producer(ProducerConfig::default())?;
    let topic = producer.topic("t").await?;
    let records = ["one", "two"].map(Record::value);
    within(PATIENCE, "deliveries", topic.send_all(&records).await?.all()).await??;
    producer.close().await;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_all("t", Start::Earliest).await?;
    for value in ["one", "two"] {
        let record = within(PATIENCE, "the next record", consumer.next()).await??;
        ensure!(record.value.as_deref() == Some(value.as_bytes()));
    }
    consumer.close().await;
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn kcat_is_told_the_listener_it_came_by() -> anyhow::Result<()> {
    let site = site()?;
    let node = site.start().await?;
    node.create_topic("t", 1, &[]).await?;
    let ca = format!("ssl.ca.location={}", text(&authority(&site, &node).await?));
    let (plain, tls) = (node.bootstrap(), address(&node)?);
    let encrypted = ["-b", &tls, "-X", "security.protocol=ssl", "-X", &ca];
    for (client, told) in [(&["-b", &plain][..], &plain), (&encrypted[..], &tls)] {
        let listing = kcat([client, &["-L", "-J"]].concat(), b"").await?.success()?;
        let listing: serde_json::Value = serde_json::from_slice(&listing)?;
        ensure!(listing["brokers"][0]["name"] == told.as_str(), "{listing}");
    }
    kcat([&encrypted[..], &["-P", "-t", "t"]].concat(), b"one\ntwo\n")
        .await?
        .success()?;
    let read = ["-C", "-t", "t", "-o", "beginning", "-e", "-q"];
    for client in [&["-b", &plain][..], &encrypted[..]] {
        let output = kcat([client, &read].concat(), b"").await?.success()?;
        ensure!(output == b"one\ntwo\n");
    }
    Ok(())
}

#[tokio::test]
async fn clients_show_who_they_are_where_that_is_demanded() -> anyhow::Result<()> {
    let site = site()?.argument("--set").argument("ssl.client.auth=required");
    let node = site.start().await?;
    let ca = text(&authority(&site, &node).await?);
    let bootstrap = format!("tls://{}", address(&node)?);
    let list = ["topic", "list", "--bootstrap", &bootstrap, "--ca", &ca];
    ensure!(
        headwater(list).await?.success().is_err(),
        "nobody gets in without a certificate"
    );
    // The authority signed the node's own for dialing, too.
    let [cert, key] = ["security/node.pem", "security/node.key"].map(|file| text(&site.data().join(file)));
    let shown = [&list[..], &["--cert", &cert, "--key", &key]].concat();
    headwater(shown).await?.success()?;
    // Over TCP without TLS nobody is asked.
    headwater(["topic", "list", "--bootstrap", &node.bootstrap()])
        .await?
        .success()?;
    Ok(())
}

/// The certificate, key and authority of a node that is gone again.
async fn papers() -> anyhow::Result<[String; 3]> {
    let site = site()?;
    let node = site.start().await?;
    let ca = node.http().get("/api/v1/cluster/ca.pem").await?.text();
    let read = |file: &str| std::fs::read_to_string(site.data().join("security").join(file));
    Ok([read("node.pem")?, read("node.key")?, ca])
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let lay = |[new_cert, new_key, ca]: [String; 3]| {
        std::fs::write(&cert, new_cert)?;
        std::fs::write(&key, new_key)?;
        Ok::<_, anyhow::Error>(Trust::Ca(ca))
    };
    let old = lay(papers().await?)?;
    let site = site()?
        .argument("--set")
        .argument(format!("tls.certificate.file={}", text(&cert)))
        .argument("--set")
        .argument(format!("tls.key.file={}", text(&key)));
    let node = site.start().await?;
    let config = Config::new(&format!("tls://{}", address(&node)?))?;
    let before = Client::connect(config.clone().with_trust(old.clone())).await?;

    // Of a pair that does not fit nothing is taken.
    std::fs::write(&key, &papers().await?[1])?;
    let new = papers().await?;
    let new = lay(new)?;
    until(PATIENCE, "the new certificate", || async {
        let client = Client::connect(config.clone().with_trust(new.clone())).await?;
        client.close().await;
        Ok(Some(()))
    })
    .await?;
    ensure!(
        Client::connect(config.with_trust(old)).await.is_err(),
        "the old certificate is not shown any more"
    );
    before.admin().list_topics().await?;
    before.close().await;
    Ok(())
}
