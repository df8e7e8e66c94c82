//! Judges what pipelines made of what they were fed: the rows that somebody else computed against those that a reader of
//! committed records finds in the end.
//!
//! Owns the books of any number of tables. It knows nothing of what a row says: equal texts are equal rows. It must never
//! take a table for right of which nothing was wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use serde::Deserialize;

use crate::each_line;
use crate::verdict::Findings;

/// A line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Entry {
    /// A table is judged; its rows follow.
    Table { table: String, rows: Rows },
    /// It has to have this row. Those of one key are named in the order in which they have to come.
    Wanted {
        table: String,
        id: String,
        key: String,
        row: String,
    },
    /// It has this row. Those of one partition are named in their order.
    Found {
        table: String,
        partition: u32,
        offset: u64,
        id: String,
        key: String,
        row: String,
    },
    /// Up to where a partition can be read by readers of committed records in the end, and where it ends.
    Rest {
        topic: String,
        partition: u32,
        stable: u64,
        end: u64,
    },
}

/// How a table tells its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// Each once, those of one key in the order in which they are wanted.
    Once,
    /// Each once, in whatever order.
    Unordered,
    /// Each as often as it changes, never twice the same in a row; the last word counts.
    Updated,
    /// It has none. What is there all the same nobody wanted.
    None,
}

/// What the pipelines promise, and whoever judges them must ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    ExactlyOnce,
    /// Rows may come again, the same as before.
    AtLeastOnce,
}

/// What is wrong with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A row is not there.
    Missing,
    /// A row is there again, or told of again without having changed.
    Doubled,
    /// A row is there and says something else.
    Different,
    /// A row is there that nobody wanted.
    Strange,
    /// A row stands before one that has to come before it, or away from the others of its key.
    Disordered,
    /// A transaction stays open.
    Hangs,
    /// The history says too little, or contradicts itself.
    Told,
}

impl Wrong {
    pub const ALL: [Self; 7] = [
        Self::Missing,
        Self::Doubled,
        Self::Different,
        Self::Strange,
        Self::Disordered,
        Self::Hangs,
        Self::Told,
    ];

    /// It in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Missing => "rows missing",
            Self::Doubled => "rows doubled",
            Self::Different => "rows different",
            Self::Strange => "rows of nothing that was fed",
            Self::Disordered => "rows out of order",
            Self::Hangs => "partitions with a hanging transaction",
            Self::Told => "faults of the history itself",
        }
    }
}

#[derive(Debug)]
struct Table {
    rows: Rows,
    wanted: BTreeMap<String, Wanted>,
    /// Rows that were found.
    found: u64,
    /// Of them those that were there before.
    again: u64,
    /// Of each key the partition it is in, and the latest of its rows that has come.
    keys: BTreeMap<String, (u32, u64)>,
}

#[derive(Debug)]
struct Wanted {
    key: String,
    row: String,
    turn: u64,
    /// The last word on it: key and row.
    said: Option<(String, String)>,
}

impl Wanted {
    fn is(&self, (key, row): &(String, String)) -> bool {
        self.key == *key && self.row == *row
    }
}

/// Takes histories, gives a verdict. What is wanted of a table must be told before what was found.
#[derive(Debug)]
pub struct Tables {
    delivery: Delivery,
    tables: BTreeMap<String, Table>,
    rests: u64,
    found: Findings<Wrong>,
}

impl Tables {
    pub fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            tables: BTreeMap::new(),
            rests: 0,
            found: Findings::default(),
        }
    }

    /// Takes all lines of one file.
    pub fn read(&mut self, lines: impl BufRead) -> io::Result<()> {
        each_line(lines, |line| {
            match serde_json::from_slice(line) {
                Ok(entry) => self.take(entry),
                Err(why) => self.found.add(Wrong::Told, || {
                    format!("{why}: {}", String::from_utf8_lossy(line).trim_end())
                }),
            }
            Ok(())
        })
    }

    pub fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Table { table, rows } => {
                let books = Table {
                    rows,
                    wanted: BTreeMap::new(),
                    found: 0,
                    again: 0,
                    keys: BTreeMap::new(),
                };
                if self.tables.insert(table.clone(), books).is_some() {
                    self.found.add(Wrong::Told, || format!("{table} begins again"));
                }
            }
            Entry::Wanted { table, id, key, row } => {
                let books = self.tables.get_mut(&table);
                let is_new = books.is_some_and(|books| {
                    let wanted = Wanted {
                        key,
                        row,
                        turn: books.wanted.len() as u64,
                        said: None,
                    };
                    books.wanted.insert(id.clone(), wanted).is_none()
                });
                if !is_new {
                    self.found.add(Wrong::Told, || {
                        format!("{table}: {id} is wanted again, or of no table")
                    });
                }
            }
            Entry::Found {
                table,
                partition,
                offset,
                id,
                key,
                row,
            } => self.row(&table, (partition, offset), &id, (key, row)),
            Entry::Rest {
                topic,
                partition,
                stable,
                end,
            } => {
                self.rests += 1;
                if stable < end {
                    self.found.add(Wrong::Hangs, || {
                        format!("{topic} {partition}: committed up to {stable}, ends at {end}")
                    });
                }
            }
        }
    }

    fn row(&mut self, table: &str, (partition, offset): (u32, u64), id: &str, (key, row): (String, String)) {
        let place = format!("{table} {partition}, offset {offset}");
        let Some(books) = self.tables.get_mut(table) else {
            self.found.add(Wrong::Told, || format!("{place}: of no table"));
            return;
        };
        books.found += 1;
        let Some(wanted) = books.wanted.get_mut(id) else {
            self.found
                .add(Wrong::Strange, || format!("{place}: {id} of {key}: {row}"));
            return;
        };
        let said = (key, row);
        let (key, row) = (&said.0, &said.1);
        let is_right = wanted.is(&said);
        let is_again = match books.rows {
            Rows::Once | Rows::Unordered => wanted.said.is_some(),
            Rows::Updated => wanted.said.as_ref() == Some(&said),
            Rows::None => false,
        };
        match books.rows {
            Rows::Once | Rows::Unordered if !is_right => self.found.add(Wrong::Different, || {
                format!(
                    "{place}: {id} of {key}: {row}, wanted {}: {}",
                    wanted.key, wanted.row
                )
            }),
            Rows::Once | Rows::Unordered | Rows::Updated | Rows::None
                if is_again && self.delivery == Delivery::ExactlyOnce =>
            {
                self.found
                    .add(Wrong::Doubled, || format!("{place}: {id} of {key}: {row}"));
            }
            Rows::Once | Rows::Unordered | Rows::Updated | Rows::None => {}
        }
        let latest = books.keys.get(key).copied();
        let key = key.clone();
        if wanted.said.replace(said).is_some() {
            books.again += 1;
            return;
        }
        let turn = wanted.turn;
        let is_ordered = books.rows != Rows::Unordered;
        if let Some((home, latest)) = latest
            && (home != partition || is_ordered && latest > turn)
        {
            self.found.add(Wrong::Disordered, || {
                format!("{place}: {id} stands behind a later row of {key}, or away from partition {home}")
            });
        }
        books.keys.insert(key, (partition, turn));
    }

    /// Judges everything that was taken.
    pub fn verdict(mut self) -> TablesVerdict {
        let mut sums = Vec::new();
        for (name, books) in &self.tables {
            let is_empty = books.wanted.is_empty();
            if is_empty != (books.rows == Rows::None) {
                self.found.add(Wrong::Told, || {
                    format!("{name}: nothing is wanted of it, or something")
                });
            }
            for (id, wanted) in &books.wanted {
                match (&wanted.said, books.rows) {
                    (None, _) => self.found.add(Wrong::Missing, || {
                        format!("{name}: {id} of {}: {}", wanted.key, wanted.row)
                    }),
                    (Some(said), Rows::Updated) if !wanted.is(said) => {
                        self.found.add(Wrong::Different, || {
                            let Wanted { key, row, .. } = wanted;
                            format!(
                                "{name}: {id}: the last word is {} of {}, wanted {row} of {key}",
                                said.1, said.0
                            )
                        })
                    }
                    (Some(_), _) => {}
                }
            }
            sums.push(Sum {
                table: name.clone(),
                rows: books.rows,
                wanted: books.wanted.len() as u64,
                found: books.found,
                again: books.again,
            });
        }
        if self.rests == 0 || sums.iter().all(|sum| sum.wanted == 0) {
            self.found.add(Wrong::Told, || {
                "no table was judged, or none read to its end: there is nothing to judge".to_owned()
            });
        }
        TablesVerdict {
            sums,
            found: self.found,
        }
    }
}

/// How much there was of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub table: String,
    pub rows: Rows,
    pub wanted: u64,
    pub found: u64,
    /// Rows that were there before: doubled, or updated.
    pub again: u64,
}

/// The judgement.
#[derive(Debug, Clone)]
pub struct TablesVerdict {
    pub sums: Vec<Sum>,
    found: Findings<Wrong>,
}

impl TablesVerdict {
    pub fn holds(&self) -> bool {
        self.found.is_empty()
    }

    pub fn count(&self, wrong: Wrong) -> u64 {
        self.found.count(wrong)
    }
}

impl fmt::Display for TablesVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, sum) in self.sums.iter().enumerate() {
            let Sum {
                table,
                rows,
                wanted,
                found,
                again,
            } = sum;
            let again = match rows {
                Rows::Once | Rows::Unordered => format!("{again} doubled"),
                Rows::Updated => format!("{again} updates"),
                Rows::None => "none may be".to_owned(),
            };
            let begins = if at == 0 { "judged:" } else { "" };
            writeln!(
                f,
                "{begins:<7} {table:<22} {wanted:>9} rows wanted, {found:>9} found, {again}"
            )?;
        }
        self.found.write(f, &Wrong::ALL, Wrong::words)?;
        write!(
            f,
            "transforms: {}",
            if self.holds() { "hold" } else { "VIOLATED" }
        )
    }
}

#[cfg(test)]
mod tests;
