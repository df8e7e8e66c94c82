//! The answer as it comes in: results of two aggregates, put together by origin and hour, ranked and compared.
//!
//! Pure. It must never know what the answer should be before it is complete.

use std::collections::BTreeMap;

use serde_json::Value;

use super::data::{Airport, Hour};
use crate::cli::table::{Table, count};
use crate::cli::time;

/// By origin and the beginning of the hour.
pub(super) type Hours = BTreeMap<(String, i64), Hour>;

/// Differences that are shown.
const DIFFERENCES_SHOWN: usize = 5;

/// Which aggregate a result is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All flights of the hour, counted at the edge.
    Flights,
    /// Those that were late, folded at the core.
    Delays,
}

/// Results so far. A later result for the same hour replaces the earlier one.
#[derive(Debug, Default)]
pub(super) struct Answer {
    hours: Hours,
}

impl Answer {
    /// Takes in the value of one result; a reason when it is none.
    pub(super) fn take(&mut self, part: Part, value: &[u8]) -> Result<(), String> {
        let unusable = || format!("no result: {}", String::from_utf8_lossy(value));
        let value: Value = serde_json::from_slice(value).map_err(|_| unusable())?;
        let origin = value["origin"].as_str().ok_or_else(unusable)?;
        let start = value["window_start"]
            .as_str()
            .and_then(time::parse)
            .ok_or_else(unusable)?;
        let figure = |name: &str| value[name].as_i64().ok_or_else(unusable);
        let hour = self.hours.entry((origin.to_owned(), start)).or_default();
        match part {
            Part::Flights => hour.flights = figure("flights")?,
            Part::Delays => {
                hour.late = figure("late")?;
                hour.delay_sum = figure("delay_sum")?;
                hour.delay_min = figure("delay_min")?;
                hour.delay_max = figure("delay_max")?;
            }
        }
        Ok(())
    }

    /// Records that the results of a part are made of.
    pub(super) fn records(&self, part: Part) -> i64 {
        let of = |hour: &Hour| match part {
            Part::Flights => hour.flights,
            Part::Delays => hour.late,
        };
        self.hours.values().map(of).sum()
    }

    /// The hours with a late flight: what was asked for.
    pub(super) fn late_hours(&self) -> Hours {
        self.hours
            .iter()
            .filter(|(_, hour)| hour.late > 0)
            .map(|(key, hour)| (key.clone(), *hour))
            .collect()
    }
}

/// What differs, the first few of it; empty when both are the same.
pub(super) fn differences(answer: &Hours, expected: &Hours) -> Vec<String> {
    let keys = answer
        .keys()
        .chain(expected.keys().filter(|key| !answer.contains_key(*key)));
    let differing = keys.filter(|key| answer.get(*key) != expected.get(*key));
    let shown = |hours: &Hours, key: &(String, i64)| match hours.get(key) {
        Some(hour) => format!("{hour:?}"),
        None => "nothing".to_owned(),
    };
    let said = differing.map(|key| {
        let (origin, start) = key;
        format!(
            "{origin} {}: {}, expected {}",
            time::format(*start),
            shown(answer, key),
            shown(expected, key)
        )
    });
    said.take(DIFFERENCES_SHOWN).collect()
}

/// The hours in which most minutes were lost.
pub(super) fn worst(hours: &Hours, airports: &[Airport], rows: usize) -> String {
    let airports: BTreeMap<&str, &Airport> = airports
        .iter()
        .map(|airport| (airport.code.as_str(), airport))
        .collect();
    let mut ranked: Vec<_> = hours.iter().collect();
    ranked.sort_by_key(|(key, hour)| (std::cmp::Reverse(hour.delay_sum), (*key).clone()));
    let mut table = Table::new(&[
        "origin",
        "airport",
        "hour",
        ">flights",
        ">late",
        ">share",
        ">mean min",
        ">max min",
        ">lost min",
    ]);
    for ((origin, start), hour) in ranked.into_iter().take(rows) {
        let airport = airports.get(origin.as_str()).map_or_else(String::new, |airport| {
            format!("{}, {}", airport.name, airport.city)
        });
        let airport: String = airport.chars().take(44).collect();
        let hour_begin = time::format(*start).replace(":00:00Z", ":00").replace('T', " ");
        table.row([
            origin.clone(),
            airport,
            hour_begin,
            hour.flights.to_string(),
            hour.late.to_string(),
            format!("{:.0} %", hour.late as f64 * 100.0 / hour.flights.max(1) as f64),
            format!("{:.1}", hour.delay_sum as f64 / hour.late.max(1) as f64),
            hour.delay_max.to_string(),
            count(hour.delay_sum.unsigned_abs()),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHTS: &[u8] = br#"{"origin":"ATL","window_start":"2001-01-01T17:00:00Z","flights":9}"#;
    const DELAYS: &[u8] =
        br#"{"origin":"ATL","window_start":"2001-01-01T17:00:00Z","late":2,"delay_sum":50,"delay_min":20,"delay_max":30}"#;

    fn answer() -> Answer {
        let mut answer = Answer::default();
        answer.take(Part::Flights, FLIGHTS).unwrap();
        answer.take(Part::Delays, DELAYS).unwrap();
        answer
    }

    #[test]
    fn two_parts_make_an_hour() {
        let answer = answer();
        assert_eq!(
            (answer.records(Part::Flights), answer.records(Part::Delays)),
            (9, 2)
        );
        let hour = Hour {
            flights: 9,
            late: 2,
            delay_sum: 50,
            delay_min: 20,
            delay_max: 30,
        };
        assert_eq!(answer.late_hours().into_values().collect::<Vec<_>>(), [hour]);
    }

    #[test]
    fn a_later_result_replaces_an_earlier_one() {
        let mut answer = answer();
        answer
            .take(
                Part::Flights,
                &String::from_utf8_lossy(FLIGHTS).replace('9', "12").into_bytes(),
            )
            .unwrap();
        assert_eq!(answer.records(Part::Flights), 12);
        assert!(answer.take(Part::Flights, b"{}").is_err());
    }

    #[test]
    fn every_difference_is_found() {
        let hours = answer().late_hours();
        assert!(differences(&hours, &hours).is_empty());
        let mut other = hours.clone();
        other.insert(("DEN".to_owned(), 0), Hour::default());
        let said = differences(&hours, &other);
        assert!(
            said.len() == 1 && said[0].contains("DEN") && said[0].contains("nothing, expected"),
            "{said:?}"
        );
        assert_eq!(differences(&other, &hours).len(), 1);
    }

    #[test]
    fn the_worst_come_first() {
        let mut hours = answer().late_hours();
        hours.insert(
            ("DEN".to_owned(), 0),
            Hour {
                flights: 1,
                late: 1,
                delay_sum: 99,
                delay_min: 99,
                delay_max: 99,
            },
        );
        let shown = worst(&hours, &[], 1);
        assert!(shown.contains("DEN") && !shown.contains("ATL"), "{shown}");
    }
}
