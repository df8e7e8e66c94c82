//! The cluster's copy of uploaded modules: an internal topic, so that every node can run what was given to one of them.
//!
//! It owns the topic and what its records look like. A file of this node comes first; what is read from the topic is believed by
//! its digest alone. It is never on a data path.
//!
//! ```text
//! key DIGEST/NUMBER       value: a part of the component, all of PART_BYTES but the last one; no value: the module was removed
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{BatchBuilder, BatchOptions, Batches, NewRecord, RECORDS_BYTES_MAX};
use tokio::sync::Mutex;

use super::MODULE_BYTES_MAX;
use super::instance::Module;
use super::modules::{LoadError, Modules};
use super::outside::{Outside, OutsideError};
use super::store::StoreError;
use crate::controller::Controller;
use crate::coordination::{OwnTopic, Unavailable};
use crate::metadata::{self, Topic, View};
use crate::partition::{PartitionName, Registry};
use crate::sys::clock::Clock;

const TOPIC: &str = "__transform_modules";
const PART_BYTES: usize = 512 << 10;
const SEGMENT_BYTES: i64 = 64 << 20;
/// How long the topic may have no leader: it may just have been made.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Why the cluster's copy could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DepotError {
    #[error("topic {TOPIC} cannot be made, or is not led by anybody")]
    Topic(#[from] Unavailable),
    #[error("topic {TOPIC}: {0}")]
    Outside(#[from] OutsideError),
    #[error("topic {TOPIC} cannot be read at offset {at}: {reason}")]
    Unreadable { at: Offset, reason: String },
}

pub(crate) struct Depot {
    pub(crate) topic: OwnTopic,
    pub(crate) view: View,
    pub(crate) controller: Controller,
    pub(crate) registry: Registry,
    pub(crate) outside: Arc<dyn Outside>,
    pub(crate) modules: Arc<Modules>,
    pub(crate) clock: Clock,
    /// Held while a module is fetched: several partitions may want the same one.
    pub(crate) fetching: Mutex<()>,
}

/// How the topic is to be made.
pub(crate) fn topic(replication_factor: i16, voters: usize) -> OwnTopic {
    OwnTopic {
        name: TOPIC,
        partitions: 1,
        replication_factor,
        segment_bytes: SEGMENT_BYTES,
        voters,
    }
}

impl Depot {
    /// The module, ready to be instantiated, whichever node it was uploaded to.
    pub(crate) async fn load(&self, module: &Arc<metadata::Module>) -> Result<Arc<Module>, LoadError> {
        match self.modules.load(module).await {
            Err(LoadError::Store(error)) if is_to_be_fetched(&error) => {}
            done => return done,
        }
        self.wasm(&module.digest).await?;
        self.modules.load(module).await
    }

    /// The component as it was uploaded, kept on this node from now on.
    pub(crate) async fn wasm(&self, digest: &str) -> Result<Vec<u8>, LoadError> {
        match self.here(digest).await? {
            Err(error) if is_to_be_fetched(&error) => {}
            done => return Ok(done?),
        }
        let _turn = self.fetching.lock().await;
        // Whoever had the turn before may have fetched the same.
        let missing = match self.here(digest).await? {
            Err(error) if is_to_be_fetched(&error) => error,
            done => return Ok(done?),
        };
        let fetched = self.modules.until_cancelled(self.fetch(digest)).await??;
        let wanted = digest.to_owned();
        let kept = self
            .modules
            .blocking(move |modules| modules.take_in(&wanted, fetched));
        kept.await??.ok_or_else(|| missing.into())
    }

    async fn here(&self, digest: &str) -> Result<Result<Vec<u8>, StoreError>, LoadError> {
        let wanted = digest.to_owned();
        self.modules.blocking(move |modules| modules.wasm(&wanted)).await
    }

    /// Keeps a component for all nodes: once this returns it is on all in-sync replicas.
    pub(crate) async fn keep(&self, digest: &str, wasm: &[u8]) -> Result<(), DepotError> {
        let topic = self.made().await?;
        for (number, part) in wasm.chunks(PART_BYTES).enumerate() {
            let key = key(digest, number);
            self.append(&topic, [(&*key, Some(part))]).await?;
        }
        Ok(())
    }

    /// Takes away what was kept of a component of this size.
    pub(crate) async fn forget(&self, digest: &str, bytes: u64) -> Result<(), DepotError> {
        let Some(topic) = self.known() else {
            return Ok(());
        };
        let count = bytes.min(MODULE_BYTES_MAX as u64).div_ceil(PART_BYTES as u64);
        let keys: Vec<String> = (0..count as usize).map(|number| key(digest, number)).collect();
        self.append(&topic, keys.iter().map(|key| (&**key, None))).await
    }

    async fn append<'a>(
        &self,
        topic: &PartitionName,
        records: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<(), DepotError> {
        let Some(batch) = batch(self.clock.unix_ms(), records) else {
            return Ok(());
        };
        let until = self.clock.now() + PATIENCE;
        loop {
            let sent = match self.outside.send(topic.clone(), batch.clone()).await {
                Ok(sending) => sending.await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(_) => return Ok(()),
                // A part that is there twice does no harm.
                Err(OutsideError::Failed(_)) if self.clock.now() < until => self.clock.sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The parts of a component that are in the topic, in order.
    async fn fetch(&self, digest: &str) -> Result<Vec<u8>, DepotError> {
        let mut parts: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let Some(topic) = self.known() else {
            return Ok(Vec::new());
        };
        let mut from = Offset::ZERO;
        loop {
            let read = self.outside.read(topic.clone(), from).await?;
            let unreadable = |reason: String| DepotError::Unreadable { at: from, reason };
            for batch in Batches::new(read.batches) {
                let batch = batch.map_err(|error| unreadable(error.to_string()))?;
                if batch.header().is_control() {
                    continue;
                }
                let records = batch.records(RECORDS_BYTES_MAX);
                for record in &records.map_err(|error| unreadable(error.to_string()))? {
                    let record = record.map_err(|error| unreadable(error.to_string()))?;
                    let Some(number) = record.key.and_then(|key| number_of(key, digest)) else {
                        continue;
                    };
                    match record.value {
                        Some(part) => parts.insert(number, part.to_vec()),
                        None => parts.remove(&number),
                    };
                }
            }
            if read.next <= from {
                return Ok(parts.into_values().flatten().collect());
            }
            from = read.next;
        }
    }

    fn known(&self) -> Option<PartitionName> {
        let topic = self.view.topic(TOPIC).filter(|topic| topic.internal)?;
        Some(whole(&topic))
    }

    /// The topic, made if it is not there yet.
    async fn made(&self) -> Result<PartitionName, DepotError> {
        let made = self
            .topic
            .ensure(&self.view, &self.controller, &self.registry, &self.clock);
        Ok(whole(&*made.await?))
    }
}

/// The one partition of the topic.
fn whole(topic: &Topic) -> PartitionName {
    PartitionName {
        topic_id: topic.id,
        topic: Arc::clone(&topic.name),
        index: PartitionIndex(0),
    }
}

fn is_to_be_fetched(error: &StoreError) -> bool {
    matches!(error, StoreError::NotHere { .. } | StoreError::Damaged { .. })
}

fn key(digest: &str, number: usize) -> String {
    format!("{digest}/{number}")
}

/// Which part of this module a key stands for.
fn number_of(key: &[u8], digest: &str) -> Option<usize> {
    let number = key.strip_prefix(digest.as_bytes())?.strip_prefix(b"/")?;
    let number: usize = std::str::from_utf8(number).ok()?.parse().ok()?;
    (number < MODULE_BYTES_MAX.div_ceil(PART_BYTES)).then_some(number)
}

/// None: there is nothing to append.
fn batch<'a>(
    timestamp_ms: i64,
    records: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> Option<Bytes> {
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    for (key, value) in records {
        let record = NewRecord {
            timestamp_ms,
            key: Some(key.as_bytes()),
            value,
            headers: &[],
        };
        builder
            .append(&record)
            .expect("a part is far smaller than a record may be");
    }
    builder.build().expect("so is a batch")
}
