//! Times as people write them: ISO 8601 in UTC, and milliseconds since 1970.
//!
//! Pure. It must never read a clock.

const DAY_MS: i64 = 24 * 3600 * 1000;

/// `2001-01-01T17:00:00`, with or without a fraction and a `Z`; a date alone is its midnight.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut date = date.splitn(3, '-');
    let year: i64 = digits(date.next()?, 4)?;
    let (month, day) = (digits(date.next()?, 2)?, digits(date.next()?, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_since_1970(year, month, day) * DAY_MS + time_of_day(time)?)
}

fn time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut clock = clock.splitn(3, ':');
    let hour = digits(clock.next()?, 2)?;
    let minute = digits(clock.next()?, 2)?;
    let second = clock.next().map_or(Some(0), |text| digits(text, 2))?;
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((hour * 60 + minute) * 60 + second) * 1000 + millis)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let is_plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// `2001-01-01T17:00:00Z`, with milliseconds where there are any.
pub(super) fn format(unix_ms: i64) -> String {
    let (days, rest) = (unix_ms.div_euclid(DAY_MS), unix_ms.rem_euclid(DAY_MS));
    let (year, month, day) = civil(days);
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if millis == 0 {
        String::new()
    } else {
        format!(".{millis:03}")
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days from 1970-01-01 to a day of the Gregorian calendar: years are counted from March, so that a leap day ends one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `1.5 s`, `12 min`, `3 h`: how long ago or how long still, for tables.
pub(super) fn span(ms: i64) -> String {
    match ms.abs() {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{:.1} s", ms as f64 / 1e3),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / DAY_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let check = |text: &str, ms: i64, shown: &str| {
            assert_eq!(parse(text), Some(ms), "{text}");
            assert_eq!(format(ms), shown);
        };
        check("1970-01-01", 0, "1970-01-01T00:00:00Z");
        check("2001-01-01T17:00:00", 978_368_400_000, "2001-01-01T17:00:00Z");
        check(
            "2000-02-29 23:59:59.5Z",
            951_868_799_500,
            "2000-02-29T23:59:59.500Z",
        );
        check("1969-12-31T23:59:59", -1000, "1969-12-31T23:59:59Z");
        check("2024-12-31T00:00", 1_735_603_200_000, "2024-12-31T00:00:00Z");
    }

    #[test]
    fn days_go_round_the_calendar() {
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(days_since_1970(year, month, day), days);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2001",
            "2001-13-01",
            "2001-01-01T25:00:00",
            "2001-1-1",
            "2001-01-01T00:00:00.x",
            "yesterday",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
