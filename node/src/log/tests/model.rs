//! Any order of operations, crashes among them, against a list of batches.
//!
//! After a crash the log is a prefix of what was written, and holds all that was said to be synced. At all
//! other times it is exactly the model.

use std::io::ErrorKind;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::sys::disk::memory::Operation;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Vec<usize>>),
    NewEpoch,
    /// A copy that leaves so many offsets out.
    AppendBehindGap(u8),
    Flush,
    Read {
        from: u16,
        bytes_max: usize,
    },
    Truncate(u16),
    Trim(u16),
    Restart(u16),
    Maintain {
        seconds: u16,
        keep: u16,
    },
    Close,
    Kill,
    Crash,
    /// A sync fails, and the log is opened anew on the same running machine.
    FailSync,
    FullDisk {
        room: u16,
        sizes: Vec<usize>,
    },
    FindTime(u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    let sizes = || vec(prop_oneof![0usize..300, 3_000usize..5_000], 1..4);
    prop_oneof![
        12 => vec(sizes(), 1..4).prop_map(Step::Append),
        2 => Just(Step::NewEpoch),
        2 => any::<u8>().prop_map(Step::AppendBehindGap),
        6 => Just(Step::Flush),
        12 => (any::<u16>(), 1usize..20_000).prop_map(|(from, bytes_max)| Step::Read { from, bytes_max }),
        2 => any::<u16>().prop_map(Step::Truncate),
        2 => any::<u16>().prop_map(Step::Trim),
        1 => any::<u16>().prop_map(Step::Restart),
        2 => (0u16..100, any::<u16>()).prop_map(|(seconds, keep)| Step::Maintain { seconds, keep }),
        2 => Just(Step::Close),
        3 => Just(Step::Kill),
        4 => Just(Step::Crash),
        2 => Just(Step::FailSync),
        2 => (0u16..6_000, sizes()).prop_map(|(room, sizes)| Step::FullDisk { room, sizes }),
        2 => any::<u16>().prop_map(Step::FindTime),
    ]
}

/// The log as it should be.
struct Model {
    bench: Bench,
    log: Option<Log>,
    /// Base, next, timestamp of the first record, bytes.
    batches: Vec<(i64, i64, i64, Bytes)>,
    start: i64,
    end: i64,
    synced: i64,
    epoch: i32,
    clock: i64,
}

impl Model {
    fn new(config: Config) -> Self {
        let bench = Bench::new(config);
        let log = Some(bench.log());
        Self {
            bench,
            log,
            batches: Vec::new(),
            start: 0,
            end: 0,
            synced: 0,
            epoch: 0,
            clock: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open between steps")
    }

    fn offset(&self, raw: u16) -> i64 {
        self.start + i64::from(raw) % (self.end - self.start + 1)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(batches) => self.append(&batches),
            Step::NewEpoch => self.epoch += 1,
            Step::AppendBehindGap(gap) => {
                let mut batch = batch_at(self.clock, &[20]);
                batch = batch
                    .stamp(Offset(self.end + i64::from(gap)), LeaderEpoch(self.epoch))
                    .unwrap();
                self.log()
                    .append_copy(vec![batch.clone()], CopyEpochs::Keep)
                    .unwrap();
                self.note(&batch);
            }
            Step::Flush => {
                self.log().flush();
                self.synced = self.end;
            }
            Step::Read { from, bytes_max } => self.read(self.offset(from), bytes_max),
            Step::Truncate(to) => self.truncate(self.offset(to)),
            Step::Trim(to) => {
                let to = self.offset(to);
                self.log().trim_to(Offset(to)).unwrap();
                self.start = self.start.max(to);
            }
            Step::Restart(at) => {
                let at = i64::from(at);
                self.log().restart_at(Offset(at)).unwrap();
                self.batches.clear();
                (self.start, self.end, self.synced) = (at, at, at);
            }
            Step::Maintain { seconds, keep } => {
                self.bench
                    .sys
                    .clock
                    .advance(Duration::from_secs(u64::from(seconds)));
                let keep = self.offset(keep);
                let start = self.log().maintain(Offset(keep)).unwrap().start.value();
                assert!(start <= keep.max(self.start), "what is still needed was removed");
                assert!(start >= self.start);
                self.start = start;
            }
            Step::Close => {
                self.log.take().unwrap().close().unwrap();
                self.synced = self.end;
                self.reopen();
                assert_eq!(self.log().end().value(), self.end);
            }
            Step::Kill => {
                self.log = None;
                self.bench.disk.kill();
                self.reopen();
                assert_eq!(self.log().end().value(), self.end, "a kill loses nothing");
            }
            Step::Crash => self.crash(),
            Step::FailSync => {
                self.bench.disk.fail(Operation::Sync, 0, ErrorKind::Other);
                self.log().flush();
                assert!(self.log().broken().is_some());
                self.step(Step::Kill);
            }
            Step::FullDisk { room, sizes } => self.append_to_full_disk(room, &sizes),
            Step::FindTime(time) => self.find_time(i64::from(time)),
        }
    }

    fn append_to_full_disk(&mut self, room: u16, sizes: &[usize]) {
        self.bench.disk.leave_room(u64::from(room));
        let (batch, epoch) = (batch_at(self.clock, sizes), LeaderEpoch(self.epoch));
        match self.log().append(vec![batch], epoch) {
            Ok(_) => self.note_last(),
            Err(AppendError::Full { .. }) => {}
            // The file of epochs had no room: the log must be opened anew.
            Err(AppendError::Broken(_)) => {
                self.bench.disk.set_capacity(u64::MAX);
                self.step(Step::Kill);
            }
            Err(error) => panic!("{error}"),
        }
        self.bench.disk.set_capacity(u64::MAX);
    }

    fn append(&mut self, batches: &[Vec<usize>]) {
        self.clock += 10;
        let views: Vec<BatchView> = batches.iter().map(|sizes| batch_at(self.clock, sizes)).collect();
        let (base, epoch) = (self.end, LeaderEpoch(self.epoch));
        let appended = self.log().append(views.clone(), epoch).unwrap();
        assert_eq!(appended.base.value(), base);
        for view in views {
            let head = view.stamped_header(Offset(self.end), epoch);
            let bytes = [&head[..], &view.bytes()[HEADER_BYTES..]].concat();
            self.note(&BatchView::parse(bytes.into()).unwrap());
        }
        assert_eq!(appended.next.value(), self.end);
    }

    fn note(&mut self, batch: &BatchView) {
        let (base, next) = (batch.base_offset().value(), batch.next_offset().value());
        self.batches
            .push((base, next, batch.header().base_timestamp, batch.bytes().clone()));
        self.end = next;
    }

    fn note_last(&mut self) {
        let slice = self
            .log()
            .reader()
            .read_waiting(Offset(self.end), limits(1))
            .unwrap();
        let batch = BatchView::parse(joined(&slice)).unwrap();
        batch.check_crc().unwrap();
        self.note(&batch);
    }

    fn truncate(&mut self, to: i64) {
        let end = self.log().truncate_to(Offset(to)).unwrap().value();
        if to >= self.end {
            assert_eq!(end, self.end);
            return;
        }
        self.batches.retain(|batch| batch.1 <= to);
        assert!(self.batches.last().map_or(0, |batch| batch.1) <= end && end <= to);
        assert!(end >= self.start);
        (self.end, self.synced) = (end, end);
    }

    fn crash(&mut self) {
        self.log = None;
        self.bench.disk.crash();
        let promised = self.synced;
        self.reopen();
        let end = self.log().end().value();
        let last = self
            .batches
            .iter()
            .rev()
            .find(|batch| batch.1 <= end)
            .map_or(0, |batch| batch.1);
        assert!(end <= self.end);
        let wanted: Vec<i64> = self
            .batches
            .iter()
            .map(|b| b.1)
            .filter(|next| *next <= promised)
            .collect();
        assert!(
            wanted.last().is_none_or(|next| *next <= end),
            "synced to {promised}, found {end}"
        );
        assert!(last <= end);
        self.batches.retain(|batch| batch.1 <= end);
        (self.end, self.synced) = (end, end);
    }

    fn reopen(&mut self) {
        let log = self.bench.log();
        // Old segments may have come back after a crash, and the newest may have been removed.
        self.start = log.start().value();
        // Whatever was found is durable by now: syncs run at once on this bench.
        let synced = log.synced().borrow().offset;
        assert_eq!(synced, log.end());
        self.synced = synced.value();
        self.epoch = self.epoch.max(log.reader().epochs().latest().value());
        self.log = Some(log);
    }

    fn read(&mut self, from: i64, bytes_max: usize) {
        let reader = self.log().reader();
        assert_eq!(
            (reader.start().value(), reader.end().value()),
            (self.start, self.end)
        );
        let expected = self.batches.iter().filter(|batch| batch.1 > from);
        let expected: Vec<u8> = expected.flat_map(|batch| batch.3.to_vec()).collect();
        let (mut at, mut all) = (Offset(from), Vec::new());
        while at < reader.end() {
            let slice = reader.read_waiting(at, limits(bytes_max)).unwrap();
            assert!(slice.next > at, "a read at {at} went nowhere");
            all.extend_from_slice(&joined(&slice));
            at = slice.next;
        }
        assert!(
            all == expected,
            "read {} bytes from {from}, expected {}",
            all.len(),
            expected.len()
        );
    }

    fn find_time(&mut self, time: i64) {
        let records = self
            .batches
            .iter()
            .flat_map(|(base, next, at, _)| (0..next - base).map(move |n| (base + n, at + n)));
        let start = self.start;
        let expected = records
            .filter(|(offset, _)| *offset >= start)
            .find(|(_, at)| *at >= time);
        let found = self.log().reader().find_time(time, Offset(i64::MAX)).unwrap();
        assert_eq!(
            found.map(|found| (found.offset.value(), found.timestamp_ms)),
            expected
        );
    }
}

proptest! {
    #[test]
    fn a_log_is_what_was_written(
        steps in vec(any_step(), 1..60),
        segment_bytes in prop_oneof![Just(600u64), Just(9_000), Just(1 << 30)],
        tail_bytes_max in prop_oneof![Just(0usize), Just(5_000), Just(1 << 20)],
    ) {
        let config = Config { segment_bytes, tail_bytes_max, retention_bytes: Some(20_000), ..config() };
        let mut model = Model::new(config);
        for step in steps {
            model.step(step);
        }
        model.read(model.start, 700);
    }
}
