//! The handle that the rest of the node has on modules and transforms.
//! It owns the checks that come before a change is proposed: a module is validated, a transform is set up once on
//! trial, so that what the metadata holds can run. The reconciler does the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{Batches, RECORDS_BYTES_MAX};
use tokio::sync::{Mutex, watch};

use super::builtin;
use super::deploy::{Board, Means, Reconciler};
use super::depot::{self, Depot, DepotError};
use super::dry_run::Trial;
use super::error::{DeployError, DryRunError, ModuleError, UploadError};
use super::input::Input;
use super::instance::{Instance, Setup, StartError};
use super::keyed::KeyedStore;
use super::launch;
use super::logs::{LogLine, LogRing, Logger};
use super::lookup::Tables;
use super::modules::{LoadError, Modules};
use super::params;
use super::plan;
use super::query::{QueryError, StateQuery, StateView};
use super::request::{DryRun, DryRunReport, ModuleFacts, Parts, Tried};
use super::spec::{self, JoinSpec, SpecError, TransformSpec};
use super::status::{RunState, TransformStatus};
use super::store::{Store, StoreError};
use super::table::Table;
use super::validate;
use super::windows::{Settings, Windows};
use crate::controller::{Applied, Change, Outcome, ProposeError};
use crate::metadata::features::Level;
use crate::metadata::{Module, ModuleRef, Transform, WindowShape, World};
use crate::partition::{Isolation, Partition, ReadRequest};
use crate::sys::Sys;
use crate::sys::task::{Kind, StillRunning};

/// How long a deployment waits to see its pipelines run before it answers. They go on starting after that.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long a pipeline may take to answer: it does so between two steps.
const QUERY_PATIENCE: Duration = Duration::from_secs(10);
const DRY_RUN_RECORDS_MAX: usize = 1_000;
const DRY_RUN_READ_BYTES: usize = 4 << 20;
const HOUR_MS: i64 = 3_600_000;

/// Modules and transforms of this node. Cheap to clone.
#[derive(Clone)]
pub struct Transforms {
    means: Means,
    board: Arc<Board>,
    reconciled: watch::Receiver<Offset>,
    sys: Sys,
}

impl Transforms {
    /// Opens the module store and begins to run what the metadata says. Ends with its scope of `parts.sys.tasks`.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let Parts {
            sys,
            view,
            controller,
            registry,
            metrics,
            node,
            folder,
            replication_factor,
            voters,
            outside,
        } = parts;
        let tasks = sys.tasks.child("transform");
        let store = Store::open(Arc::clone(&sys.disk), &folder, &sys.random)?;
        let modules = Modules::new(store, &sys, tasks.clone());
        let tables = Tables::new(
            registry.clone(),
            tasks.clone(),
            sys.clock.clone(),
            metrics.clone(),
        );
        let clock = sys.clock.clone();
        let depot = Depot {
            topic: depot::topic(replication_factor, voters),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            outside: Arc::clone(&outside),
            modules: Arc::clone(&modules),
            clock: clock.clone(),
            fetching: Mutex::default(),
        };
        let means = Means {
            view,
            controller,
            registry,
            metrics,
            tasks,
            clock,
            node,
            modules,
            depot: Arc::new(depot),
            tables,
            outside,
        };
        let board = Arc::new(Board::default());
        let (reconciler, reconciled) = Reconciler::new(means.clone(), Arc::clone(&board));
        let tasks = &means.tasks;
        // Both watch the scope and are waited for with it.
        drop(tasks.spawn("reconcile", Kind::Critical, reconciler.run()));
        drop(tasks.spawn("builtin", Kind::BestEffort, offer_builtin(means.clone())));
        Ok(Self {
            means,
            board,
            reconciled,
            sys,
        })
    }

    /// Ends everything that runs here, and waits for it.
    pub async fn stop(&self, patience: Duration) -> Result<(), StillRunning> {
        self.means.tasks.stop(&self.means.clock, patience).await
    }

    /// Says what an upload is, or why it would be refused. Keeps nothing.
    pub async fn validate(&self, wasm: Bytes) -> Result<ModuleFacts, UploadError> {
        Ok(self.means.modules.check(wasm).await?.facts)
    }

    /// Checks an upload, keeps it, and makes it known. `name` and `version` stand for those it gives itself.
    pub async fn upload(
        &self,
        wasm: Bytes,
        name: Option<String>,
        version: Option<String>,
    ) -> Result<Arc<Module>, UploadError> {
        let bad = |reason: String| UploadError::Refused(validate::ValidateError::BadDescribe { reason });
        name.as_deref()
            .map_or(Ok(()), validate::check_name)
            .map_err(bad)?;
        version
            .as_deref()
            .map_or(Ok(()), validate::check_version)
            .map_err(bad)?;
        let modules = &self.means.modules;
        let kept = modules.keep(modules.check(wasm.clone()).await?).await?;
        self.means.depot.keep(&kept.digest, &wasm).await?;
        let module = Module {
            name: name.unwrap_or(kept.name),
            version: version.unwrap_or(kept.version),
            created_ms: self.means.clock.unix_ms(),
            ..kept
        };
        match self
            .means
            .controller
            .propose(Change::PutModule(module.clone()))
            .await?
        {
            Applied {
                outcome: Outcome::Module(known),
                ..
            } => Ok(known),
            Applied { .. } => Ok(Arc::new(module)),
        }
    }

    /// The component as it was uploaded.
    pub async fn wasm(&self, name: &str, version: &str) -> Result<Vec<u8>, ModuleError> {
        let digest = self.module(name, version)?.digest.clone();
        Ok(self.means.depot.wasm(&digest).await?)
    }

    /// Removes a version that no transform uses.
    pub async fn remove_module(&self, name: &str, version: &str) -> Result<(), ModuleError> {
        let removed = self.module(name, version)?;
        let (name, version) = (name.to_owned(), version.to_owned());
        self.means
            .controller
            .propose(Change::RemoveModule { name, version })
            .await?;
        let image = self.means.view.image();
        if !image.has_digest(&removed.digest) {
            // Each node takes its own file away when it sees the change.
            self.means.depot.forget(&removed.digest, removed.size).await?;
        }
        Ok(())
    }

    fn module(&self, name: &str, version: &str) -> Result<Arc<Module>, ModuleError> {
        let image = self.means.view.image();
        let unknown = || ModuleError::Unknown {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        image.module(name, version).cloned().ok_or_else(unknown)
    }

    /// Creates or replaces a transform: checks it, sets the module up on trial, proposes it, and waits a while for
    /// its pipelines to run. Once this returns, records that come into the source are dealt with.
    pub async fn deploy(&self, mut spec: TransformSpec) -> Result<Arc<Transform>, DeployError> {
        let module = self.module(&spec.module.name, &spec.module.version)?;
        if spec.state_ttl_ms.is_none() {
            spec.state_ttl_ms = params::ttl_ms(&module.params, &spec.params);
        }
        if let Some(join) = JoinSpec::of_params(&module.name, &module.params, &spec.params)? {
            spec.join = Some(join);
        }
        let level = self.means.view.image().level();
        let transform = spec.complete(module.world, level, self.means.clock.unix_ms())?;
        self.check_partitions(&transform)?;
        self.try_set_up(&transform, &module).await?;
        let name = transform.name.clone();
        let applied = self
            .means
            .controller
            .propose(Change::PutTransform(transform))
            .await?;
        self.settled(&name, applied.offset).await;
        let image = self.means.view.image();
        let unknown = || ProposeError::Unknown {
            kind: "transform".into(),
            name: name.clone(),
        };
        Ok(image.transforms.get(&name).cloned().ok_or_else(unknown)?)
    }

    /// Two topics that are there already are looked at before anything is changed.
    fn check_partitions(&self, transform: &Transform) -> Result<(), SpecError> {
        let image = self.means.view.image();
        let Some(join) = &transform.join else {
            return Ok(());
        };
        match (image.topic(&transform.source), image.topic(&join.topic)) {
            (Some(left), Some(right)) => {
                plan::check_partitions(join, left, right).map_err(SpecError::NotPartitionedAlike)
            }
            _ => Ok(()),
        }
    }

    pub async fn pause(&self, name: &str) -> Result<(), ProposeError> {
        self.set_paused(name, true).await
    }

    /// Also the way to try again after a transform has stopped: pause it, then resume.
    pub async fn resume(&self, name: &str) -> Result<(), ProposeError> {
        self.set_paused(name, false).await
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<(), ProposeError> {
        let change = Change::SetTransformPaused {
            name: name.to_owned(),
            paused,
        };
        let applied = self.means.controller.propose(change).await?;
        self.settled(name, applied.offset).await;
        Ok(())
    }

    /// Removes a transform and its state. Its sinks stay.
    pub async fn remove(&self, name: &str) -> Result<(), ProposeError> {
        self.means
            .controller
            .propose(Change::RemoveTransform {
                name: name.to_owned(),
            })
            .await
            .map(drop)
    }

    /// What a transform does on this node. None: there is none of this name.
    pub fn status(&self, name: &str) -> Option<TransformStatus> {
        Some(self.board.get(name)?.status())
    }

    /// The latest lines that a transform's module has logged on this node.
    pub fn logs(&self, name: &str) -> Vec<LogLine> {
        self.board
            .get(name)
            .map(|posted| posted.ring.lines())
            .unwrap_or_default()
    }

    /// Shows a part of the keyed state of one partition, committed and of one moment.
    pub async fn state(&self, name: &str, query: StateQuery) -> Result<StateView, QueryError> {
        let (image, partition) = (self.means.view.image(), query.partition);
        let transform = image.transforms.get(name);
        let transform = transform.ok_or_else(|| QueryError::UnknownTransform(name.to_owned()))?;
        let source = image.topic(&transform.source);
        let led = source.and_then(|source| source.partition(partition));
        let leader = led.ok_or(QueryError::UnknownPartition(partition))?.leader;
        if leader != self.means.node {
            return Err(QueryError::NotHere { partition, leader });
        }
        let not_running = || QueryError::NotRunning(partition);
        let cells = self.board.get(name).and_then(|posted| posted.cells_at(partition));
        let cells = cells.ok_or_else(not_running)?;
        let asked = self.sys.clock.timeout(QUERY_PATIENCE, cells.ask(query)).await;
        asked.ok().flatten().ok_or_else(not_running)
    }

    /// Tries a module on records of a topic, without a trace.
    pub async fn dry_run(&self, dry_run: DryRun) -> Result<DryRunReport, DryRunError> {
        let module = self.module(&dry_run.module.name, &dry_run.module.version)?;
        if JoinSpec::of_params(&module.name, &module.params, &dry_run.params)?.is_some() {
            return Err(SpecError::JoinNotTried.into());
        }
        let transform = trial_transform(&dry_run);
        let params = params::complete(&module.params, &dry_run.params)?;
        let ring = Arc::new(LogRing::default());
        let logger = Logger::new(
            "dry-run",
            PartitionIndex(-1),
            Arc::clone(&ring),
            self.means.clock.clone(),
        );
        let mut leases = Vec::new();
        let mut tables = BTreeMap::new();
        for (name, topic) in plan::tables(&transform, &module) {
            let topic = self
                .means
                .view
                .topic(topic)
                .ok_or_else(|| DryRunError::NoTopic(topic.to_owned()))?;
            let lease = self.means.tables.lease(&topic);
            lease.caught_up().await.map_err(DryRunError::Table)?;
            tables.insert(name, Arc::clone(lease.table()));
            leases.push(lease);
        }
        let setup = launch::setup(&transform, params, tables, logger);
        let samples = self.samples(&dry_run).await?;
        let hour = WindowShape::Tumbling { size_ms: HOUR_MS };
        let shape = spec::shape_of(dry_run.window_ms, dry_run.window)?.unwrap_or(hour);
        let windows = (module.world == World::Aggregate).then(|| {
            Windows::new(Settings {
                shape,
                lateness_ms: i64::MAX,
            })
        });
        let limit = dry_run.limit.min(DRY_RUN_RECORDS_MAX);
        let module = self.means.depot.load(&module).await?;
        launch::check_shape(windows.as_ref().map(Windows::shape), &dry_run.module, &module)?;
        let tried = self.means.modules.blocking(move |_| {
            let (mut results, mut cpu_us): (Vec<Tried>, u64) = (Vec::new(), 0);
            for (partition, input) in samples {
                let left = limit - results.len();
                let trial = Trial::new(
                    Arc::clone(&module),
                    setup.clone(),
                    windows.clone(),
                    partition,
                    input,
                    left,
                );
                let done = trial.run()?;
                results.extend(done.results);
                cpu_us += done.cpu_us;
            }
            Ok::<_, DryRunError>((results, cpu_us))
        });
        let (results, cpu_us) = tried.await??;
        drop(leases);
        Ok(DryRunReport {
            results,
            cpu_us,
            log: ring.lines(),
        })
    }

    /// The records to try a module on, by partition.
    async fn samples(&self, dry_run: &DryRun) -> Result<Vec<(PartitionIndex, Input)>, DryRunError> {
        let no_topic = || DryRunError::NoTopic(dry_run.source.clone());
        let topic = self.means.view.topic(&dry_run.source).ok_or_else(no_topic)?;
        let limit = dry_run.limit.min(DRY_RUN_RECORDS_MAX);
        let mut samples: Vec<(PartitionIndex, Input)> = Vec::new();
        for index in topic
            .indexes()
            .filter(|index| dry_run.partition.is_none_or(|wanted| wanted == *index))
        {
            let partition = self
                .means
                .registry
                .get_by_id(topic.id, index)
                .ok_or_else(no_topic)?;
            let have: usize = samples.iter().map(|(_, input)| input.len()).sum();
            if have >= limit {
                break;
            }
            samples.push((
                index,
                read_samples(&partition, dry_run.offset, limit - have).await?,
            ));
        }
        if samples.is_empty() {
            return Err(no_topic());
        }
        Ok(samples)
    }

    /// Sets the module up once with these parameters, so that it can refuse them before anybody relies on it.
    async fn try_set_up(&self, transform: &Transform, module: &Arc<Module>) -> Result<(), DeployError> {
        let params = params::complete(&module.params, &transform.params)?;
        let tables =
            plan::tables(transform, module).map(|(name, topic)| (name, Arc::new(Table::new(topic, 0))));
        let ring = Arc::new(LogRing::default());
        let logger = Logger::new(
            &transform.name,
            PartitionIndex(-1),
            ring,
            self.means.clock.clone(),
        );
        let setup: Setup = launch::setup(transform, params, tables.collect(), logger);
        let module = self.means.depot.load(module).await?;
        launch::check_shape(transform.shape(), &transform.module, &module)?;
        let tried = self.means.modules.blocking(move |_| {
            let started = Instance::start(&module, setup, KeyedStore::new(0));
            started
                .map(drop)
                .map_err(|failed| DeployError::from(failed.error))
        });
        tried.await?
    }

    /// Returns when the reconciler has seen the change and the pipelines have started, or after a while.
    async fn settled(&self, name: &str, offset: Offset) {
        let wait = async {
            let mut reconciled = self.reconciled.clone();
            // The reconciler's end is the node's end: whoever waits is being stopped as well.
            let _ = reconciled.wait_for(|reached| *reached >= offset).await;
            loop {
                let starting = self.board.get(name).is_some_and(|posted| {
                    posted.status().state == RunState::Starting && posted.cells().is_empty()
                });
                if !starting || reconciled.changed().await.is_err() {
                    break;
                }
            }
            for cells in self
                .board
                .get(name)
                .map(|posted| posted.cells())
                .unwrap_or_default()
            {
                cells.reached(|state| *state != RunState::Starting).await;
            }
        };
        // After that it goes on starting by itself; its status shows how far it is.
        let _ = self.sys.clock.timeout(START_PATIENCE, wait).await;
    }
}

async fn offer_builtin(means: Means) {
    let cancel = means.tasks.cancelled();
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        () = builtin::register(&means.modules, &means.controller, &means.view, &means.clock) => {}
    }
}

/// The declaration that a trial stands for.
fn trial_transform(dry_run: &DryRun) -> Transform {
    let module = ModuleRef {
        name: dry_run.module.name.clone(),
        version: dry_run.module.version.clone(),
    };
    let spec = TransformSpec {
        params: dry_run.params.clone(),
        lookups: dry_run.lookups.clone(),
        ..TransformSpec::new("dry-run", module, &dry_run.source, "-")
    };
    spec.complete(World::Filter, Level::FIRST, 0)
        .expect("these values are all within their bounds")
}

async fn read_samples(
    partition: &Partition,
    offset: Option<Offset>,
    limit: usize,
) -> Result<Input, DryRunError> {
    let watermarks = *partition.watermarks().borrow();
    let last = watermarks.high_watermark.plus(-(limit as i64));
    let from = offset
        .unwrap_or(last)
        .max(watermarks.log_start)
        .min(watermarks.high_watermark);
    let mut input = Input::default();
    let mut next = from;
    while input.len() < limit && next < watermarks.high_watermark {
        let request = ReadRequest {
            from: next,
            max_bytes: DRY_RUN_READ_BYTES,
            isolation: Isolation::Committed,
            min_one: true,
            current_epoch: None,
            up_to_log_end: false,
        };
        let outcome = partition
            .read(request)
            .await
            .map_err(|error| DryRunError::Read(error.to_string()))?;
        if outcome.bytes == 0 {
            break;
        }
        for batch in Batches::new(outcome.visible()) {
            let batch = batch.map_err(|error| DryRunError::Read(error.to_string()))?;
            let pushed = input.push(batch, from, RECORDS_BYTES_MAX);
            pushed.map_err(|error| DryRunError::Read(error.to_string()))?;
        }
        next = outcome.next;
    }
    Ok(input)
}

impl From<DepotError> for UploadError {
    fn from(error: DepotError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<DepotError> for ModuleError {
    fn from(error: DepotError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<LoadError> for UploadError {
    fn from(error: LoadError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<LoadError> for DeployError {
    fn from(error: LoadError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<LoadError> for ModuleError {
    fn from(error: LoadError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<StoreError> for ModuleError {
    fn from(error: StoreError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<LoadError> for DryRunError {
    fn from(error: LoadError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl From<StartError> for DryRunError {
    fn from(error: StartError) -> Self {
        Self::SetUp(error.to_string())
    }
}
