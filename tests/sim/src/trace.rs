//! What happened, one line an event: virtual time, who, what. Two runs of one seed write the same lines.
//!
//! Owns the output and the bridge from the node's own log lines. It must never write a fact of the real machine: no real
//! time, no address of memory.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::reached;

/// How much is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// Nothing; the last lines are kept for a failure.
    Quiet,
    /// What the simulator does and what nodes warn of.
    Story,
    /// Everything: each message, each call of a disk, each log line.
    Full,
}

/// Lines kept for a failure.
const LAST_LINES: usize = 200;

/// The trace of one run. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    inner: Arc<Mutex<Inner>>,
    detail: Detail,
}

#[derive(Debug)]
struct Inner {
    now: Duration,
    host: Arc<str>,
    lines: u64,
    last: VecDeque<String>,
    /// How often nodes wrote certain lines.
    marks: BTreeMap<&'static str, u64>,
}

impl Trace {
    pub(crate) fn new(detail: Detail) -> Self {
        let inner = Inner {
            now: Duration::ZERO,
            host: "world".into(),
            lines: 0,
            last: VecDeque::new(),
            marks: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            detail,
        }
    }

    /// Takes the log lines of every node in this process from now on.
    pub(crate) fn take_logs(&self) {
        let layer = Logs(self.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).expect("a process runs one world");
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is from now on, and what time it is.
    pub(crate) fn turn(&self, host: &Arc<str>, now: Duration) {
        let mut inner = self.lock();
        inner.host = Arc::clone(host);
        inner.now = now;
    }

    pub(crate) fn detail(&self) -> Detail {
        self.detail
    }

    /// Writes a line of the story.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        self.line(Detail::Story, what);
    }

    /// Writes a line that only a full trace has.
    pub(crate) fn detail_line(&self, what: impl fmt::Display) {
        if self.detail == Detail::Full {
            self.line(Detail::Full, what);
        }
    }

    fn line(&self, detail: Detail, what: impl fmt::Display) {
        let mut inner = self.lock();
        inner.lines += 1;
        let us = inner.now.as_micros();
        let line = format!(
            "{:>5}.{:06} {:<8} {what}",
            us / 1_000_000,
            us % 1_000_000,
            inner.host
        );
        if self.detail >= detail {
            // A reader that went away has seen enough.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
        if inner.last.len() == LAST_LINES {
            inner.last.pop_front();
        }
        inner.last.push_back(line);
    }

    fn mark(&self, what: &'static str) {
        *self.lock().marks.entry(what).or_default() += 1;
    }

    /// Whether a node wrote a line that has this counter.
    pub(crate) fn has_mark(&self, what: &'static str) -> bool {
        self.lock().marks.contains_key(what)
    }

    /// How often nodes wrote the lines that are counted.
    pub(crate) fn marks(&self) -> BTreeMap<&'static str, u64> {
        self.lock().marks.clone()
    }

    /// The newest lines of the story, for a failure of a quiet run.
    pub(crate) fn last(&self, count: usize) -> Vec<String> {
        let inner = self.lock();
        let skipped = inner.last.len().saturating_sub(count);
        inner.last.iter().skip(skipped).cloned().collect()
    }
}

/// The nodes' log lines as lines of the trace.
struct Logs(Trace);

impl<S: Subscriber> Layer<S> for Logs {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        let is_wanted = match self.0.detail {
            Detail::Full => true,
            Detail::Quiet | Detail::Story => *meta.level() <= Level::INFO,
        };
        // The Raft library prints the machine's own instants, which no two runs share.
        match is_wanted && !meta.target().starts_with("openraft") {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let level = *meta.level();
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(mark) = reached::mark_of(&fields.message) {
            self.0.mark(mark);
        }
        let Fields { message, others } = fields;
        let text = format!("log {level} {}: {message}{others}", meta.target());
        match level {
            Level::ERROR | Level::WARN => self.0.say(text),
            _ => self.0.detail_line(text),
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.others, " {}={value}", field.name());
    }
}
