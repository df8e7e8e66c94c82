//! Quantities as people write them on a command line: `24h`, `1.5s`, `16MiB`.
//!
//! Pure.

/// Reads `1500ms`, `2s`, `15m`, `24h`, `7d`; a bare number is milliseconds.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    let (number, unit) = split(text);
    let unit_ms = match unit {
        "" | "ms" => 1.0,
        "s" => 1e3,
        "m" | "min" => 60e3,
        "h" => 3600e3,
        "d" => 24.0 * 3600e3,
        other => return Err(format!("unknown unit {other:?}; ms, s, m, h or d")),
    };
    let ms = number
        .parse::<f64>()
        .map_err(|_| "expected a number and a unit, such as 90s or 24h".to_owned())?
        * unit_ms;
    if !(0.0..=1e15).contains(&ms) {
        return Err("expected a duration that is not negative".to_owned());
    }
    Ok(ms.round() as i64)
}

/// Reads `100`, `64kB`, `16MiB`, `1GB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        other => return Err(format!("unknown unit {other:?}; kB, MB, GB, KiB, MiB or GiB")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a whole number and a unit, such as 64MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..at].trim(), text[at..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("90s", 90_000),
            ("1.5 h", 5_400_000),
            ("7", 7),
            ("7d", 604_800_000),
            ("15m", 900_000),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "-1s", "1 fortnight", "1e300d"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, size) in [
            ("100", 100),
            ("64kB", 64_000),
            ("16MiB", 16 << 20),
            ("1 GB", 1_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "MB", "1.5MB", "99999999999GiB", "5 apples"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
