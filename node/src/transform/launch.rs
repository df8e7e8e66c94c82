//! From a plan to a running pipeline: gathers the module, its parameters and tables, and the partitions.
//! It owns nothing that outlives the pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{pending, select_all};
use headwater_protocol::ids::PartitionIndex;

use super::compiler::CompileError;
use super::deploy::Means;
use super::instance::{Module, Setup};
use super::logs::{LogRing, Logger};
use super::lookup::Lease;
use super::modules::LoadError;
use super::outbox::Sink;
use super::params;
use super::pipeline::{self, End, Job, RightSource};
use super::plan::RunPlan;
use super::sinks::SinkPartitions;
use super::spec::SpecError;
use super::status::Cells;
use super::table::Table;
use crate::metadata::{Join, ModuleRef, Topic, Transform, WindowShape};
use crate::partition::{Partition, PartitionName};
use crate::sys::task::Tasks;

/// One pipeline to be started.
pub(crate) struct Launch {
    pub(crate) means: Means,
    pub(crate) run: Arc<RunPlan>,
    pub(crate) partition: PartitionIndex,
    pub(crate) scope: Tasks,
    pub(crate) cells: Arc<Cells>,
    pub(crate) ring: Arc<LogRing>,
}

/// Runs the pipeline until it ends.
pub(crate) async fn run(launch: Launch) -> End {
    let scope = launch.scope.clone();
    let (job, leases) = match prepare(launch).await {
        Ok(prepared) => prepared,
        Err(end) => return end,
    };
    let mut running = std::pin::pin!(pipeline::run(job));
    tokio::select! {
        biased;
        end = &mut running => end,
        reason = first_failure(&leases) => {
            scope.cancel();
            running.await;
            End::Stopped { reason }
        }
    }
}

async fn prepare(launch: Launch) -> Result<(Job, Vec<Arc<Lease>>), End> {
    let Launch {
        means,
        run,
        partition,
        scope,
        cells,
        ring,
    } = launch;
    let stopped = |reason: String| End::Stopped { reason };
    let module = means.depot.load(&run.module).await.map_err(|error| match error {
        LoadError::Unfinished | LoadError::Depot(_) | LoadError::Compile(CompileError::NoCompiler(_)) => {
            End::Failed {
                reason: error.to_string(),
            }
        }
        LoadError::Engine(_) | LoadError::Store(_) | LoadError::Compile(_) | LoadError::Code(_) => {
            stopped(error.to_string())
        }
    })?;
    check_shape(run.transform.shape(), &run.transform.module, &module)
        .map_err(|error| stopped(error.to_string()))?;
    let params = params::complete(&run.module.params, &run.transform.params);
    let params = params.map_err(|error| stopped(error.to_string()))?;
    let leases: BTreeMap<_, _> = run
        .tables
        .iter()
        .map(|(name, topic)| (name.clone(), means.tables.lease(topic)))
        .collect();
    let tables = leases
        .iter()
        .map(|(name, lease)| (name.clone(), Arc::clone(lease.table())))
        .collect();
    means.registry.reconciled(means.view.image().offset).await;
    let sinks = sinks(&means, &run)?;
    let logger = Logger::new(&run.transform.name, partition, ring, means.clock.clone());
    let setup = setup(&run.transform, params, tables, logger.clone());
    let leases: Vec<_> = leases.into_values().collect();
    let job = Job {
        transform: Arc::clone(&run.transform),
        module,
        setup,
        source: find(&means, &run.source, partition)?,
        right: right(&means, &run, partition),
        sinks,
        has_dead_letters: run.dead_letter.is_some(),
        has_late_sink: run.late_sink.is_some(),
        state: name(&run.state, partition),
        outside: Arc::clone(&means.outside),
        tables: leases.clone(),
        cells,
        logger,
        tasks: scope,
        clock: means.clock.clone(),
    };
    Ok((job, leases))
}

/// The second source. Its partition may be led anywhere.
fn right(means: &Means, run: &RunPlan, partition: PartitionIndex) -> Option<RightSource> {
    let (topic, join) = (run.right.as_ref()?, run.transform.join.as_ref()?);
    Some(RightSource {
        name: name(topic, partition),
        here: means.registry.get_by_id(topic.id, partition),
        join: Join::clone(join),
    })
}

/// The partition of a topic, which the metadata says is here.
fn find(means: &Means, topic: &Topic, index: PartitionIndex) -> Result<Partition, End> {
    let found = means.registry.get_by_id(topic.id, index);
    found.ok_or_else(|| End::Failed {
        reason: format!("partition {} {index} is not on this node", topic.name),
    })
}

fn name(topic: &Topic, index: PartitionIndex) -> PartitionName {
    PartitionName {
        topic_id: topic.id,
        topic: Arc::clone(&topic.name),
        index,
    }
}

/// The sinks in order, and the topics for late records and dead letters behind them.
fn sinks(means: &Means, run: &RunPlan) -> Result<Vec<SinkPartitions>, End> {
    let mut sinks = Vec::new();
    for topic in run.sinks.iter().chain(&run.late_sink).chain(&run.dead_letter) {
        let partitions: Vec<_> = topic.indexes().map(|index| name(topic, index)).collect();
        if partitions.is_empty() {
            let reason = format!("topic {} has no partitions", topic.name);
            return Err(End::Stopped { reason });
        }
        let sink = Sink {
            name: Arc::clone(&topic.name),
            partitions: partitions.len() as u32,
            message_bytes_max: means.outside.config(topic).max_message_bytes,
        };
        sinks.push(SinkPartitions { sink, partitions });
    }
    Ok(sinks)
}

/// What an instance of this transform may use and is given.
pub(crate) fn setup(
    transform: &Transform,
    params: Vec<(String, String)>,
    tables: BTreeMap<String, Arc<Table>>,
    logger: Logger,
) -> Setup {
    Setup {
        memory_bytes_max: transform.limits.memory_bytes,
        cpu_per_call: Duration::from_millis(transform.limits.cpu_ms_per_batch),
        answer_bytes_max: transform.limits.output_bytes,
        params,
        tables: Arc::new(tables),
        logger,
    }
}

/// Whether the module can do what the windows ask of it.
pub(crate) fn check_shape(
    shape: Option<WindowShape>,
    name: &ModuleRef,
    module: &Module,
) -> Result<(), SpecError> {
    match shape {
        Some(WindowShape::Session { .. }) if !module.can_merge() => {
            Err(SpecError::CannotMerge(name.name.clone()))
        }
        _ => Ok(()),
    }
}

async fn first_failure(leases: &[Arc<Lease>]) -> String {
    if leases.is_empty() {
        return pending().await;
    }
    select_all(leases.iter().map(|lease| Box::pin(lease.failed())))
        .await
        .0
}
