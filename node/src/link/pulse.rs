//! Whether the far end still hears us: the judgement that makes an edge dial anew long before QUIC gives up.
//!
//! QUIC waits ever longer between its own retries, so after a cut of a minute it may rest for another minute although
//! the way is open again. The edge therefore watches what it sends and hears, and begins to dial in parallel as soon as
//! something that must be answered stays unanswered. Pure: readings of counters in, a verdict out.

/// Readings of one connection's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub frames_received: u64,
    /// Frames sent that the peer must acknowledge.
    pub eliciting_sent: u64,
    pub rtt_ms: u64,
}

/// What to think of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything sent was followed by something heard.
    Alive,
    /// Something waits for its acknowledgement, not for long yet.
    Waiting,
    /// It waited too long: the way is probably cut.
    Suspect,
}

/// The least time an acknowledgement is given: a delayed acknowledgement takes 25 ms, a busy gateway a few hundred.
const PATIENCE_MS: u64 = 500;
/// How many round trips an acknowledgement may take.
const PATIENCE_ROUND_TRIPS: u64 = 4;

/// Watches one connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last: Reading,
    /// How many eliciting frames had been sent when something was last heard.
    answered: u64,
    /// Since when something waits, in ms of the monotonic clock.
    waiting_since: Option<u64>,
}

impl Pulse {
    /// Takes a reading at `now_ms` of the monotonic clock.
    pub(super) fn read(&mut self, reading: Reading, now_ms: u64) -> Verdict {
        let heard = reading.frames_received != self.last.frames_received;
        self.last = reading;
        if heard {
            self.answered = reading.eliciting_sent;
            self.waiting_since = None;
        }
        if reading.eliciting_sent == self.answered {
            return Verdict::Alive;
        }
        let since = *self.waiting_since.get_or_insert(now_ms);
        let patience = PATIENCE_MS.max(reading.rtt_ms.saturating_mul(PATIENCE_ROUND_TRIPS));
        if now_ms.saturating_sub(since) >= patience {
            Verdict::Suspect
        } else {
            Verdict::Waiting
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step: time, bytes received, eliciting frames sent, round trip; what must come out.
    fn check(steps: &[(u64, u64, u64, u64, Verdict)]) {
        let mut pulse = Pulse::default();
        for (i, &(now_ms, frames_received, eliciting_sent, rtt_ms, expected)) in steps.iter().enumerate() {
            let verdict = pulse.read(
                Reading {
                    frames_received,
                    eliciting_sent,
                    rtt_ms,
                },
                now_ms,
            );
            assert_eq!(verdict, expected, "step {i} at {now_ms} ms");
        }
    }

    #[test]
    fn silence_without_a_question_is_no_sign() {
        use Verdict::Alive;
        check(&[
            (0, 100, 5, 1, Alive),
            (60_000, 100, 5, 1, Alive),
            (600_000, 100, 5, 1, Alive),
        ]);
    }

    #[test]
    fn a_question_without_an_answer_is_a_cut() {
        use Verdict::{Alive, Suspect, Waiting};
        check(&[
            (0, 100, 5, 1, Alive),
            (250, 100, 9, 1, Waiting),
            (500, 100, 20, 1, Waiting),
            (750, 100, 30, 1, Suspect),
            // The answer comes after all.
            (1000, 140, 30, 1, Alive),
        ]);
    }

    #[test]
    fn a_slow_path_is_given_its_round_trips() {
        use Verdict::{Alive, Suspect, Waiting};
        check(&[
            (0, 100, 5, 600, Alive),
            (250, 100, 6, 600, Waiting),
            (2400, 100, 6, 600, Waiting),
            (2650, 100, 6, 600, Suspect),
        ]);
    }
}
