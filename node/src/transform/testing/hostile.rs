//! Hostile modules: what each of them does, and what must come of it, whoever runs them.

use super::text::Guest;
use crate::metadata::World;

/// The records that are given to each. It misbehaves at those that begin with `!`.
pub(crate) const BAD: [usize; 2] = [3, 8];
pub(crate) const RECORDS: usize = 12;

pub(crate) fn records() -> Vec<String> {
    let value = |index| match BAD.contains(&index) {
        true => format!("!{}", "x".repeat(7)),
        false => format!("v{index}"),
    };
    (0..RECORDS).map(value).collect()
}

/// The limits that they are run with.
pub(crate) const MEMORY_BYTES: u64 = 4 << 20;
pub(crate) const CPU_MS: u64 = 20;
pub(crate) const OUTPUT_BYTES: u64 = 64 << 10;
pub(crate) const STATE_BYTES: usize = 1 << 20;

/// What becomes of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// All are sent.
    Passes,
    /// Those it misbehaves at are dead letters, for this reason.
    Fails(&'static str),
    /// All are, because it never behaves.
    AllFail(&'static str),
    /// The module is stopped, and nothing is written off.
    Stops,
}

impl Fate {
    /// The values that are sent, and the offsets of the dead letters. Of a module that stops, all that may be sent.
    pub(crate) fn expected(self) -> (Vec<String>, Vec<i64>) {
        let is_bad = |index: &usize| BAD.contains(index);
        let (sent, lost): (Vec<usize>, Vec<usize>) = match self {
            Self::Passes => ((0..RECORDS).collect(), Vec::new()),
            Self::Fails(_) => (0..RECORDS).partition(|index| !is_bad(index)),
            Self::AllFail(_) => (Vec::new(), (0..RECORDS).collect()),
            Self::Stops => ((0..BAD[0]).collect(), Vec::new()),
        };
        let values = records();
        let sent = sent.into_iter().map(|index| values[index].clone());
        (
            sent.collect(),
            lost.into_iter().map(|index| index as i64).collect(),
        )
    }

    /// The reason that the dead letters have.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Fails(reason) | Self::AllFail(reason) => reason,
            Self::Passes | Self::Stops => "",
        }
    }
}

/// One module.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    world: World,
    /// What it does when a record of its batch begins with `!`.
    does: &'static str,
    more: &'static str,
    /// It does it whatever the records are.
    is_always: bool,
    /// What it does then after its answer was taken.
    after: &'static str,
    pub(crate) fate: Fate,
    /// A part of why.
    pub(crate) words: &'static str,
}

impl Case {
    /// The module as text's parts. They are leaked, as the cases are few.
    pub(crate) fn guest(&self) -> Guest<'static> {
        let at_bad = |does: &str| -> &'static str {
            if does.is_empty() {
                return "";
            }
            format!("(if (i32.ge_s (global.get $bad) (i32.const 0)) (then {does}))").leak()
        };
        let call = if self.is_always {
            self.does
        } else {
            at_bad(self.does)
        };
        Guest {
            world: self.world,
            call,
            after: at_bad(self.after),
            more: self.more,
            ..Guest::map("")
        }
    }

    /// For a file or a transform.
    pub(crate) fn plain_name(&self) -> String {
        let words = self.name.split(|letter: char| !letter.is_ascii_alphanumeric());
        words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
    }

    const fn new(name: &'static str, does: &'static str, fate: Fate, words: &'static str) -> Self {
        Self {
            name,
            world: World::Map,
            does,
            more: "",
            is_always: false,
            after: "",
            fate,
            words,
        }
    }

    const fn filter(name: &'static str, does: &'static str, words: &'static str) -> Self {
        Self {
            world: World::Filter,
            ..Self::new(name, does, Fate::Fails("bad-answer"), words)
        }
    }

    /// Its answer breaks the contract.
    const fn answer(name: &'static str, does: &'static str, more: &'static str, words: &'static str) -> Self {
        Self {
            more,
            ..Self::new(name, does, Fate::Fails("bad-answer"), words)
        }
    }

    const fn with(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    const fn afterwards(name: &'static str, after: &'static str, fate: Fate) -> Self {
        Self {
            after,
            ..Self::new(name, "", fate, "")
        }
    }

    const fn always(name: &'static str, does: &'static str, fate: Fate) -> Self {
        Self {
            is_always: true,
            ..Self::new(name, does, fate, "")
        }
    }
}

const TRAP: Fate = Fate::Fails("trap");
const TIMEOUT: Fate = Fate::Fails("timeout");
const MEMORY: Fate = Fate::Fails("memory");
const TOO_LARGE: Fate = Fate::Fails("output-too-large");

/// Answers with so many bytes that stand at 3072.
macro_rules! bytes {
    ($count:literal) => {
        concat!(
            "(return (call $answer (i32.const 3072) (i32.const ",
            $count,
            ") (i32.const 0) (i32.const 0)))"
        )
    };
}

/// Answers with no outputs, and so many failures that stand there.
macro_rules! failures {
    ($at:literal, $count:literal) => {
        concat!(
            "(return (call $answer (i32.const 0) (i32.const 4) (i32.const ",
            $at,
            ") (i32.const ",
            $count,
            ")))"
        )
    };
}

macro_rules! data {
    ($bytes:literal) => {
        concat!("(data (i32.const 3072) \"", $bytes, "\")")
    };
}

pub(crate) const RUNNING: &[Case] = &[
    // Time and depth.
    Case::new("loops", "(loop $on (br $on))", TIMEOUT, "more than its 20 ms"),
    Case::new("recurses", "(drop (call $deep (i32.const 1)))", TRAP, "call stack exhausted")
        .with("(func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))"),
    Case::new("recurses by a table", "(drop (call $deep (i32.const 1)))", TRAP, "call stack exhausted").with(
        "(table 1 1 funcref) (elem (i32.const 0) $deep) (type $one (func (param i32) (result i32)))
         (func $deep (param i32) (result i32)
           (i32.add (call_indirect (type $one) (local.get 0) (i32.const 0)) (i32.const 1)))",
    ),
    Case::new("calls itself last", "(drop (call $on (i32.const 1)))", TIMEOUT, "")
        .with("(func $on (param i32) (result i32) (return_call $on (local.get 0)))"),
    // Memory.
    Case::new(
        "allocates for ever",
        "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
        MEMORY,
        "more than its 4194304 bytes",
    ),
    Case::new("wants it all", "(drop (memory.grow (i32.const 60000))) unreachable", MEMORY, ""),
    Case::new("takes no for an answer", "(drop (memory.grow (i32.const 60000)))", Fate::Passes, ""),
    Case::new("reads beyond", "(drop (i32.load (i32.const -4)))", TRAP, "out of bounds"),
    Case::new("writes beyond", "(i64.store (i32.const 0x7fffffff) (i64.const 1))", TRAP, "out of bounds"),
    Case::new("fills beyond", "(memory.fill (i32.const 0) (i32.const 1) (i32.const -1))", TRAP, "out of bounds"),
    // Traps.
    Case::new("gives up", "unreachable", TRAP, "unreachable"),
    Case::new("divides by zero", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", TRAP, "divide by zero"),
    Case::new("makes a number of a NaN", "(drop (i32.trunc_f32_s (f32.const nan)))", TRAP, "conversion to integer"),
    Case::new("calls nothing", "(call_indirect (i32.const 0))", TRAP, "uninitialized element")
        .with("(table 1 1 funcref)"),
    Case::new("calls something else", "(call_indirect (i32.const 0))", TRAP, "type mismatch")
        .with("(table 1 1 funcref) (elem (i32.const 0) $walk)"),
    // An answer that lies nowhere.
    Case::new("answers nowhere", "(return (i32.const -8))", TRAP, "out of"),
    Case::new("answers between words", "(return (i32.const 1105))", TRAP, "aligned"),
    Case::new(
        "outputs lie nowhere",
        "(return (call $answer (i32.const -65536) (i32.const 100) (i32.const 0) (i32.const 0)))",
        TRAP,
        "out of",
    ),
    Case::new(
        "outputs have no end",
        "(return (call $answer (i32.const 1024) (i32.const -1) (i32.const 0) (i32.const 0)))",
        TRAP,
        "out of",
    ),
    Case::new("failures lie nowhere", failures!("-65536", "10"), TRAP, "out of"),
    Case::new("failures have no end", failures!("3072", "-1"), TRAP, ""),
    Case::new("failures lie between words", failures!("3073", "1"), TRAP, "aligned"),
    Case::new("a failure's message lies nowhere", failures!("3072", "1"), TRAP, "out of")
        .with(data!("\\00\\00\\00\\00\\00\\00\\ff\\ff\\10\\00\\00\\00")),
    Case::new("a failure's message is no text", failures!("3072", "1"), TRAP, "utf-8")
        .with(data!("\\00\\00\\00\\00\\0c\\0c\\00\\00\\01\\00\\00\\00\\ff")),
    // An answer that breaks the contract.
    Case::answer("fails for nobody", failures!("3072", "1"), data!("\\63\\00\\00\\00"), "name record 99"),
    Case::answer("fails twice", failures!("3072", "2"), "", "ascending order"),
    Case::answer("answers nothing at all", bytes!("0"), "", "cut short"),
    Case::answer("counts more than there is", bytes!("4"), data!("\\ff\\ff\\ff\\ff"), "cut short"),
    Case::answer("counts less than there is", bytes!("9"), "", "follow the last part"),
    Case::answer("answers for nobody", bytes!("9"), data!("\\01\\00\\00\\00\\63"), "names input 99"),
    Case::answer(
        "knows other parts",
        bytes!("9"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\e0"),
        "unknown parts",
    ),
    Case::answer(
        "names the second topic first",
        bytes!("11"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\01\\02\\00"),
        "topic number 2",
    ),
    Case::answer(
        "sends to a topic without a name",
        bytes!("12"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\01\\01\\00\\00"),
        "no valid topic name",
    ),
    Case::answer(
        "sends to the dead letters",
        bytes!("16"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\01\\01\\00\\08dead"),
        "not among the transform's sinks",
    ),
    Case::answer(
        "sends to a topic that is no text",
        bytes!("13"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\01\\01\\00\\02\\ff"),
        "no valid topic name",
    ),
    Case::answer(
        "has a value longer than the answer",
        bytes!("14"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\08\\fe\\ff\\ff\\ff\\0f"),
        "cut short",
    ),
    Case::answer(
        "has a value of negative length",
        bytes!("10"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\08\\03"),
        "negative length -2",
    ),
    Case::answer(
        "has a length without end",
        bytes!("15"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\08\\ff\\ff\\ff\\ff\\ff\\ff"),
        "varint too long",
    ),
    Case::answer(
        "has more headers than bytes",
        bytes!("14"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\10\\fe\\ff\\ff\\ff\\0f"),
        "cut short",
    ),
    Case::answer(
        "has a header without a name",
        bytes!("12"),
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\10\\02\\01\\00"),
        "name is missing",
    ),
    Case::answer(
        "answers for what has failed",
        "(return (call $answer (i32.const 3072) (i32.const 9) (i32.const 0) (i32.const 1)))",
        data!("\\01\\00\\00\\00\\00\\00\\00\\00\\00"),
        "has failed and has an output",
    ),
    // Bombs.
    Case::new(
        "answers too much",
        "(return (call $answer (i32.const 0) (i32.const 100000) (i32.const 0) (i32.const 0)))",
        TOO_LARGE,
        "larger than 65536 bytes",
    ),
    Case::new("repeats a record", "(return (call $repeat))", TOO_LARGE, "makes are larger than").with(
        "(func $repeat (result i32)
           (local $out i32)
           (local.set $out (call $realloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 50004)))
           (memory.fill (local.get $out) (i32.const 0) (i32.const 50004))
           (i32.store (local.get $out) (i32.const 10000))
           (call $answer (local.get $out) (i32.const 50004) (i32.const 0) (i32.const 0)))",
    ),
    // The log.
    Case::new("logs at no level", "(call $log (i32.const 99) (i32.const 0) (i32.const 1))", TRAP, ""),
    Case::new("logs what is not there", "(call $log (i32.const 0) (i32.const -9) (i32.const 99))", TRAP, "out of"),
    Case::new("logs what is no text", "(call $log (i32.const 0) (i32.const 3072) (i32.const 1))", TRAP, "utf-8")
        .with(data!("\\ff")),
    Case::new("logs a long line", "(call $log (i32.const 1) (i32.const 8192) (i32.const 50000))", Fate::Passes, ""),
    Case::new(
        "floods the log",
        "(local.set $a (i32.const 1000))
         (loop $on
           (call $log (i32.const 1) (i32.const 2048) (i32.const 7))
           (br_if $on (local.tee $a (i32.sub (local.get $a) (i32.const 1)))))",
        Fate::Passes,
        "",
    ),
    Case::new(
        "logs for ever",
        "(loop $on (call $log (i32.const 1) (i32.const 2048) (i32.const 7)) (br $on))",
        TIMEOUT,
        "",
    ),
    // State and tables.
    Case::new("puts nothing", "(call $put_many (i32.const 0) (i32.const 0))", TRAP, "items buffer is malformed"),
    Case::new("puts what is not there", "(call $put_many (i32.const -9) (i32.const 99))", TRAP, "out of"),
    Case::new("puts a key without a value", "(call $put_many (i32.const 3072) (i32.const 5))", TRAP, "without a value")
        .with(data!("\\01")),
    Case::new("puts a value without a key", "(call $put_many (i32.const 3072) (i32.const 6))", TRAP, "no key")
        .with(data!("\\02\\00\\00\\00\\01\\00")),
    Case::new(
        "puts, and gives up",
        "(call $put_many (i32.const 3072) (i32.const 6)) unreachable",
        TRAP,
        "unreachable",
    )
    .with(data!("\\02\\00\\00\\00\\00\\00")),
    Case::new(
        "puts a million empty entries",
        "(drop (memory.grow (i32.const 32)))
         (i32.store (i32.const 131072) (i32.const 2000000))
         (call $put_many (i32.const 131072) (i32.const 2000004))",
        Fate::Stops,
        "state needs more than 1048576 bytes",
    ),
    Case::new(
        "puts for ever",
        "(loop $on
           (i32.store (i32.const 3077) (local.tee $a (i32.add (local.get $a) (i32.const 1))))
           (call $put_many (i32.const 3072) (i32.const 1011)) (br $on))",
        Fate::Stops,
        "state needs more than 1048576 bytes",
    )
    .with(data!("\\02\\00\\00\\00\\08\\00\\00\\00\\00\\d0\\0f")),
    Case::new(
        "asks for two million keys",
        "(drop (memory.grow (i32.const 32)))
         (i32.store (i32.const 131072) (i32.const 2000000))
         (loop $on (call $get_many (i32.const 131072) (i32.const 2000004) (i32.const 1120)) (call $reset) (br $on))",
        TIMEOUT,
        "",
    ),
    Case::new(
        "asks for keys that are not there",
        "(call $get_many (i32.const -9) (i32.const 99) (i32.const 1120))",
        TRAP,
        "",
    ),
    Case::new(
        "has the answer put nowhere",
        "(call $get_many (i32.const 0) (i32.const 4) (i32.const -4))",
        TRAP,
        "out of",
    ),
    Case::new(
        "scans backwards",
        "(call $scan (i32.const 2048) (i32.const 7) (i32.const 2064) (i32.const 1) (i32.const -1) (i32.const 1120))",
        Fate::Passes,
        "",
    ),
    Case::new("opens no table", "(call $open (i32.const 2048) (i32.const 7) (i32.const 1120))", Fate::Passes, ""),
    Case::new(
        "opens a table whose name has no end",
        "(drop (memory.grow (i32.const 16)))
         (memory.fill (i32.const 131072) (i32.const 1) (i32.const 1048576))
         (call $open (i32.const 131072) (i32.const 1048576) (i32.const 1120))",
        Fate::Passes,
        "",
    ),
    Case::new(
        "looks into no table",
        "(call $look (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 1120))",
        TRAP,
        "unknown handle",
    ),
    Case::new("closes what it did not open", "(call $close (i32.const 1))", TRAP, "unknown handle"),
    // When it fails.
    Case::always(
        "gives up at every third call of an instance",
        "(if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))",
        Fate::Passes,
    ),
    Case::always("never behaves", "unreachable", Fate::AllFail("trap")),
    Case::afterwards("gives up after its answer", "unreachable", TRAP),
    Case::afterwards("loops after its answer", "(loop $on (br $on))", TIMEOUT),
    // Verdicts.
    Case::filter(
        "says one verdict too few",
        "(return (call $keep (i32.sub (global.get $count) (i32.const 1))))",
        "verdicts for",
    ),
    Case::filter(
        "says one verdict too many",
        "(return (call $keep (i32.add (global.get $count) (i32.const 1))))",
        "verdicts for",
    ),
    Case::filter(
        "says a verdict that is none",
        "(drop (call $keep (global.get $count)))
         (i32.store8 (i32.add (i32.load (i32.const 1104)) (global.get $bad)) (i32.const 3)) (return (i32.const 1104))",
        "must be 0 (drop), 1 (keep) or 2 (failed)",
    ),
    Case::filter(
        "says a verdict without a failure",
        "(drop (call $keep (global.get $count)))
         (i32.store8 (i32.add (i32.load (i32.const 1104)) (global.get $bad)) (i32.const 2)) (return (i32.const 1104))",
        "a failure, but not both",
    ),
    Case::filter(
        "says a failure without a verdict",
        "(drop (call $keep (global.get $count))) (i32.store (i32.const 1116) (i32.const 1)) (return (i32.const 1104))",
        "a failure, but not both",
    ),
];

/// Modules that cannot be set up.
pub(crate) const UNWILLING: &[(&str, Guest<'static>, &str)] = &[
    (
        "gives up",
        configured("unreachable"),
        "failed while it was set up: the module trapped",
    ),
    ("loops", configured("(loop $on (br $on))"), "more than its 20 ms"),
    (
        "refuses at length",
        configured(
            "(i32.store (i32.const 1088) (i32.const 1)) (i32.store (i32.const 1092) (i32.const 8192))
             (i32.store (i32.const 1096) (i32.const 57344))",
        ),
        "refuses its parameters",
    ),
    (
        "refuses by what is not there",
        configured(
            "(i32.store (i32.const 1088) (i32.const 1)) (i32.store (i32.const 1092) (i32.const -9))
             (i32.store (i32.const 1096) (i32.const 99))",
        ),
        "trapped",
    ),
    (
        "answers neither",
        configured("(i32.store (i32.const 1088) (i32.const 7))"),
        "trapped",
    ),
];

const fn configured(configure: &'static str) -> Guest<'static> {
    Guest {
        configure,
        ..Guest::map("")
    }
}
