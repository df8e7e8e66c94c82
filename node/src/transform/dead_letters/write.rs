//! Writes letters back to the source, a few at a time, and marks those that were.
//! It must never leave a letter unmarked that may have been written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_protocol::ids::PartitionIndex;

use super::error::LetterError;
use super::letter::{DeadLetter, Place};
use super::marks::{Again, Mark, Marks};
use super::rebuild::{self, Edit, Rebuilt, Refusal};
use super::redrive::Mode;
use crate::metadata::Topic;
use crate::partition::{Acks, AppendError, AppendOptions, Origin, Partition, Pending, Registry};
use crate::sys::clock::Clock;
use crate::telemetry::Counter;

/// As for a client: mirrors and the nodes' own topics are closed to it.
const OPTIONS: AppendOptions = AppendOptions {
    acks: Acks::All,
    current_epoch: None,
    origin: Origin::Client,
    verified: None,
};

/// Who writes which letters where.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    pub(crate) marks: Arc<Mutex<Marks>>,
    pub(crate) letters: Arc<Topic>,
    pub(crate) source: Arc<Topic>,
    pub(crate) counter: Counter,
    /// The redrive on whose behalf it writes.
    pub(crate) redrive: String,
    pub(crate) again: Again,
    pub(crate) mode: Mode,
}

/// What became of one letter. None: it would have been written.
pub(crate) type Written = Result<Option<Place>, LetterError>;

/// A letter that is on its way.
struct Sent {
    letter: Place,
    target: PartitionIndex,
    before: Option<Mark>,
    pending: Pending,
}

impl Writer {
    /// Writes letters one behind the other and waits for their acknowledgements. Those behind one that could not be written
    /// are not tried: the answer is then shorter.
    pub(crate) async fn write(&self, letters: &[DeadLetter], edit: &Edit) -> Vec<Written> {
        let mut sent = Vec::with_capacity(letters.len());
        for letter in letters {
            let one = self.send(letter, edit).await;
            let is_fatal = one.as_ref().is_err_and(|error| !is_refusal(error));
            sent.push(one);
            if is_fatal {
                break;
            }
        }
        let mut written = Vec::with_capacity(sent.len());
        for one in sent {
            written.push(match one {
                Ok(Some(sent)) => self.settle(sent).await.map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            });
        }
        written
    }

    /// None in a dry run.
    async fn send(&self, letter: &DeadLetter, edit: &Edit) -> Result<Option<Sent>, LetterError> {
        rebuild::check(letter, edit, &self.source.name)?;
        let now_ms = self.clock.unix_ms();
        let rebuilt = Rebuilt::of(letter, edit, &self.letters.name, now_ms);
        let target = rebuilt.target(self.source.partitions.len());
        let here = self.led(target)?;
        let unfit = |error: headwater_protocol::record::Error| Refusal::BySource(error.to_string());
        let batch = rebuilt.batch().map_err(unfit)?;
        let limit = here.config().max_message_bytes;
        if batch.len() > limit {
            let bytes = batch.len();
            return Err(Refusal::TooLarge { bytes, limit }.into());
        }
        let marked = (self.letters.id, letter.place);
        if self.mode == Mode::DryRun {
            return match (self.marks().get(marked), self.again) {
                (Some(mark), Again::Refuse) => Err(already(mark).into()),
                (Some(_) | None, _) => Ok(None),
            };
        }
        let mark = Mark {
            redrive: self.redrive.clone(),
            at_ms: now_ms,
            to: None,
        };
        let claimed = self.marks().claim(marked, mark, self.again);
        let before = claimed.map_err(|mark| already(&mark))?;
        let letter = letter.place;
        match here.submit(batch, OPTIONS).await {
            Ok(pending) => Ok(Some(Sent {
                letter,
                target,
                before,
                pending,
            })),
            Err(error) => Err(self.failed(letter, before, error)),
        }
    }

    async fn settle(&self, sent: Sent) -> Result<Place, LetterError> {
        match sent.pending.await {
            Ok(appended) => {
                let to = Place {
                    partition: sent.target,
                    offset: appended.base_offset,
                };
                self.counter.increment();
                self.marks().settle((self.letters.id, sent.letter), to);
                Ok(to)
            }
            Err(error) => Err(self.failed(sent.letter, sent.before, error)),
        }
    }

    fn failed(&self, letter: Place, before: Option<Mark>, error: AppendError) -> LetterError {
        let failed = LetterError::of_write(letter, error);
        if !matches!(failed, LetterError::Unknown { .. }) {
            self.marks().release((self.letters.id, letter), before);
        }
        failed
    }

    fn led(&self, index: PartitionIndex) -> Result<Partition, LetterError> {
        let here = self.registry.get_by_id(self.source.id, index);
        here.filter(Partition::is_leader)
            .ok_or_else(|| LetterError::NotLed {
                topic: self.source.name.to_string(),
                partition: index,
                leader: super::leader_of(&self.source, index),
            })
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn already(mark: &Mark) -> Refusal {
    Refusal::Already {
        redrive: mark.redrive.clone(),
    }
}

/// Whether it is about the letter alone.
pub(crate) fn is_refusal(error: &LetterError) -> bool {
    matches!(error, LetterError::Refused(_))
}
