//! The demo's data: a week of real flights, the airports, and the answer that DuckDB gave. All of it is in the binary;
//! other flights, and the answer to them, are read from files.

use std::io::Read as _;
use std::path::Path;

use serde_json::json;

use super::answer::Hours;
use crate::cli::common::{read_file, read_text};
use crate::cli::failure::Failure;
use crate::cli::time;

static FLIGHTS_ZST: &[u8] = include_bytes!("../../../../tests/data/flights-2001-01.csv.zst");
static AIRPORTS: &str = include_str!("../../../../tests/data/airports.csv");
static EXPECTED: &str = include_str!("../../../../tests/data/expected.csv");

/// What a file may hold: half a year of flights, unpacked.
const FILE_BYTES_MAX: usize = 256 << 20;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

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
    read_flights(FLIGHTS_ZST)
}

/// The flights of a file, plain or compressed.
pub(super) fn flights_of(file: &Path) -> Result<Vec<Flight>, Failure> {
    let bytes = read_file(file, FILE_BYTES_MAX)?;
    let flights = read_flights(&bytes).map_err(|why| why.during(&file.display().to_string()))?;
    if flights.is_empty() {
        return Err(Failure::new(format!(
            "{}: there is no flight in it",
            file.display()
        )));
    }
    Ok(flights)
}

fn read_flights(bytes: &[u8]) -> Result<Vec<Flight>, Failure> {
    let text = if bytes.starts_with(&ZSTD_MAGIC) {
        unpack(bytes)?
    } else {
        bytes.to_vec()
    };
    let text = String::from_utf8(text).map_err(|_| Failure::new("the flights are not text"))?;
    text.lines()
        .skip(1)
        .map(|line| flight(line).ok_or_else(|| Failure::new(format!("no flight: {line}"))))
        .collect()
}

/// Unpacks zstd, no further than a file may be large.
fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let damaged = |why: std::io::Error| Failure::new(format!("the flights are damaged: {why}"));
    let mut text = Vec::new();
    zstd::Decoder::new(bytes)
        .map_err(damaged)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut text)
        .map_err(damaged)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(Failure::new(format!(
            "the flights unpack to more than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
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
pub(super) fn expected() -> Result<Hours, Failure> {
    read_expected(EXPECTED)
}

/// The answer that a file holds.
pub(super) fn expected_of(file: &Path) -> Result<Hours, Failure> {
    read_expected(&read_text(file, FILE_BYTES_MAX)?).map_err(|why| why.during(&file.display().to_string()))
}

fn read_expected(text: &str) -> Result<Hours, Failure> {
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
    text.lines().skip(1).map(read).collect()
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
    fn flights_are_read_plain_or_packed_and_never_guessed() {
        let text = b"date,delay,distance,origin,destination\n2001-01-01T00:01:00,33,2176,LAS,PHL\n";
        let packed = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(read_flights(text).unwrap(), read_flights(&packed).unwrap());
        for wrong in [&packed[..packed.len() - 4], b"date\n2001-01-01", b"date\n\xff"] {
            assert!(read_flights(wrong).is_err(), "{wrong:?}");
        }
        assert!(read_expected("origin,hour\nLAS,yesterday,1,1,1,1,1").is_err());
    }

    #[test]
    fn quoted_fields_keep_their_commas() {
        assert_eq!(csv_fields("a,\"b, c\",d"), ["a", "b, c", "d"]);
    }
}
