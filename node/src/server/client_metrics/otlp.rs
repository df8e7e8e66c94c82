//! The metrics of OpenTelemetry as clients push them: `MetricsData` of opentelemetry-proto 1, in protobuf. Only gauges and
//! sums are read, and of them only numbers: clients send nothing else (KIP-714).
//!
//! Pure. It must never panic, nor take more memory than a bound for what bytes claim.

use super::{POINTS_MAX, Point, shortened};

/// What of a push is looked at, at most: messages within messages.
const FIELDS_MAX: usize = 100_000;

/// Why a push cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum OtlpError {
    #[error("the bytes end within a field")]
    Cut,
    #[error("a number is longer than 64 bits")]
    Number,
    #[error("wire type {0} is not one of protobuf 3")]
    WireType(u64),
    #[error("there are more than {FIELDS_MAX} fields")]
    TooMany,
    #[error("a text is not UTF-8")]
    Text,
}

/// The values of all metrics whose names `wants` accepts, in the order in which they come.
pub(in crate::server) fn points(bytes: &[u8], wants: impl Fn(&str) -> bool) -> Result<Vec<Point>, OtlpError> {
    let mut reader = Reader {
        wants: &wants,
        fields_left: FIELDS_MAX,
        points: Vec::new(),
    };
    // MetricsData.resource_metrics, ResourceMetrics.scope_metrics, ScopeMetrics.metrics.
    reader.each(bytes, 1, |reader, resource| {
        reader.each(resource, 2, |reader, scope| {
            reader.each(scope, 2, |reader, metric| reader.metric(metric))
        })
    })?;
    Ok(reader.points)
}

struct Reader<'a> {
    wants: &'a dyn Fn(&str) -> bool,
    fields_left: usize,
    points: Vec<Point>,
}

impl Reader<'_> {
    /// Reads every message of one field.
    fn each(
        &mut self,
        bytes: &[u8],
        wanted: u64,
        mut read: impl FnMut(&mut Self, &[u8]) -> Result<(), OtlpError>,
    ) -> Result<(), OtlpError> {
        let mut rest = bytes;
        while let Some((number, value)) = self.field(&mut rest)? {
            if let (true, Value::Bytes(message)) = (number == wanted, value) {
                read(self, message)?;
            }
        }
        Ok(())
    }

    fn metric(&mut self, bytes: &[u8]) -> Result<(), OtlpError> {
        let (mut name, mut data) = ("", Vec::new());
        let mut rest = bytes;
        while let Some((number, value)) = self.field(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(text)) => name = utf8(text)?,
                // Gauge and Sum.
                (5 | 7, Value::Bytes(message)) => data.push(message),
                _ => {}
            }
        }
        if !(self.wants)(name) {
            return Ok(());
        }
        for message in data {
            self.each(message, 1, |reader, point| reader.point(name, point))?;
        }
        Ok(())
    }

    /// NumberDataPoint.
    fn point(&mut self, metric: &str, bytes: &[u8]) -> Result<(), OtlpError> {
        let (mut number_value, mut of) = (None, Vec::new());
        let mut rest = bytes;
        while let Some((number, value)) = self.field(&mut rest)? {
            match (number, value) {
                (4, Value::Fixed(bits)) => number_value = Some(f64::from_bits(bits)),
                (6, Value::Fixed(bits)) => number_value = Some(bits as i64 as f64),
                (7, Value::Bytes(attribute)) => of.push(self.attribute(attribute)?),
                _ => {}
            }
        }
        let Some(value) = number_value else {
            return Ok(());
        };
        if self.points.len() < POINTS_MAX {
            of.sort_unstable();
            self.points.push(Point {
                metric: shortened(metric),
                of: shortened(&of.join(",")),
                value,
            });
        }
        Ok(())
    }

    /// KeyValue, as NAME=VALUE.
    fn attribute(&mut self, bytes: &[u8]) -> Result<String, OtlpError> {
        let (mut key, mut text) = ("", String::new());
        let mut rest = bytes;
        while let Some((number, value)) = self.field(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(name)) => key = utf8(name)?,
                (2, Value::Bytes(any)) => text = self.any(any)?,
                _ => {}
            }
        }
        Ok(format!("{key}={text}"))
    }

    /// AnyValue; lists and maps are nothing.
    fn any(&mut self, bytes: &[u8]) -> Result<String, OtlpError> {
        let mut text = String::new();
        let mut rest = bytes;
        while let Some((number, value)) = self.field(&mut rest)? {
            text = match (number, value) {
                (1, Value::Bytes(text)) => utf8(text)?.to_owned(),
                (2, Value::Varint(flag)) => (flag != 0).to_string(),
                (3, Value::Varint(number)) => (number as i64).to_string(),
                (4, Value::Fixed(bits)) => f64::from_bits(bits).to_string(),
                _ => continue,
            };
        }
        Ok(text)
    }

    /// The next field of a message: its number and value.
    fn field<'b>(&mut self, rest: &mut &'b [u8]) -> Result<Option<(u64, Value<'b>)>, OtlpError> {
        if rest.is_empty() {
            return Ok(None);
        }
        self.fields_left = self.fields_left.checked_sub(1).ok_or(OtlpError::TooMany)?;
        let key = varint(rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(rest)?),
            1 => Value::Fixed(u64::from_le_bytes(*take(rest)?)),
            2 => {
                let length = usize::try_from(varint(rest)?).map_err(|_| OtlpError::Cut)?;
                let (message, behind) = rest.split_at_checked(length).ok_or(OtlpError::Cut)?;
                *rest = behind;
                Value::Bytes(message)
            }
            5 => {
                take::<4>(rest)?;
                Value::Short
            }
            other => return Err(OtlpError::WireType(other)),
        };
        Ok(Some((key >> 3, value)))
    }
}

/// A value by its wire type.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
    /// 32 bits, which nothing here has.
    Short,
}

fn varint(rest: &mut &[u8]) -> Result<u64, OtlpError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = *take::<1>(rest)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(OtlpError::Number);
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(OtlpError::Number)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], OtlpError> {
    let (taken, behind) = rest.split_first_chunk().ok_or(OtlpError::Cut)?;
    *rest = behind;
    Ok(taken)
}

fn utf8(bytes: &[u8]) -> Result<&str, OtlpError> {
    std::str::from_utf8(bytes).map_err(|_| OtlpError::Text)
}

#[cfg(test)]
pub(in crate::server) mod tests {
    use super::*;

    fn field(number: u8, wire_type: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | wire_type];
        if wire_type == 2 {
            let mut length = value.len();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
        }
        bytes.extend_from_slice(value);
        bytes
    }

    fn message(number: u8, fields: &[Vec<u8>]) -> Vec<u8> {
        field(number, 2, &fields.concat())
    }

    /// A push of one metric with these points, as a gauge or a sum, in the frame of OpenTelemetry.
    pub(in crate::server) fn push(name: &str, data: u8, points: &[Vec<u8>]) -> Vec<u8> {
        let points: Vec<_> = points.iter().map(|point| field(1, 2, point)).collect();
        let metric = message(2, &[field(1, 2, name.as_bytes()), message(data, &points)]);
        message(1, &[field(1, 2, b""), message(2, &[metric])])
    }

    pub(in crate::server) fn double(value: f64) -> Vec<u8> {
        field(4, 1, &value.to_le_bytes())
    }

    fn int(value: i64) -> Vec<u8> {
        field(6, 1, &value.to_le_bytes())
    }

    fn attribute(key: &str, value: &str) -> Vec<u8> {
        message(
            7,
            &[
                field(1, 2, key.as_bytes()),
                message(2, &[field(1, 2, value.as_bytes())]),
            ],
        )
    }

    fn point(metric: &str, of: &str, value: f64) -> Point {
        Point {
            metric: metric.to_owned(),
            of: of.to_owned(),
            value,
        }
    }

    #[test]
    fn gauges_and_sums_are_read_with_what_they_are_of() {
        let with = |fields: &[Vec<u8>]| fields.concat();
        let pushed = [
            push(
                "a.rate",
                5,
                &[with(&[
                    double(0.5),
                    attribute("topic", "t"),
                    attribute("node", "1"),
                ])],
            ),
            push("a.total", 7, &[int(-3), with(&[int(7), field(8, 5, &[0; 4])])]),
            push("b", 5, &[double(1.0)]),
            push("a.histogram", 9, &[double(1.0)]),
        ];
        assert_eq!(
            points(&pushed.concat(), |name| name.starts_with("a.")).unwrap(),
            [
                point("a.rate", "node=1,topic=t", 0.5),
                point("a.total", "", -3.0),
                point("a.total", "", 7.0)
            ]
        );
        assert_eq!(points(&[], |_| true), Ok(Vec::new()));
    }

    #[test]
    fn what_is_too_much_is_passed_over_or_refused() {
        let many = vec![double(1.0); POINTS_MAX + 10];
        assert_eq!(points(&push("m", 5, &many), |_| true).unwrap().len(), POINTS_MAX);
        let hollow = [0x0a, 0x00].repeat(FIELDS_MAX + 1);
        assert_eq!(points(&hollow, |_| true), Err(OtlpError::TooMany));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = push("m", 5, &[[double(1.0), attribute("k", "v")].concat()]);
        for end in 1..whole.len() {
            assert_eq!(points(&whole[..end], |_| true), Err(OtlpError::Cut), "{end}");
        }
        for at in 0..whole.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                // Whatever it says.
                let _ = points(&bytes, |_| true);
            }
        }
        for (bytes, expected) in [
            (&[0xff; 11][..], OtlpError::Number),
            (&[0x0b], OtlpError::WireType(3)),
            (
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                OtlpError::Cut,
            ),
            (
                &message(1, &[message(2, &[message(2, &[field(1, 2, &[0xff])])])]),
                OtlpError::Text,
            ),
        ] {
            assert_eq!(points(bytes, |_| true), Err(expected));
        }
    }
}
