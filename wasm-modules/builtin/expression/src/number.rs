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
        let (negative, digits) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            _ => (false, text),
        };
        let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if whole == 0 || (whole > 1 && digits[0] == b'0') {
            return None;
        }
        // 18 digits cannot overflow.
        if whole == digits.len() && whole <= 18 {
            let value = digits
                .iter()
                .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
            return Some(Self::Integer(if negative { -value } else { value }));
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
