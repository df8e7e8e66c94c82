//! What happens, as it happens: a line that moves on a terminal, a line per step elsewhere.
//!
//! Owns the terminal's last line while it is shown.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::cli::common::note;
use crate::sys::clock::Clock;

const BAR_CELLS: usize = 24;
/// Without a terminal, a line so often.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells a person, on standard error, how far things are.
#[derive(Debug)]
pub(super) struct Progress {
    clock: Clock,
    begun: Instant,
    terminal: bool,
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            begun: clock.now(),
            clock,
            terminal: io::stderr().is_terminal(),
            shown: false,
            last: None,
        }
    }

    /// A step was taken.
    pub(super) fn step(&mut self, text: &str) {
        self.clear();
        note(&format!("{:>6.1} s  {text}", self.seconds()));
        self.last = None;
    }

    /// Where the running step is; `part` of it, from 0 to 1, is done.
    pub(super) fn bar(&mut self, part: f64, text: &str) {
        let now = self.clock.now();
        if !self.terminal
            && self
                .last
                .is_some_and(|last| now.saturating_duration_since(last) < PAUSE)
        {
            return;
        }
        self.last = Some(now);
        let line = format!("{:>6.1} s  {}  {text}", self.seconds(), cells(part));
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
            let _ = io::stderr().flush();
            self.shown = true;
        } else {
            note(&line);
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.clock
            .now()
            .saturating_duration_since(self.begun)
            .as_secs_f64()
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn cells(part: f64) -> String {
    let full = ((part.clamp(0.0, 1.0) * BAR_CELLS as f64).floor() as usize).min(BAR_CELLS);
    format!(
        "[{}{}] {:>3.0} %",
        "#".repeat(full),
        "-".repeat(BAR_CELLS - full),
        part.clamp(0.0, 1.0) * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_up() {
        assert_eq!(cells(0.0), format!("[{}]   0 %", "-".repeat(24)));
        assert_eq!(
            cells(0.5),
            format!("[{}{}]  50 %", "#".repeat(12), "-".repeat(12))
        );
        assert_eq!(cells(7.0), format!("[{}] 100 %", "#".repeat(24)));
    }
}
