//! Sizes and times as people write them: `64MiB`, `7d`, `1500`, `1.5h`. A bare number is bytes or milliseconds.

/// Reads a number of bytes: `1048576`, `64k`, `1MiB`, `1.5 GB`. k, M, G, T count by 1,000; Ki, Mi, Gi, Ti by 1,024.
pub fn parse_bytes(text: &str) -> Option<i64> {
    scaled(text, |unit| {
        Some(match unit.strip_suffix(['b', 'B']).unwrap_or(unit) {
            "" => 1,
            "k" | "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" | "ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return None,
        })
    })
}

/// Reads a number of milliseconds: `1500`, `250ms`, `30s`, `5m`, `12h`, `7d`, `2w`.
pub fn parse_ms(text: &str) -> Option<i64> {
    scaled(text, |unit| {
        Some(match unit {
            "" | "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        })
    })
}

fn scaled(text: &str, factor: impl Fn(&str) -> Option<i64>) -> Option<i64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+' | '_'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (number, factor) = (number.replace('_', ""), factor(unit.trim())?);
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    // Beyond 2^53 a fraction would be rounded to something nobody wrote.
    (value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_as_people_write_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("1048576", Some(1_048_576)),
            ("64k", Some(64_000)),
            ("64KiB", Some(65_536)),
            ("1.5 MiB", Some(1_572_864)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775807k", None),
            ("1.00001 b", None),
            ("12 parsecs", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text:?}");
        }
        for (text, expected) in [
            ("250ms", Some(250)),
            ("7d", Some(604_800_000)),
            ("1.5h", Some(5_400_000)),
            ("1y", None),
        ] {
            assert_eq!(parse_ms(text), expected, "{text:?}");
        }
    }
}
