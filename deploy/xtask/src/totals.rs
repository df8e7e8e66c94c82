//! What the test runners said about themselves: reads their closing lines and adds them up.
//!
//! It owns no policy but one: a runner that failed without naming a failure counts as one failure.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed and were left out, by the runners' own words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Totals {
    /// Makes sure that a runner which ended badly is seen, whatever it printed.
    pub(crate) fn seen(mut self, succeeded: bool) -> Self {
        if !succeeded && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

/// Sums cargo's `test result:` lines.
pub(crate) fn of_cargo(output: &str) -> Totals {
    let mut totals = Totals::default();
    for line in plain(output).lines() {
        let Some((_, counts)) = line.split_once("test result: ") else {
            continue;
        };
        for part in counts.split(['.', ';']) {
            count(part, &mut totals);
        }
    }
    totals
}

/// Sums the simulator's `sim result:` and `meta result:` lines.
pub(crate) fn of_sim(output: &str) -> Totals {
    let mut totals = Totals::default();
    for line in plain(output).lines() {
        if let Some((_, counts)) = line.split_once(" result: ") {
            counts.split(';').for_each(|part| count(part, &mut totals));
        }
    }
    totals
}

/// Reads Vitest's `Tests  2 failed | 5 passed (7)` line.
pub(crate) fn of_vitest(output: &str) -> Totals {
    let mut totals = Totals::default();
    for line in plain(output).lines() {
        let Some(counts) = line.trim_start().strip_prefix("Tests ") else {
            continue;
        };
        for part in counts.split('|') {
            count(part, &mut totals);
        }
    }
    totals
}

/// Reads Playwright's closing lines: `2 failed`, `1 flaky`, `12 passed (3.4s)`. A flaky test is a failed one.
pub(crate) fn of_playwright(output: &str) -> Totals {
    let mut totals = Totals::default();
    for line in plain(output).lines() {
        count(line, &mut totals);
    }
    totals
}

/// Adds `N word` where the word is one we know and the line begins so.
fn count(part: &str, totals: &mut Totals) {
    let mut words = part.split_whitespace();
    let Some(Ok(number)) = words.next().map(str::parse::<u64>) else {
        return;
    };
    match words.next() {
        Some("passed") => totals.passed += number,
        Some("failed" | "flaky" | "interrupted") => totals.failed += number,
        Some("ignored" | "skipped" | "todo") => totals.ignored += number,
        _ => {}
    }
}

/// The text without terminal colours.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // An escape sequence ends with its first letter.
            let _ = rest.find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_lines_are_summed() {
        let output = "running 2 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out\n";
        assert_eq!(
            of_cargo(output),
            Totals {
                passed: 4,
                failed: 2,
                ignored: 1
            }
        );
    }

    #[test]
    fn lines_of_the_simulator_are_summed() {
        let output =
            "seed 1 ok, 6 s: acks=292\nsim result: 3 passed; 1 failed\nmeta result: 2 passed; 0 failed\n";
        assert_eq!(
            of_sim(output),
            Totals {
                passed: 5,
                failed: 1,
                ignored: 0
            }
        );
    }

    #[test]
    fn vitest_and_playwright_are_read_through_their_colours() {
        let vitest = " \u{1b}[2m Test Files \u{1b}[22m 1 passed (1)\n \u{1b}[2m     Tests \u{1b}[22m \u{1b}[31m2 failed\u{1b}[39m | 5 passed (7)\n";
        assert_eq!(
            of_vitest(vitest),
            Totals {
                passed: 5,
                failed: 2,
                ignored: 0
            }
        );
        let playwright = "  1 failed\n    [chromium] \u{203a} a.spec.ts:3:1 \u{203a} 2 passed\n  1 skipped\n  12 passed (3.4s)\n";
        assert_eq!(
            of_playwright(playwright),
            Totals {
                passed: 12,
                failed: 1,
                ignored: 1
            }
        );
    }

    #[test]
    fn a_failed_runner_is_never_a_pass() {
        assert_eq!(of_cargo("error: could not compile").seen(false).failed, 1);
        assert_eq!(
            Totals {
                passed: 1,
                failed: 3,
                ignored: 0
            }
            .seen(false)
            .failed,
            3
        );
    }
}
