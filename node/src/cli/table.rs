//! Tables and figures as text for people.
//!
//! Pure. It must never know what the columns mean.

use serde_json::Value;

use super::time;

/// Rows under headings, columns as wide as they need to be.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Numbers are set to the right.
    right: Vec<bool>,
}

impl Table {
    /// A heading that starts with `>` has its column set to the right.
    pub(super) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let names = headings
            .iter()
            .map(|heading| heading.trim_start_matches('>').to_uppercase());
        Self {
            rows: vec![names.collect()],
            right,
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        self.rows
            .push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }

    pub(super) fn text(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let (width, right) = (widths.get(column).copied(), self.right.get(column).copied());
                let width = width.unwrap_or(0);
                match right.unwrap_or(false) {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A text of an answer, or a dash where there is none.
pub(super) fn field(object: &Value, name: &str) -> String {
    object[name].as_str().unwrap_or("-").to_owned()
}

/// A number of an answer, or a dash where there is none.
pub(super) fn figure(value: &Value) -> String {
    value
        .as_i64()
        .map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time of an answer, or a dash where there is none.
pub(super) fn moment(unix_ms: &Value) -> String {
    unix_ms.as_i64().map_or_else(|| "-".to_owned(), time::format)
}

/// `1.2 MB`: bytes in powers of 1000.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// `113,493`
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(&["name", ">records"]);
        table.row(["flights", "5"]);
        table.row(["x", "12345678"]);
        assert_eq!(
            table.text(),
            "NAME      RECORDS\nflights         5\nx        12345678\n"
        );
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            (bytes(999), bytes(1_500_000)),
            ("999 B".to_owned(), "1.5 MB".to_owned())
        );
        assert_eq!(
            (count(5), count(113_493), count(1_000)),
            ("5".into(), "113,493".into(), "1,000".into())
        );
    }
}
