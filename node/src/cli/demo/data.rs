//! The demo's data: a week of real flights, the airports, and the answer that DuckDB gave. All of it is in the binary.
//!
//! Pure.

use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::time;

static FLIGHTS_ZST: &[u8] = include_bytes!("../../../../tests/data/flights-2001-01.csv.zst");
static AIRPORTS: &str = include_str!("../../../../tests/data/airports.csv");
static EXPECTED: &str = include_str!("../../../../tests/data/expected.csv");

/// One flight, as a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Flight {
    pub(in crate::cli) origin: String,
    /// When it left: the event time.
    pub(in crate::cli) at_ms: i64,
    pub(in crate::cli) json: String,
}

/// One airport, as a record of the lookup table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Airport {
    pub(in crate::cli) code: String,
    pub(in crate::cli) name: String,
    pub(in crate::cli) city: String,
    pub(in crate::cli) json: String,
}

/// What is known of one origin in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hour {
    pub(super) flights: i64,
    pub(super) late: i64,
    pub(super) delay_sum: i64,
    pub(super) delay_min: i64,
    pub(super) delay_max: i64,
}

/// All flights, in the order in which they left.
pub(in crate::cli) fn flights() -> Result<Vec<Flight>, Failure> {
    let text = zstd::decode_all(FLIGHTS_ZST)
        .map_err(|why| Failure::new(format!("the flights are damaged: {why}")))?;
    let text = String::from_utf8(text).map_err(|_| Failure::new("the flights are not text"))?;
    text.lines()
        .skip(1)
        .map(|line| flight(line).ok_or_else(|| Failure::new(format!("no flight: {line}"))))
        .collect()
}

fn flight(line: &str) -> Option<Flight> {
    let mut fields = line.split(',');
    let mut field = || fields.next();
    let (date, delay, distance, origin, destination) = (field()?, field()?, field()?, field()?, field()?);
    let (delay, distance): (i64, i64) = (delay.parse().ok()?, distance.parse().ok()?);
    Some(Flight {
        origin: origin.to_owned(),
        at_ms: time::parse(date)?,
        json: format!(
            r#"{{"date":"{date}","delay":{delay},"distance":{distance},"origin":"{origin}","destination":"{destination}"}}"#
        ),
    })
}

/// All airports.
pub(in crate::cli) fn airports() -> Vec<Airport> {
    let airport = |line: &str| {
        let fields = csv_fields(line);
        let [code, name, city, state, ..] = fields.as_slice() else {
            return None;
        };
        let json = json!({ "name": name, "city": city, "state": state }).to_string();
        Some(Airport {
            code: code.clone(),
            name: name.clone(),
            city: city.clone(),
            json,
        })
    };
    AIRPORTS.lines().skip(1).filter_map(airport).collect()
}

/// DuckDB's answer: the hours in which a flight left late, by origin and beginning.
pub(super) fn expected() -> Result<super::answer::Hours, Failure> {
    let row = |line: &str| {
        let mut fields = line.split(',');
        let (origin, hour) = (fields.next()?, time::parse(fields.next()?)?);
        let mut figure = || fields.next()?.parse::<i64>().ok();
        let (flights, late, delay_sum) = (figure()?, figure()?, figure()?);
        let (delay_min, delay_max) = (figure()?, figure()?);
        Some((
            (origin.to_owned(), hour),
            Hour {
                flights,
                late,
                delay_sum,
                delay_min,
                delay_max,
            },
        ))
    };
    let read = |line| row(line).ok_or_else(|| Failure::new(format!("no expected hour: {line}")));
    EXPECTED.lines().skip(1).map(read).collect()
}

/// The fields of a line, quotes taken off.
fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => {
                if let Some(last) = fields.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_data_is_what_its_readme_says() {
        let flights = flights().unwrap();
        assert_eq!(flights.len(), 113_493);
        assert!(
            flights.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms),
            "in the order of departure"
        );
        assert_eq!(
            flights[0].json,
            r#"{"date":"2001-01-01T00:01:00","delay":33,"distance":2176,"origin":"LAS","destination":"PHL"}"#
        );
        let airports: BTreeSet<String> = airports().into_iter().map(|airport| airport.code).collect();
        assert!(
            flights.iter().all(|flight| airports.contains(&flight.origin)),
            "every origin is known"
        );
        assert_eq!(expected().unwrap().len(), 8662);
    }

    #[test]
    fn quoted_fields_keep_their_commas() {
        assert_eq!(csv_fields("a,\"b, c\",d"), ["a", "b, c", "d"]);
    }
}
