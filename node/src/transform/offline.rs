//! A component tried on records that its author brings, where no node runs.
//! It owns what such a trial is made of: the engine, limits and checks are those of a deployment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{self, BatchBuilder, BatchOptions, BatchView, HeaderRef, NewRecord};

use super::dry_run::{Done, Trial};
use super::engine::{Engine, EngineError};
use super::input::{Input, MalformedBatch};
use super::instance::{Module, Setup, StartError};
use super::logs::{LogRing, Logger};
use super::params::{self, ParamError};
use super::request::{DryRunReport, ModuleFacts, OwnedHeader};
use super::spec::{LimitsSpec, SpecError};
use super::table::{Table, TableError};
use super::validate::{self, ValidateError, Validated};
use super::windows::{Settings, Windows};
use crate::metadata::{ParamKind, WindowShape, World};
use crate::sys::clock::Clock;
use crate::sys::task::Tasks;

const TABLE_BYTES_MAX: usize = 256 << 20;
const RECORDS_BYTES_MAX: usize = 256 << 20;
const HOUR_MS: i64 = 3_600_000;

/// A record to try a module on, or an entry of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenRecord {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<OwnedHeader>,
}

/// What to try on what.
#[derive(Debug, Clone, Default)]
pub struct Offline {
    pub wasm: Vec<u8>,
    pub params: BTreeMap<String, String>,
    pub records: Vec<GivenRecord>,
    pub tables: BTreeMap<String, Vec<GivenRecord>>,
    /// For aggregates; an hour if it is not given.
    pub window_ms: Option<i64>,
    pub limits: LimitsSpec,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineReport {
    pub module: ModuleFacts,
    pub report: DryRunReport,
    /// Records and windows on which the module trapped, overran a limit or broke the contract.
    pub broken: usize,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the module is refused: {0}")]
    Module(#[from] ValidateError),
    #[error(transparent)]
    Params(#[from] ParamError),
    #[error(transparent)]
    Limits(#[from] SpecError),
    #[error("the module reads the lookup table {0:?}, which was not given")]
    NoTable(String),
    #[error("{0}")]
    Table(String),
    #[error("the records cannot be put in a batch: {0}")]
    Records(String),
    #[error(transparent)]
    SetUp(#[from] StartError),
    #[error("the trial broke off")]
    Unfinished,
}

/// Runs the trial on a thread that may block. The engine's ticker runs in `tasks`.
pub async fn try_offline(
    tasks: &Tasks,
    clock: &Clock,
    offline: Offline,
) -> Result<OfflineReport, OfflineError> {
    let engine = Arc::new(Engine::start(tasks, clock)?);
    let clock = clock.clone();
    let trial = tasks.blocking("trial", move || run(&engine, &clock, offline));
    trial.await.map_err(|_| OfflineError::Unfinished)?
}

fn run(engine: &Arc<Engine>, clock: &Clock, offline: Offline) -> Result<OfflineReport, OfflineError> {
    let Validated { facts, compiled } = validate::validate(engine, clock, &offline.wasm)?;
    let component = engine.load(&compiled).map_err(|error| ValidateError::Compile {
        reason: format!("{error:#}"),
    })?;
    let module = Module::link(Arc::clone(engine), &component, facts.world)
        .map_err(|reason| ValidateError::Signature { reason })?;
    let limits = offline.limits.complete()?;
    let given = params::complete(&facts.params, &offline.params)?;
    let tables = tables(&offline.tables)?;
    let names = facts.params.iter().filter(|param| param.kind == ParamKind::Table);
    let wanted = names.filter_map(|param| given.iter().find(|(name, _)| *name == param.name));
    if let Some((_, missing)) = wanted
        .into_iter()
        .find(|(_, table)| !tables.contains_key(table.trim()))
    {
        return Err(OfflineError::NoTable(missing.trim().to_owned()));
    }
    let ring = Arc::new(LogRing::default());
    let setup = Setup {
        memory_bytes_max: limits.memory_bytes,
        cpu_per_call: Duration::from_millis(limits.cpu_ms_per_batch),
        answer_bytes_max: limits.output_bytes,
        params: given,
        tables: Arc::new(tables),
        logger: Logger::new("test", PartitionIndex(0), Arc::clone(&ring), clock.clone()),
    };
    let windows = (facts.world == World::Aggregate).then(|| {
        let size_ms = offline.window_ms.filter(|size| *size > 0).unwrap_or(HOUR_MS);
        Windows::new(Settings {
            shape: WindowShape::Tumbling { size_ms },
            lateness_ms: i64::MAX,
        })
    });
    let input = input(&offline.records)?;
    let limit = input.len();
    let trial = Trial::new(Arc::new(module), setup, windows, PartitionIndex(0), input, limit);
    let Done {
        results,
        cpu_us,
        broken,
    } = trial.run()?;
    Ok(OfflineReport {
        module: facts,
        report: DryRunReport {
            results,
            cpu_us,
            log: ring.lines(),
        },
        broken,
    })
}

fn tables(given: &BTreeMap<String, Vec<GivenRecord>>) -> Result<BTreeMap<String, Arc<Table>>, OfflineError> {
    let each = |(name, entries): (&String, &Vec<GivenRecord>)| {
        let table = Table::new(name, TABLE_BYTES_MAX);
        if let Some(batch) = batch(entries)? {
            let applied = table.apply(&batch);
            applied.map_err(|error: TableError| OfflineError::Table(error.to_string()))?;
        }
        Ok((name.clone(), Arc::new(table)))
    };
    given.iter().map(each).collect()
}

fn input(records: &[GivenRecord]) -> Result<Input, OfflineError> {
    let mut input = Input::default();
    if let Some(batch) = batch(records)? {
        let pushed = input.push(batch, Offset::ZERO, RECORDS_BYTES_MAX);
        pushed.map_err(|error: MalformedBatch| OfflineError::Records(error.to_string()))?;
    }
    Ok(input)
}

/// The records as a producer would send them. None if there are none.
fn batch(records: &[GivenRecord]) -> Result<Option<BatchView>, OfflineError> {
    let refused = |error: record::Error| OfflineError::Records(error.to_string());
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| HeaderRef {
                key,
                value: value.as_deref(),
            })
            .collect();
        let record = NewRecord {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder.append(&record).map_err(refused)?;
    }
    let built = builder.build().map_err(refused)?;
    built.map(BatchView::parse).transpose().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::task::Blocking;
    use crate::transform::Fate;
    use crate::transform::testing::wasm;

    async fn tried(module: &str, params: &[(&str, &str)], values: &[&str]) -> Result<OfflineReport, String> {
        let tasks = Tasks::root("test", Blocking::Threads);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let record = |value: &&str| GivenRecord {
            value: Some(value.as_bytes().to_vec()),
            ..GivenRecord::default()
        };
        let offline = Offline {
            wasm: wasm(module),
            params: params.iter().map(owned).collect(),
            records: values.iter().map(record).collect(),
            ..Offline::default()
        };
        let tried = try_offline(&tasks, &Clock::system(), offline).await;
        tried.map_err(|error| error.to_string())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn records_are_judged_as_in_a_broker() {
        let values = [r#"{"delay":20}"#, r#"{"delay":10}"#, "no"];
        let report = tried("filter", &[("where", "delay > 15")], &values)
            .await
            .unwrap();
        let fates: Vec<_> = report.report.results.iter().map(|tried| tried.fate).collect();
        assert_eq!(fates, [Fate::Kept, Fate::Dropped, Fate::Failed]);
        assert_eq!((report.broken, report.module.name.as_str()), (0, "filter"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_trap_is_told_from_a_rejection() {
        let values = ["a"; 10];
        let report = tried("hostile/trap_on_record_7", &[], &values).await.unwrap();
        assert!(report.broken > 0, "{report:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_missing_is_named() {
        let refused = tried("filter", &[], &[]).await.unwrap_err();
        assert!(refused.contains("\"where\" is required"), "{refused}");
        let refused = tried("enrich", &[("table", "airports"), ("key", "origin")], &[]).await;
        assert_eq!(
            refused.unwrap_err(),
            "the module reads the lookup table \"airports\", which was not given"
        );
        let refused = tried("hostile/other_world", &[], &[]).await.unwrap_err();
        assert!(refused.starts_with("the module is refused: "), "{refused}");
    }
}
