//! The load: producers and consumers of two libraries over two transports, each with a history.
//!
//! It owns the clients and tells them when to end. It must never hide that one has ended early.

mod consumer;
mod crew;
mod history;
mod producer;
mod python;
mod tally;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use headwater_sdk::{Client, Config, NewTopic, TopicId, Trust};
use headwater_tests::{PATIENCE, until, within};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use self::crew::Crew;
pub(crate) use self::history::now;
use self::history::{History, path};
use self::producer::Order;
use self::python::Task;
pub(crate) use self::tally::Tally;
pub(crate) use self::value::VALUE_BYTES_MIN as RECORD_BYTES_MIN;
use crate::lab::Lab;

pub(crate) const TOPIC: &str = "numbered";
const CLOSING: &str = "closing";
/// What every client gets in the end to hear of what it has under way.
const SETTLE: Duration = Duration::from_secs(90);

/// How much load there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) partitions: u32,
    /// Records in a second, of all producers together.
    pub(crate) rate: u64,
    /// Of each value, [`RECORD_BYTES_MIN`] at least.
    pub(crate) record_bytes: usize,
    pub(crate) replicas: i16,
    pub(crate) with_python: bool,
    /// Consumers that read along; a measurement has none.
    pub(crate) with_consumers: bool,
    /// Acknowledgements come from memory: a power cut must lose some, or cutting the power proves nothing.
    pub(crate) from_memory: bool,
}

/// Running clients.
pub(crate) struct Load {
    pub(crate) tally: Arc<Tally>,
    pub(crate) topic_id: TopicId,
    folder: PathBuf,
    volume: Volume,
    bootstrap: [String; 2],
    names: Vec<String>,
    histories: Vec<History>,
    clients: JoinSet<anyhow::Result<String>>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Makes the topic and starts all clients.
    pub(crate) async fn start(lab: &Lab, folder: &Path, volume: Volume) -> anyhow::Result<Self> {
        let bootstrap = [lab.bootstrap("quic://"), lab.bootstrap("")];
        let topic_id = create_topic(&bootstrap[1], volume).await?;
        let mut load = Self {
            tally: Arc::new(Tally::new(volume.partitions)),
            topic_id,
            folder: folder.to_owned(),
            volume,
            bootstrap,
            names: Vec::new(),
            histories: Vec::new(),
            clients: JoinSet::new(),
            stop: watch::Sender::new(false),
        };
        let producers = 2 + u64::from(volume.with_python);
        for (turn, transport) in ["quic", "tcp"].into_iter().enumerate() {
            load.produce(
                &format!("sdk-{transport}-producer"),
                turn,
                volume.rate / producers,
            )
            .await?;
            if volume.with_consumers {
                load.consume(&format!("sdk-{transport}-consumer"), turn).await?;
            }
        }
        if volume.with_python {
            load.python(
                "python-producer",
                Task::Produce {
                    rate: volume.rate / producers,
                    record_bytes: volume.record_bytes,
                },
            );
            if volume.with_consumers {
                load.python("python-consumer", Task::Consume);
            }
        }
        Ok(load)
    }

    async fn produce(&mut self, name: &str, transport: usize, rate: u64) -> anyhow::Result<()> {
        let client = connect(&self.bootstrap[transport]).await?;
        let order = Order {
            name: name.to_owned(),
            topic: TOPIC.to_owned(),
            partitions: self.volume.partitions,
            rate,
            record_bytes: self.volume.record_bytes,
        };
        let history = self.history(name)?;
        let (tally, stop) = (Arc::clone(&self.tally), self.stop.subscribe());
        self.spawn(name, producer::run(client, order, history, tally, stop));
        Ok(())
    }

    async fn consume(&mut self, name: &str, transport: usize) -> anyhow::Result<()> {
        let client = connect(&self.bootstrap[transport]).await?;
        let topic = (TOPIC.to_owned(), self.volume.partitions);
        let history = self.history(name)?;
        let (tally, stop) = (Arc::clone(&self.tally), self.stop.subscribe());
        self.spawn(name, consumer::along(client, topic, history, tally, stop));
        Ok(())
    }

    fn python(&mut self, name: &str, task: Task) {
        self.names.push(name.to_owned());
        let order = python::Order {
            task,
            name: name.to_owned(),
            history: path(&self.folder, name),
            bootstrap: self.bootstrap[1].clone(),
            topic: TOPIC.to_owned(),
            partitions: self.volume.partitions,
        };
        let (tally, stop) = (Arc::clone(&self.tally), self.stop.subscribe());
        self.spawn(name, python::run(order, tally, stop));
    }

    fn spawn(&mut self, name: &str, client: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let name = name.to_owned();
        self.clients
            .spawn(async move { client.await.with_context(|| name.clone()).map(|()| name) });
    }

    fn history(&mut self, name: &str) -> anyhow::Result<History> {
        let history = History::new(&self.folder, name)?;
        self.names.push(name.to_owned());
        self.histories.push(history.clone());
        Ok(history)
    }

    /// Fails if a client has ended by itself.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.clients.try_join_next() {
            None => Ok(()),
            Some(ended) => {
                let name = ended??;
                anyhow::bail!("{name} has ended before it was told to")
            }
        }
    }

    /// Tells all clients to end and waits until each has heard of all it sent, for so long at most. What is not heard of
    /// then stays open in its history. Answers who ended last; nobody, if somebody had not ended then.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<Option<String>> {
        self.stop.send_replace(true);
        let all = async {
            let mut last = String::new();
            while let Some(ended) = self.clients.join_next().await {
                last = ended??;
            }
            anyhow::Ok(last)
        };
        let last = tokio::time::timeout(SETTLE, all).await.ok().transpose()?;
        self.clients.shutdown().await;
        self.histories.iter().try_for_each(History::flush)?;
        Ok(last)
    }

    /// Reads the whole log as the last witness, from the nodes at these addresses; answers how many records it holds.
    pub(crate) async fn read_closing(&mut self, bootstrap: &str) -> anyhow::Result<u64> {
        let client = connect(bootstrap).await?;
        let history = self.history(CLOSING)?;
        consumer::closing(
            client,
            (TOPIC.to_owned(), self.volume.partitions),
            history,
            PATIENCE,
        )
        .await
    }

    /// The files that the checker reads.
    pub(crate) fn histories(&self) -> Vec<PathBuf> {
        self.names.iter().map(|name| path(&self.folder, name)).collect()
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.volume.partitions
    }
}

/// A client with the settings that users get.
pub(crate) async fn connect(bootstrap: &str) -> anyhow::Result<Client> {
    let config = Config::new(bootstrap)?.with_trust(Trust::SkipVerification);
    let connected = within(PATIENCE, "a client's first connection", Client::connect(config)).await?;
    connected.with_context(|| format!("cannot connect to {bootstrap}"))
}

async fn create_topic(bootstrap: &str, volume: Volume) -> anyhow::Result<TopicId> {
    let client = connect(bootstrap).await?;
    let mut topic = NewTopic::new(TOPIC, i32::try_from(volume.partitions)?)
        .with("retention.ms", "-1")
        .with("write.caching", volume.from_memory.to_string())
        .with("min.insync.replicas", if volume.replicas > 2 { "2" } else { "1" });
    topic.replication_factor = Some(volume.replicas);
    // Nodes of a cluster register one after the other: for a moment there are too few for so many replicas.
    let id = until(PATIENCE, "the topic", || async {
        Ok(Some(client.admin().create_topic(&topic).await?))
    })
    .await?;
    client.close().await;
    Ok(id)
}

/// Who leads a partition of the load's topic, as a client is told now. None while nobody does.
pub(crate) async fn leader(client: &Client, partition: u32) -> anyhow::Result<Option<i32>> {
    leader_of(client, TOPIC, i32::try_from(partition)?).await
}

/// The same of any topic.
pub(crate) async fn leader_of(client: &Client, topic: &str, partition: i32) -> anyhow::Result<Option<i32>> {
    // Asked for by name once, it is in every image from then on.
    client.topic(topic).await?;
    client.refresh().await?;
    let index = headwater_sdk::PartitionIndex(partition);
    Ok(client.cluster().leader(topic, index).map(|(node, _)| node.0))
}

/// Whether every partition has all its replicas in sync.
pub(crate) async fn is_in_sync(client: &Client) -> anyhow::Result<bool> {
    client.topic(TOPIC).await?;
    client.refresh().await?;
    let cluster = client.cluster();
    let topic = cluster.topic(TOPIC).context("the topic is gone")?;
    Ok(topic
        .partitions
        .iter()
        .all(|partition| partition.leader.is_some() && partition.isr.len() == partition.replicas.len()))
}
