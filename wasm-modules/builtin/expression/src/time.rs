//! Event times as text: ISO 8601 and RFC 3339, read and written without a calendar library. A time without a zone is
//! taken as UTC.

use crate::write::put_shown;

const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970 of `2001-01-31`, `2001-01-31T12:34`, `2001-01-31 12:34:56.789`, each with `Z` or an offset
/// such as `+01:00` or without. What is finer than a millisecond is cut off.
#[must_use]
pub fn parse_time_ms(text: &[u8]) -> Option<i64> {
    if let [front @ .., b'Z'] | front = text
        && let Ok(seconds) = front.try_into()
        && let Some(time_ms) = parse_seconds(seconds)
    {
        return Some(time_ms);
    }
    parse_any(text)
}

/// `2001-01-31T12:34:56`, the commonest form, without a branch per digit.
#[inline(always)]
fn parse_seconds(text: &[u8; 19]) -> Option<i64> {
    let mut is_sound = text[4] == b'-' && text[7] == b'-' && text[10] == b'T';
    is_sound &= text[13] == b':' && text[16] == b':';
    let mut pair = |at: usize| {
        let [tens, ones] = [text[at], text[at + 1]].map(|digit| u32::from(digit.wrapping_sub(b'0')));
        is_sound &= tens <= 9 && ones <= 9;
        tens * 10 + ones
    };
    let year = pair(0) * 100 + pair(2);
    let (month, day) = (pair(5), pair(8));
    let (hour, minute, second) = (pair(11), pair(14), pair(17));
    is_sound &= (1..=12).contains(&month) && day >= 1 && (day <= 28 || day <= days_in_month(year, month));
    is_sound &= hour <= 23 && minute <= 59 && second <= 60;
    let seconds = (hour * 60 + minute) * 60 + second;
    is_sound.then(|| days_from_civil(year, month, day) * DAY_MS + i64::from(seconds) * 1000)
}

fn parse_any(text: &[u8]) -> Option<i64> {
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    let month = after(&mut rest, b'-').and_then(|()| digits(&mut rest, 2))?;
    let day = after(&mut rest, b'-').and_then(|()| digits(&mut rest, 2))?;
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let midnight_ms = days_from_civil(year, month, day) * DAY_MS;
    if rest.is_empty() {
        return Some(midnight_ms);
    }
    let (b'T' | b't' | b' ', time) = rest.split_first()? else {
        return None;
    };
    rest = time;
    let hour = digits(&mut rest, 2)?;
    let minute = after(&mut rest, b':').and_then(|()| digits(&mut rest, 2))?;
    let (mut second, mut millis) = (0, 0);
    if after(&mut rest, b':').is_some() {
        second = digits(&mut rest, 2)?;
        if after(&mut rest, b'.')
            .or_else(|| after(&mut rest, b','))
            .is_some()
        {
            millis = fraction_ms(&mut rest)?;
        }
    }
    // A leap second counts as the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let of_day = i64::from((hour * 60 + minute) * 60 + second) * 1000 + millis;
    Some(midnight_ms + of_day - zone(rest)? * 60_000)
}

fn after(rest: &mut &[u8], sign: u8) -> Option<()> {
    *rest = rest.strip_prefix(&[sign])?;
    Some(())
}

fn digits(rest: &mut &[u8], count: usize) -> Option<u32> {
    let (digits, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    digits.iter().try_fold(0, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u32::from(digit - b'0'))
    })
}

fn fraction_ms(rest: &mut &[u8]) -> Option<i64> {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, behind) = rest.split_at(count);
    *rest = behind;
    let digit = |place: usize| digits.get(place).map_or(0, |digit| i64::from(digit - b'0'));
    (count > 0).then(|| digit(0) * 100 + digit(1) * 10 + digit(2))
}

fn zone(text: &[u8]) -> Option<i64> {
    let (sign, mut rest) = match text.split_first() {
        None | Some((b'Z' | b'z', [])) => return Some(0),
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        Some(_) => return None,
    };
    let hours = digits(&mut rest, 2)?;
    let _colon = after(&mut rest, b':');
    let minutes = if rest.is_empty() { 0 } else { digits(&mut rest, 2)? };
    (rest.is_empty() && hours < 24 && minutes < 60).then_some(sign * i64::from(hours * 60 + minutes))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar. Years are counted from March, so that the leap day is the last
/// of its year and 400 years are always 146097 days.
///
/// In 32 bits, where dividing by a constant is cheap; one era is added, so that the January of year 0 is not negative.
#[inline]
fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    let year = year + 400 - u32::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i64::from(days) - (719_468 + 146_097)
}

/// The date of a day, by the same count.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
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
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// Appends a time as `2001-01-31T12:34:56Z`, with milliseconds only if there are any.
pub fn put_time(to: &mut Vec<u8>, time_ms: i64) {
    let (year, month, day) = civil_from_days(time_ms.div_euclid(DAY_MS));
    let of_day = time_ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    put_shown(
        to,
        format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"),
    );
    if of_day % 1000 != 0 {
        put_shown(to, format_args!(".{:03}", of_day % 1000));
    }
    to.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2001-01-01T00:01:00", Some(978_307_260_000)),
            ("2001-01-01T00:01:00Z", Some(978_307_260_000)),
            ("2001-01-31T00:00:00", Some(980_899_200_000)),
            ("0000-01-01T00:00:00", Some(-62_167_219_200_000)),
            ("0000-03-01", Some(-62_162_035_200_000)),
            ("2001-01-01T00:01", Some(978_307_260_000)),
            ("2001-01-01 00:01:00.5", Some(978_307_260_500)),
            ("2001-01-01T00:01:00.123456789Z", Some(978_307_260_123)),
            ("2001-01-01T01:01:00+01:00", Some(978_307_260_000)),
            ("2000-12-31t19:01:00-0500", Some(978_307_260_000)),
            ("2000-12-31T19:01:00-05", Some(978_307_260_000)),
            ("2000-02-29", Some(951_782_400_000)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("1900-02-29", None),
            ("2001-02-30", None),
            ("2001-13-01", None),
            ("2001-00-01", None),
            ("2001-01-01T24:00:00", None),
            ("2001-01-01T00:01:00.Z", None),
            ("2001-01-01T00:01:00+1", None),
            ("2001-01-01T00:01:00 UTC", None),
            ("2001-1-1", None),
            ("20010101", None),
            ("", None),
        ] {
            assert_eq!(parse_time_ms(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn every_day_is_written_as_it_is_read() {
        for day in (-800_000..800_000).step_by(97) {
            let time_ms = day * DAY_MS + (day * 7919).rem_euclid(DAY_MS);
            let mut text = Vec::new();
            put_time(&mut text, time_ms);
            if text[0] != b'-' && text.iter().position(|byte| *byte == b'-') == Some(4) {
                assert_eq!(
                    parse_time_ms(&text),
                    Some(time_ms),
                    "{}",
                    String::from_utf8_lossy(&text)
                );
            }
        }
    }
}
