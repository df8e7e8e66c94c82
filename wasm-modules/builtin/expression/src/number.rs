//! Numbers as JSON writes them: 64-bit integers exactly, everything else as a double.

use std::cmp::Ordering;

/// A number that is never infinite and never NaN.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Integer(i64),
    /// Has a fraction or an exponent, or lies outside 64 bits.
    Float(f64),
}

impl Number {
    /// Reads a number of JSON's grammar that is the whole text. `None` too for one beyond a double (`1e400`).
    #[inline]
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Some(short) = short_integer(text) {
            return Some(Self::Integer(short));
        }
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if whole == 0 || (whole > 1 && digits[0] == b'0') {
            return None;
        }
        Self::parse_slow(text, &digits[whole..])
    }

    #[cold]
    fn parse_slow(text: &[u8], behind_whole: &[u8]) -> Option<Self> {
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut rest = behind_whole;
        if let Some(fraction) = rest.strip_prefix(b".") {
            let count = digits(fraction);
            if count == 0 {
                return None;
            }
            rest = &fraction[count..];
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let exponent = exponent
                .strip_prefix(b"+")
                .or_else(|| exponent.strip_prefix(b"-"))
                .unwrap_or(exponent);
            let count = digits(exponent);
            if count == 0 {
                return None;
            }
            rest = &exponent[count..];
        }
        if !rest.is_empty() {
            return None;
        }
        let text = str::from_utf8(text).ok()?;
        if behind_whole.is_empty()
            && let Ok(value) = text.parse()
        {
            return Some(Self::Integer(value));
        }
        Self::float(text.parse().ok()?)
    }

    /// `None` for what is not finite.
    #[must_use]
    pub fn float(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self::Float(value))
    }

    /// The nearest double.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// An integer if it is one that a double tells from its neighbours: 3.0 is 3.
    #[must_use]
    pub fn simplest(self) -> Self {
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        match self {
            Self::Float(value) if value.trunc() == value && value.abs() < EXACT_MAX => {
                Self::Integer(value as i64)
            }
            other => other,
        }
    }

    pub(crate) fn negate(self) -> Self {
        match self {
            Self::Integer(value) => value
                .checked_neg()
                .map_or(Self::Float(-(value as f64)), Self::Integer),
            Self::Float(value) => Self::Float(-value),
        }
    }
}

/// An integer of JSON's grammar that is the whole text and cannot overflow.
pub(crate) fn short_integer(text: &[u8]) -> Option<i64> {
    const DIGITS_MAX: usize = 18;
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] | [b'0', _, ..] => return None,
        _ if digits.len() > DIGITS_MAX => return None,
        _ => {}
    }
    let mut value = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if is_negative { -value } else { value })
}

/// As `short_integer` of `json[start..end]`, without a loop or a guess where there are eight bytes to be looked at:
/// how many digits a number has is what no processor foresees.
#[inline(always)]
pub(crate) fn short_integer_in(json: &[u8], start: usize, end: usize) -> Option<i64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let text = &json[start..end];
    let is_negative = text.first() == Some(&b'-');
    let count = text.len() - usize::from(is_negative);
    let Some(last) = json[..end].last_chunk().filter(|_| (1..=8).contains(&count)) else {
        return short_integer(text);
    };
    // The digits stand in the highest bytes; what is before them becomes zeros.
    let before = (1u64 << (8 * (8 - count))) - 1;
    let digits = (u64::from_le_bytes(*last) & !before | ZEROS & before) ^ ZEROS;
    let first = digits >> (8 * (8 - count)) & 0xff;
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & HIGHS != 0 || (first == 0 && count > 1) {
        return None;
    }
    // Neighbours are joined to pairs, pairs to fours, fours to all eight.
    let pairs = digits * 10 + (digits >> 8);
    let low = (pairs & 0xff_0000_00ff).wrapping_mul(1_000_000 << 32 | 100);
    let high = (pairs >> 16 & 0xff_0000_00ff).wrapping_mul(10_000 << 32 | 1);
    let value = i64::from((low.wrapping_add(high) >> 32) as u32);
    Some(if is_negative { -value } else { value })
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    /// By value: an integer and a double are compared exactly, without rounding the integer.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Integer(left), Self::Integer(right)) => left.cmp(&right),
            (Self::Float(left), Self::Float(right)) => {
                left.partial_cmp(&right).expect("a Number is never NaN")
            }
            (Self::Integer(left), Self::Float(right)) => compare(left, right),
            (Self::Float(left), Self::Integer(right)) => compare(right, left).reverse(),
        }
    }
}

fn compare(integer: i64, float: f64) -> Ordering {
    // 2^63, the first double above every i64; its negative is the lowest i64 itself.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float >= BEYOND {
        return Ordering::Less;
    }
    if float < -BEYOND {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    let fraction = || 0.0.partial_cmp(&(float - whole)).expect("a Number is never NaN");
    integer.cmp(&(whole as i64)).then_with(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jsons_grammar_and_nothing_else() {
        let parsed = |text: &str| Number::parse(text.as_bytes()).map(|number| format!("{number:?}"));
        for (text, expected) in [
            ("0", Some("Integer(0)")),
            ("-0", Some("Integer(0)")),
            ("-17", Some("Integer(-17)")),
            ("9223372036854775807", Some("Integer(9223372036854775807)")),
            ("-9223372036854775808", Some("Integer(-9223372036854775808)")),
            ("9223372036854775808", Some("Float(9.223372036854776e18)")),
            (
                "123456789012345678901234567890",
                Some("Float(1.2345678901234568e29)"),
            ),
            ("0.1", Some("Float(0.1)")),
            ("1E2", Some("Float(100.0)")),
            ("-1.5e-3", Some("Float(-0.0015)")),
            ("5e-324", Some("Float(5e-324)")),
            ("1e400", None),
            ("01", None),
            ("1.", None),
            (".5", None),
            ("+1", None),
            ("1e", None),
            ("1e+", None),
            ("-", None),
            ("", None),
            ("NaN", None),
            ("Infinity", None),
            ("1x", None),
            ("1-2", None),
            ("0x10", None),
        ] {
            assert_eq!(parsed(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_short_integer_is_the_same_wherever_it_stands() {
        let numbers = [
            "0",
            "-0",
            "7",
            "-7",
            "00",
            "01",
            "10",
            "33",
            "-12",
            "999",
            "2176",
            "12345678",
            "-87654321",
            "123456789",
            "1.5",
            "1e3",
            "-",
            "",
            "1-2",
            "+1",
            "12:4",
            "1/2",
            "12a",
            "\u{80}1",
        ];
        for number in numbers {
            for before in ["", "x", "{\"delay\":"] {
                for behind in ["", ",", "9,\"distance\":1}"] {
                    let json = format!("{before}{number}{behind}");
                    let end = before.len() + number.len();
                    let seen = short_integer_in(json.as_bytes(), before.len(), end);
                    assert_eq!(seen, short_integer(number.as_bytes()), "{number} in {json}");
                }
            }
        }
    }

    #[test]
    fn integers_and_doubles_compare_exactly() {
        use Number::{Float, Integer};
        for (left, right, expected) in [
            (Integer(1), Float(1.0), Ordering::Equal),
            (Integer(1), Float(1.5), Ordering::Less),
            (Integer(-1), Float(-1.5), Ordering::Greater),
            (
                Integer(9_007_199_254_740_993),
                Float(9_007_199_254_740_992.0),
                Ordering::Greater,
            ),
            (
                Integer(i64::MAX),
                Float(9_223_372_036_854_775_808.0),
                Ordering::Less,
            ),
            (
                Integer(i64::MIN),
                Float(-9_223_372_036_854_775_808.0),
                Ordering::Equal,
            ),
            (Integer(0), Float(-0.0), Ordering::Equal),
            (Float(1e300), Integer(i64::MAX), Ordering::Greater),
            (Integer(i64::MIN), Float(-1e300), Ordering::Greater),
        ] {
            assert_eq!(left.cmp(&right), expected, "{left:?} {right:?}");
            assert_eq!(right.cmp(&left), expected.reverse(), "{right:?} {left:?}");
        }
    }

    #[test]
    fn the_simplest_form_is_an_integer() {
        let simplest = |number: Number| format!("{:?}", number.simplest());
        assert_eq!(simplest(Number::Float(-0.0)), "Integer(0)");
        assert_eq!(simplest(Number::Float(3.0)), "Integer(3)");
        assert_eq!(simplest(Number::Float(3.5)), "Float(3.5)");
        assert_eq!(simplest(Number::Float(1e16)), "Float(1e16)");
    }
}
