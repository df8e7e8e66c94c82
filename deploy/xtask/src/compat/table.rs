//! What came out, as two tables: of the clients, a column for each and a row for each feature; of the programs, whose features
//! are their own, a row for each of these. Under them, why something failed.
//!
//! Pure. It must never leave a failure out.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context;

/// What stands around the table on its page.
const BEGIN: &str = "<!-- The table is written by `cargo xtask compat`. -->";
const END: &str = "<!-- End of the table. -->";

/// In which table something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Client,
    Program,
}

/// What became of one feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass,
    Fail(String),
    /// The client has no call for it.
    Absent(String),
}

impl Outcome {
    pub(super) fn read(word: &str, why: &str) -> Option<Self> {
        Some(match word {
            "pass" => Self::Pass,
            "fail" => Self::Fail(why.to_owned()),
            "absent" => Self::Absent(why.to_owned()),
            _ => return None,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Fail(why) => write!(f, "FAIL: {why}"),
            Self::Absent(why) => write!(f, "absent: {why}"),
        }
    }
}

/// One client: its outcomes by feature, and by cluster.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    kind: Kind,
    version: String,
    /// In the order in which they came.
    features: Vec<String>,
    outcomes: BTreeMap<(String, &'static str), Outcome>,
    /// Why it was not run, or not to its end.
    failures: Vec<String>,
}

impl Column {
    pub(super) fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            version: String::new(),
            features: Vec::new(),
            outcomes: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// How the client calls itself.
    pub(super) fn title(&mut self, name: &str, version: &str) {
        (self.name, self.version) = (name.to_owned(), version.to_owned());
    }

    pub(super) fn put(&mut self, feature: &str, cluster: &'static str, outcome: Outcome) {
        if !self.features.iter().any(|known| known == feature) {
            self.features.push(feature.to_owned());
        }
        self.outcomes.insert((feature.to_owned(), cluster), outcome);
    }

    pub(super) fn fail(&mut self, why: &str) {
        self.failures.push(why.to_owned());
    }

    /// Each outcome of a feature, with its cluster.
    fn of<'a>(&'a self, feature: &'a str) -> impl Iterator<Item = (&'static str, &'a Outcome)> {
        let all = self.outcomes.iter();
        all.filter(move |((named, _), _)| named == feature)
            .map(|((_, cluster), outcome)| (*cluster, outcome))
    }
}

/// Cells that passed, and what failed: cells, and clients that were not run to their end.
pub(super) fn totals(columns: &[Column]) -> (usize, usize) {
    let outcomes = || columns.iter().flat_map(|column| column.outcomes.values());
    let passed = outcomes().filter(|outcome| **outcome == Outcome::Pass).count();
    let failed = outcomes()
        .filter(|outcome| matches!(outcome, Outcome::Fail(_)))
        .count();
    let unfinished: usize = columns.iter().map(|column| column.failures.len()).sum();
    (passed, failed + unfinished)
}

/// The tables as Markdown.
pub(super) fn text(columns: &[Column]) -> String {
    let mut notes: Vec<String> = Vec::new();
    let of = |kind: Kind| columns.iter().filter(move |column| column.kind == kind);
    let tables = [
        clients(&of(Kind::Client).collect::<Vec<_>>(), &mut notes),
        programs(&of(Kind::Program).collect::<Vec<_>>(), &mut notes),
    ];
    for column in columns {
        let unfinished = column.failures.iter();
        notes.extend(unfinished.map(|why| format!("{} was not run to its end: {why}", column.name)));
    }
    let notes: String = (1..)
        .zip(&notes)
        .map(|(number, note)| format!("{number}. {note}\n"))
        .collect();
    let parts: Vec<String> = tables.into_iter().flatten().chain([notes]).collect();
    let told: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    told.join("\n")
}

fn clients(columns: &[&Column], notes: &mut Vec<String>) -> Option<String> {
    let mut features: Vec<&str> = Vec::new();
    for feature in columns.iter().flat_map(|column| &column.features) {
        if !features.contains(&feature.as_str()) {
            features.push(feature);
        }
    }
    let mut rows = vec![
        row("", columns.iter().map(|column| column.name.clone())),
        row("---", columns.iter().map(|_| "---".to_owned())),
        row("version", columns.iter().map(|column| column.version.clone())),
    ];
    for feature in features {
        let cells: Vec<_> = columns
            .iter()
            .map(|column| cell(column, feature, notes))
            .collect();
        rows.push(row(feature, cells.into_iter()));
    }
    (!columns.is_empty()).then(|| rows.concat())
}

fn programs(columns: &[&Column], notes: &mut Vec<String>) -> Option<String> {
    let mut rows = vec![
        row(
            "program",
            ["version", "feature", ""].map(str::to_owned).into_iter(),
        ),
        row("---", ["---"; 3].map(str::to_owned).into_iter()),
    ];
    for column in columns {
        for feature in &column.features {
            let cells = [
                column.version.clone(),
                feature.clone(),
                cell(column, feature, notes),
            ];
            rows.push(row(&column.name, cells.into_iter()));
        }
    }
    (!columns.is_empty()).then(|| rows.concat())
}

fn row(first: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<_> = cells.collect();
    format!("| {first} | {} |\n", cells.join(" | "))
}

fn cell(column: &Column, feature: &str, notes: &mut Vec<String>) -> String {
    let (mut fails, mut lacks, mut passed) = (false, false, None);
    for (cluster, outcome) in column.of(feature) {
        let why = match outcome {
            Outcome::Pass => {
                passed = Some(cluster);
                None
            }
            Outcome::Absent(why) => {
                lacks = true;
                Some(format!("{}, {feature}: {why}", column.name))
            }
            Outcome::Fail(why) => {
                fails = true;
                Some(format!("{}, {feature}, {cluster}: {why}", column.name))
            }
        };
        notes.extend(
            why.filter(|why| !notes.contains(why))
                .map(|why| why.replace('|', "/")),
        );
    }
    match (fails, lacks, passed) {
        (true, ..) => "NO".to_owned(),
        (false, true, Some(cluster)) => format!("yes, {cluster}"),
        (false, true, None) => "none".to_owned(),
        (false, false, Some(_)) => "yes".to_owned(),
        (false, false, None) => "-".to_owned(),
    }
}

/// The page with the table in the place of the one before.
pub(super) fn replaced(page: &str, columns: &[Column]) -> anyhow::Result<String> {
    let marks = page.split_once(BEGIN);
    let marks = marks.and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = marks.context("the page has no place for the table")?;
    Ok(format!("{before}{BEGIN}\n\n{}\n{END}{after}", text(columns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let mut good = Column::new("a", Kind::Client);
        good.title("A", "1.0");
        good.put("produce", "one node", Outcome::Pass);
        good.put("produce", "three nodes", Outcome::Pass);
        let mut bad = Column::new("b", Kind::Client);
        bad.put("produce", "one node", Outcome::Pass);
        bad.put("produce", "three nodes", Outcome::Fail("x|y".to_owned()));
        bad.put("admin", "one node", Outcome::Absent("it cannot".to_owned()));
        bad.put("admin", "three nodes", Outcome::Absent("it cannot".to_owned()));
        bad.fail("it crashed");
        vec![good, bad]
    }

    #[test]
    fn a_cell_is_as_bad_as_its_worst_cluster_and_says_why() {
        let expected = "|  | A | b |\n| --- | --- | --- |\n| version | 1.0 |  |\n| produce | yes | NO |\n| admin | - | none |\n\n\
                        1. b, produce, three nodes: x/y\n2. b, admin: it cannot\n3. b was not run to its end: it crashed\n";
        assert_eq!(text(&columns()), expected);
        assert_eq!(totals(&columns()), (3, 2));
    }

    #[test]
    fn what_a_client_can_do_with_one_cluster_only_is_said() {
        let mut column = Column::new("a", Kind::Client);
        column.put("kill", "one node", Outcome::Absent("it ends".to_owned()));
        column.put("kill", "three nodes", Outcome::Pass);
        let mut notes = Vec::new();
        assert_eq!(cell(&column, "kill", &mut notes), "yes, three nodes");
        assert_eq!(notes, ["a, kill: it ends"]);
    }

    #[test]
    fn a_program_has_a_table_with_its_own_features() {
        let mut program = Column::new("p", Kind::Program);
        program.title("P", "2.0");
        program.put("counts", "one node", Outcome::Pass);
        program.put("lists", "one node", Outcome::Fail("it is empty".to_owned()));
        let mut columns = columns();
        columns.truncate(1);
        columns.push(program);
        let expected = "|  | A |\n| --- | --- |\n| version | 1.0 |\n| produce | yes |\n\n\
                        | program | version | feature |  |\n| --- | --- | --- | --- |\n\
                        | P | 2.0 | counts | yes |\n| P | 2.0 | lists | NO |\n\n\
                        1. P, lists, one node: it is empty\n";
        assert_eq!(text(&columns), expected);
    }

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let page = format!("# Clients\n\n{BEGIN}\nold\n{END}\nMore.\n");
        let new = replaced(&page, &columns()).expect("it has a place");
        assert!(
            new.starts_with(&format!("# Clients\n\n{BEGIN}\n\n|  | A | b |\n")),
            "{new}"
        );
        assert!(
            new.ends_with(&format!("crashed\n\n{END}\nMore.\n")) && !new.contains("old"),
            "{new}"
        );
        assert_eq!(replaced(&new, &columns()).expect("it has it still"), new);
        assert!(replaced("nothing", &columns()).is_err());
    }
}
