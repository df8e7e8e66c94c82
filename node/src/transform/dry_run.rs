//! A module tried on records of a topic, without a trace: nothing is appended, no state is kept, no position moves.
//! It owns the report: for each record what became of it. It obeys the same limits as a deployment.

use std::sync::Arc;

use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::record::Headers;

use super::answer::{AnswerError, Failures, Outputs, check_verdicts, read_keys};
use super::bisect::{Bisect, Cut};
use super::fold::{Fold, FoldError};
use super::input::Input;
use super::instance::{CallError, Instance, Module, Setup, StartError};
use super::keyed::KeyedStore;
use super::outbox::Outgoing;
use super::request::{Fate, OwnedHeader, Sample, Tried, WouldSend};
use super::windows::{self, Closed, Windows};
use crate::metadata::World;

const STATE_BYTES_MAX: usize = 16 << 20;
/// What a module is called with at most, as in a deployment with no limits of its own.
const BATCH_BYTES_MAX: usize = 1 << 20;
const RECORDS_PER_CALL_MAX: usize = 32 << 10;
/// Topics that outputs of one trial may name.
const TOPICS_MAX: usize = 256;

/// A trial on the records of one partition.
pub(crate) struct Trial {
    pub(crate) module: Arc<Module>,
    pub(crate) setup: Setup,
    pub(crate) windows: Option<Windows>,
    pub(crate) partition: PartitionIndex,
    pub(crate) input: Input,
    /// How many records of the input are tried.
    pub(crate) limit: usize,
    instance: Option<Instance>,
    results: Vec<Tried>,
    topics: Vec<String>,
    cpu_us: u64,
    broken: usize,
}

/// What came of a trial.
pub(crate) struct Done {
    /// In the order of the records.
    pub(crate) results: Vec<Tried>,
    pub(crate) cpu_us: u64,
    /// Records, and closings of windows, that the module broke down on.
    pub(crate) broken: usize,
}

impl Trial {
    pub(crate) fn new(
        module: Arc<Module>,
        setup: Setup,
        windows: Option<Windows>,
        partition: PartitionIndex,
        input: Input,
        limit: usize,
    ) -> Self {
        let limit = limit.min(input.len());
        // A name that no topic has stands for the first sink.
        let topics = vec![String::new()];
        let (instance, results, cpu_us, broken) = (None, Vec::new(), 0, 0);
        Self {
            module,
            setup,
            windows,
            partition,
            input,
            limit,
            instance,
            results,
            topics,
            cpu_us,
            broken,
        }
    }

    /// Runs it where a thread may block.
    pub(crate) fn run(mut self) -> Result<Done, StartError> {
        self.results = (0..self.limit).map(|index| self.sample(index)).collect();
        let limit = self.limit;
        let ranges = self.input.ranges(BATCH_BYTES_MAX, RECORDS_PER_CALL_MAX);
        let ranges = ranges
            .into_iter()
            .map(move |range| range.start..range.end.min(limit));
        let mut work = Bisect::new(ranges.filter(|range| !range.is_empty()));
        self.start()?;
        while let Some(range) = work.next() {
            self.start()?;
            let result = match self.module.world() {
                World::Filter => self.filter(range.clone()),
                World::Map => self.map(range.clone()),
                World::Aggregate => self.aggregate(range.clone()),
            };
            self.count_cpu();
            let Err(error) = result else { continue };
            self.instance = None;
            if error == CallError::Stopping {
                return Err(StartError::Failed(error));
            }
            if let Cut::Found(index) = work.failed(range) {
                self.broken += 1;
                self.fail(index, error.to_string());
            }
        }
        self.close()?;
        Ok(Done {
            results: self.results,
            cpu_us: self.cpu_us,
            broken: self.broken,
        })
    }

    /// Makes the instance if there is none, which shows whether the module accepts its parameters.
    fn start(&mut self) -> Result<(), StartError> {
        if self.instance.is_none() {
            let keyed = KeyedStore::new(STATE_BYTES_MAX);
            let started = Instance::start(&self.module, self.setup.clone(), keyed);
            self.instance = Some(started.map_err(|failed| failed.error)?);
        }
        Ok(())
    }

    fn filter(&mut self, range: std::ops::Range<usize>) -> Result<(), CallError> {
        let records = range.len() as u32;
        let mut buffer = Vec::new();
        self.input.encode(range.clone(), &mut buffer);
        let (verdicts, failures) = self.instance().filter(&buffer, records)?;
        check_verdicts(&verdicts, &failures, records)?;
        for (index, verdict) in range.clone().zip(&verdicts) {
            if *verdict == 1 {
                self.results[index].fate = Fate::Kept;
            }
        }
        self.fail_all(range.start, &failures);
        Ok(())
    }

    fn map(&mut self, range: std::ops::Range<usize>) -> Result<(), CallError> {
        let records = range.len() as u32;
        let mut buffer = Vec::new();
        self.input.encode(range.clone(), &mut buffer);
        let (answer, failures) = self.instance().transform(&buffer, records)?;
        let sent = read_outputs(&answer, records, &failures, &mut self.topics, |input| {
            Outgoing::of_record(&self.input.record(range.start + input as usize))
        })?;
        for (input, output) in sent {
            let tried = &mut self.results[range.start + input as usize];
            tried.fate = Fate::Mapped;
            tried.outputs.push(output);
        }
        self.fail_all(range.start, &failures);
        Ok(())
    }

    fn aggregate(&mut self, range: std::ops::Range<usize>) -> Result<(), CallError> {
        let records = range.len() as u32;
        let mut buffer = Vec::new();
        self.input.encode(range.clone(), &mut buffer);
        let instance = self.instance.as_mut().expect("the loop made it");
        let (answer, key_failures) = instance.keys(&buffer, records)?;
        let mut keys = Vec::new();
        read_keys(&answer, &key_failures, records, &mut keys)?;
        let windows = self.windows.as_mut().expect("an aggregate is tried with windows");
        let mut left_out = Vec::new();
        let (kept, late, fold_failures) = loop {
            let assignment = windows.assign(&keys);
            let fold = Fold {
                instance: self.instance.as_mut().expect("the loop made it"),
                shape: windows.shape(),
                batch: &buffer,
            };
            let (states, failures) = match fold.run(&assignment) {
                Ok(folded) => folded,
                Err(FoldError::Call(error)) => return Err(error),
                Err(FoldError::One { record, message }) => {
                    keys[record as usize] = None;
                    left_out.push((record, message));
                    continue;
                }
                Err(FoldError::Windows { reason }) => {
                    range.for_each(|index| self.fail(index, reason.clone()));
                    return Ok(());
                }
            };
            let states: Vec<Option<&[u8]>> = states.iter().map(Option::as_deref).collect();
            windows.apply(&assignment, &states);
            windows.keep();
            let kept: Vec<usize> = (0..range.len())
                .filter(|index| assignment.places(*index))
                .collect();
            break (kept, assignment.late.clone(), failures);
        };
        for index in kept {
            self.results[range.start + index].fate = Fate::Kept;
        }
        for late in late {
            self.results[range.start + late as usize].error =
                Some("it came after its window had closed".to_owned());
        }
        for (record, message) in left_out {
            self.fail(range.start + record as usize, message);
        }
        self.fail_all(range.start, &key_failures);
        self.fail_all(range.start, &fold_failures);
        Ok(())
    }

    /// Closes every window, and shows what it would send with the last record that was tried.
    fn close(&mut self) -> Result<(), StartError> {
        let Some(windows) = &mut self.windows else {
            return Ok(());
        };
        windows.close_all();
        let closed = windows.closed(STATE_BYTES_MAX);
        let (Some(instance), false, Some(last)) =
            (&mut self.instance, closed.is_empty(), self.results.last_mut())
        else {
            return Ok(());
        };
        match tell(instance, &closed, &mut self.topics) {
            Ok(sent) => last.outputs.extend(sent),
            Err(error) => {
                last.error = Some(error.to_string());
                self.broken += 1;
            }
        }
        self.count_cpu();
        Ok(())
    }

    fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("the loop made it")
    }

    fn count_cpu(&mut self) {
        if let Some(instance) = &mut self.instance {
            self.cpu_us += u64::try_from(instance.take_cpu().as_micros()).unwrap_or(u64::MAX);
        }
    }

    fn fail_all(&mut self, start: usize, failures: &Failures) {
        for failure in failures.iter() {
            self.fail(start + failure.index as usize, failure.message.clone());
        }
    }

    fn fail(&mut self, index: usize, message: String) {
        let tried = &mut self.results[index];
        tried.fate = Fate::Failed;
        tried.outputs.clear();
        tried.error = Some(message);
    }

    fn sample(&self, index: usize) -> Tried {
        let source = self.input.record(index);
        let input = Sample {
            partition: self.partition,
            offset: source.offset,
            timestamp_ms: source.timestamp_ms,
            key: source.record.key.map(<[u8]>::to_vec),
            value: source.record.value.map(<[u8]>::to_vec),
            headers: owned(source.record.headers),
        };
        Tried {
            input,
            fate: Fate::Dropped,
            outputs: Vec::new(),
            error: None,
        }
    }
}

/// Calls `emit` and reads what it would send.
fn tell(
    instance: &mut Instance,
    closed: &[Closed],
    topics: &mut Vec<String>,
) -> Result<Vec<WouldSend>, CallError> {
    let count = closed.len() as u32;
    let mut buffer = Vec::new();
    windows::encode(closed, &mut buffer);
    let (answer, failures) = instance.emit(&buffer, count)?;
    let sent = read_outputs(&answer, count, &failures, topics, |input| {
        Outgoing::of_window(&closed[input as usize])
    })?;
    Ok(sent.into_iter().map(|(_, output)| output).collect())
}

/// Reads outputs, each upon what it inherits. A topic that was not named before becomes one of `topics`.
fn read_outputs<'a>(
    answer: &'a [u8],
    inputs: u32,
    failures: &Failures,
    topics: &mut Vec<String>,
    inherited: impl Fn(u32) -> Outgoing<'a>,
) -> Result<Vec<(u32, WouldSend)>, AnswerError> {
    loop {
        match read_known(answer, inputs, failures, topics, &inherited) {
            Err(AnswerError::NoSuchSink { name, .. }) if topics.len() < TOPICS_MAX => topics.push(name),
            done => return done,
        }
    }
}

fn read_known<'a>(
    answer: &'a [u8],
    inputs: u32,
    failures: &Failures,
    topics: &[String],
    inherited: &impl Fn(u32) -> Outgoing<'a>,
) -> Result<Vec<(u32, WouldSend)>, AnswerError> {
    let mut outputs = Outputs::new(answer, inputs, failures, topics)?;
    let mut sent = Vec::new();
    while let Some(output) = outputs.next()? {
        let record = inherited(output.input).changed_by(&output);
        let would = WouldSend {
            topic: (output.sink > 0).then(|| topics[output.sink].clone()),
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: owned(record.headers),
        };
        sent.push((output.input, would));
    }
    Ok(sent)
}

fn owned(headers: Headers<'_>) -> Vec<OwnedHeader> {
    let each = |header: headwater_protocol::record::Header<'_>| {
        (
            String::from_utf8_lossy(header.key).into_owned(),
            header.value.map(<[u8]>::to_vec),
        )
    };
    headers.map_while(Result::ok).map(each).collect()
}
