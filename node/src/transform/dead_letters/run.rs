//! The task of one redrive: reads the letters of its range, writes them back no faster than it was told, says how far it is.
//! It ends at its range's end, when it is cancelled, and at the first write that fails for another reason than the letter.

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::Offset;
use tokio_util::sync::CancellationToken;

use super::error::LetterError;
use super::letter::DeadLetter;
use super::rebuild::Edit;
use super::redrive::{RedriveState, Shown, Span};
use super::scan::Scan;
use super::write::Writer;
use crate::metadata::View;
use crate::sys::clock::Clock;

/// Letters are written as many at once as fit this share of a second.
const BURSTS_PER_SECOND: u32 = 10;

/// What a redrive works with.
pub(crate) struct Run {
    pub(crate) shown: Arc<Shown>,
    pub(crate) writer: Writer,
    /// One for each span of the redrive, in its order.
    pub(crate) scans: Vec<Scan>,
    pub(crate) view: View,
    pub(crate) clock: Clock,
    /// The node stops.
    pub(crate) stopping: CancellationToken,
    /// Set by whoever cancels it.
    pub(crate) cancel: CancellationToken,
    pub(crate) rate: u32,
    pub(crate) limit: Option<u64>,
}

impl Run {
    pub(crate) async fn run(self) {
        let begun = self.shown.now();
        tracing::info!(redrive = begun.id, transform = begun.transform, "redrive begun");
        let (state, error) = match self.work(&begun.spans).await {
            Ok(()) if self.is_cancelled() => (RedriveState::Cancelled, None),
            Ok(()) => (RedriveState::Done, None),
            Err(error) => (RedriveState::Failed, Some(error.to_string())),
        };
        let now_ms = self.clock.unix_ms();
        let redriven = self.shown.change(|redrive| {
            redrive.end(state, error.clone(), now_ms);
            redrive.redriven
        });
        tracing::info!(
            redrive = begun.id,
            transform = begun.transform,
            ?state,
            redriven,
            error,
            "redrive ended"
        );
    }

    /// Returns at the end of the range, or when it is cancelled.
    async fn work(&self, spans: &[Span]) -> Result<(), LetterError> {
        for (span, scan) in spans.iter().zip(&self.scans) {
            let mut at = span.from;
            while at < span.until {
                if self.is_over() {
                    return Ok(());
                }
                let step = scan.step(at, span.until).await?;
                if !self.deal_with(&step.letters).await? {
                    return Ok(());
                }
                at = step.next;
                self.reach(span, at);
            }
        }
        Ok(())
    }

    /// Whether all of them were dealt with.
    async fn deal_with(&self, letters: &[DeadLetter]) -> Result<bool, LetterError> {
        let mut rest = letters;
        while let Some(first) = rest.first() {
            if self.is_over() {
                return Ok(false);
            }
            self.check_unchanged()?;
            let (burst, behind) = rest.split_at(self.burst().min(rest.len()));
            let begun = self.clock.now();
            let written = self.write(burst).await?;
            rest = behind;
            let done = rest.first().map_or_else(
                || {
                    burst
                        .last()
                        .map_or(first.place.offset, |it| it.place.offset)
                        .plus(1)
                },
                |it| it.place.offset,
            );
            self.shown
                .change(|redrive| redrive.reach(first.place.partition, done));
            let pause = Duration::from_secs_f64(written as f64 / f64::from(self.rate.max(1)));
            let pause = pause.saturating_sub(self.clock.now().saturating_duration_since(begun));
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {}
                () = self.cancel.cancelled() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
        Ok(true)
    }

    /// How many were written, which is what a rate counts.
    async fn write(&self, letters: &[DeadLetter]) -> Result<usize, LetterError> {
        let written = self.writer.write(letters, &Edit::default()).await;
        let (mut count, mut failed) = (0, None);
        self.shown.change(|redrive| {
            for (letter, written) in letters.iter().zip(written) {
                match written {
                    Ok(to) => {
                        redrive.redriven += 1;
                        redrive.last = to.or(redrive.last);
                        count += usize::from(to.is_some());
                    }
                    Err(LetterError::Refused(why)) => redrive.pass(why, letter.place),
                    Err(error) => failed = failed.take().or(Some(error)),
                }
            }
        });
        failed.map_or(Ok(count), Err)
    }

    fn is_over(&self) -> bool {
        let is_full = |limit: u64| self.shown.look(|redrive| redrive.redriven >= limit);
        self.is_cancelled() || self.limit.is_some_and(is_full)
    }

    fn is_cancelled(&self) -> bool {
        self.stopping.is_cancelled() || self.cancel.is_cancelled()
    }

    /// As many as may be written at once.
    fn burst(&self) -> usize {
        let burst = u64::from(self.rate / BURSTS_PER_SECOND).max(1);
        let left = |limit: u64| self.shown.look(|redrive| limit.saturating_sub(redrive.redriven));
        let burst = self.limit.map_or(burst, |limit| burst.min(left(limit)));
        usize::try_from(burst).unwrap_or(1).max(1)
    }

    /// A transform that was replaced may read another topic, for which these letters are not meant.
    fn check_unchanged(&self) -> Result<(), LetterError> {
        let image = self.view.image();
        let transform = self.shown.look(|redrive| redrive.transform.clone());
        let is_same = image.transforms.get(&transform).is_some_and(|now| {
            let is = |name: &str, id| image.topic(name).is_some_and(|topic| topic.id == id);
            is(&now.source, self.writer.source.id) && is(&now.dead_letter, self.writer.letters.id)
        });
        if is_same {
            Ok(())
        } else {
            Err(LetterError::Changed)
        }
    }

    fn reach(&self, span: &Span, position: Offset) {
        self.shown
            .change(|redrive| redrive.reach(span.partition, position));
    }
}
