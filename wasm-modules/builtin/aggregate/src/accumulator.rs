//! What is kept of a group for one column, and how it is written down between batches.
//! Nothing here depends on the order of the records, except which of two texts came first, which nobody can see.

use headwater_expression::{Number, put_json_text, put_number, put_shown};

use crate::exact::ExactSum;

/// What one record gives to one column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// Null: passed over by everything that looks at a value.
    Nothing,
    Truth(bool),
    Number(Number),
    Text(&'a [u8]),
}

/// What a column keeps per group and window.
#[derive(Clone, Debug)]
pub(crate) enum Accumulator {
    Count(u64),
    Share { hits: u64, all: u64 },
    Sum(Sum),
    Mean(Sum),
    Least(Option<Extreme>),
    Greatest(Option<Extreme>),
}

/// Integers and floats are summed apart, both exactly, and joined at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    count: u64,
    integers: i128,
    /// Boxed: few columns have floats, and half a kilobyte is much for those that have none.
    floats: Option<Box<ExactSum>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Extreme {
    Number(Number),
    Text(Vec<u8>),
}

impl Accumulator {
    /// Why an input cannot be taken in; asked of every column before any takes it.
    #[inline]
    pub(crate) fn refuses(&self, input: &Input<'_>) -> Option<&'static str> {
        match (self, input) {
            (
                Self::Least(Some(Extreme::Number(_))) | Self::Greatest(Some(Extreme::Number(_))),
                Input::Text(_),
            ) => Some("text has no order among numbers"),
            (
                Self::Least(Some(Extreme::Text(_))) | Self::Greatest(Some(Extreme::Text(_))),
                Input::Number(_),
            ) => Some("a number has no order among texts"),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, input: &Input<'_>) {
        match (self, input) {
            (_, Input::Nothing) => {}
            (Self::Share { hits, all }, Input::Truth(hit)) => {
                *hits += u64::from(*hit);
                *all += 1;
            }
            (Self::Count(count), input) => *count += u64::from(!matches!(input, Input::Truth(false))),
            (Self::Sum(sum) | Self::Mean(sum), Input::Number(number)) => sum.add(*number),
            (Self::Least(least), input) => replace_if(least, input, std::cmp::Ordering::is_lt),
            (Self::Greatest(greatest), input) => replace_if(greatest, input, std::cmp::Ordering::is_gt),
            (
                Self::Share { .. } | Self::Sum(_) | Self::Mean(_),
                Input::Truth(_) | Input::Number(_) | Input::Text(_),
            ) => {
                unreachable!("a column's inputs are of its function's kind")
            }
        }
    }

    /// Takes in what another of the same column was given; or says why that cannot be.
    pub(crate) fn join(&mut self, other: Self) -> Result<(), &'static str> {
        match (self, other) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Share { hits, all }, Self::Share { hits: more, all: of }) => {
                *hits += more;
                *all += of;
            }
            (Self::Sum(sum), Self::Sum(more)) | (Self::Mean(sum), Self::Mean(more)) => sum.join(more),
            (this @ (Self::Least(_) | Self::Greatest(_)), Self::Least(other) | Self::Greatest(other)) => {
                let input = match &other {
                    None => return Ok(()),
                    Some(Extreme::Number(number)) => Input::Number(*number),
                    Some(Extreme::Text(text)) => Input::Text(text),
                };
                if let Some(why) = this.refuses(&input) {
                    return Err(why);
                }
                this.take(&input);
            }
            _ => unreachable!("both are of the same column"),
        }
        Ok(())
    }

    /// Appends the result as JSON; false if it is beyond what a float can hold.
    pub(crate) fn put_result(&self, to: &mut Vec<u8>) -> bool {
        let put_float = |to: &mut Vec<u8>, value: f64| {
            let number = Number::float(value);
            number.map(|number| put_number(to, number)).is_some()
        };
        match self {
            Self::Count(count) => put_shown(to, format_args!("{count}")),
            Self::Share { all: 0, .. } | Self::Least(None) | Self::Greatest(None) => {
                to.extend_from_slice(b"null")
            }
            Self::Share { hits, all } => return put_float(to, *hits as f64 / *all as f64),
            Self::Sum(sum) | Self::Mean(sum) if sum.count == 0 => to.extend_from_slice(b"null"),
            Self::Sum(Sum {
                floats: None,
                integers,
                ..
            }) => {
                put_shown(to, format_args!("{integers}"));
            }
            Self::Sum(sum) => return sum.total().is_some_and(|total| put_float(to, total)),
            Self::Mean(sum) => {
                return sum
                    .total()
                    .is_some_and(|total| put_float(to, total / sum.count as f64));
            }
            Self::Least(Some(extreme)) | Self::Greatest(Some(extreme)) => match extreme {
                Extreme::Number(number) => put_number(to, *number),
                Extreme::Text(text) => put_json_text(to, text),
            },
        }
        true
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Count(count) => to.extend_from_slice(&count.to_le_bytes()),
            Self::Share { hits, all } => {
                to.extend_from_slice(&hits.to_le_bytes());
                to.extend_from_slice(&all.to_le_bytes());
            }
            Self::Sum(sum) | Self::Mean(sum) => sum.encode(to),
            Self::Least(extreme) | Self::Greatest(extreme) => encode_extreme(extreme.as_ref(), to),
        }
    }

    /// Reads what `encode` of the same kind wrote, and moves `from` behind it.
    pub(crate) fn decode(&mut self, from: &mut &[u8]) -> Option<()> {
        match self {
            Self::Count(count) => *count = u64::from_le_bytes(array(from)?),
            Self::Share { hits, all } => {
                *hits = u64::from_le_bytes(array(from)?);
                *all = u64::from_le_bytes(array(from)?);
            }
            Self::Sum(sum) | Self::Mean(sum) => *sum = Sum::decode(from)?,
            Self::Least(extreme) | Self::Greatest(extreme) => *extreme = decode_extreme(from)?,
        }
        Some(())
    }
}

impl Sum {
    fn add(&mut self, number: Number) {
        self.count += 1;
        match number {
            // As many records as a u64 counts, each below 2^63, stay below 2^127.
            Number::Integer(value) => self.integers += i128::from(value),
            Number::Float(value) => self.floats.get_or_insert_default().add(value),
        }
    }

    fn join(&mut self, more: Self) {
        self.count += more.count;
        self.integers += more.integers;
        match (&mut self.floats, more.floats) {
            (Some(floats), Some(more)) => floats.join(*more),
            (floats @ None, more) => *floats = more,
            (Some(_), None) => {}
        }
    }

    fn total(&self) -> Option<f64> {
        let Some(floats) = &self.floats else {
            return Some(self.integers as f64);
        };
        let mut total = floats.clone();
        total.add_integer(self.integers);
        total.round()
    }

    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.count.to_le_bytes());
        to.extend_from_slice(&self.integers.to_le_bytes());
        to.push(u8::from(self.floats.is_some()));
        if let Some(floats) = &self.floats {
            floats.encode(to);
        }
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        let count = u64::from_le_bytes(array(from)?);
        let integers = i128::from_le_bytes(array(from)?);
        let [has_floats] = array(from)?;
        let floats = if has_floats == 0 {
            None
        } else {
            Some(Box::new(ExactSum::decode(from)?))
        };
        Some(Self {
            count,
            integers,
            floats,
        })
    }
}

fn replace_if(extreme: &mut Option<Extreme>, input: &Input<'_>, better: fn(std::cmp::Ordering) -> bool) {
    match (&mut *extreme, input) {
        (Some(Extreme::Number(known)), Input::Number(number)) => {
            if better(number.cmp(known)) {
                *known = number.simplest();
            }
        }
        (Some(Extreme::Text(known)), Input::Text(text)) => {
            if better(text.cmp(&known.as_slice())) {
                known.clear();
                known.extend_from_slice(text);
            }
        }
        (None, Input::Number(number)) => *extreme = Some(Extreme::Number(number.simplest())),
        (None, Input::Text(text)) => *extreme = Some(Extreme::Text(text.to_vec())),
        (_, Input::Number(_) | Input::Text(_) | Input::Truth(_) | Input::Nothing) => {
            unreachable!("`refuses` and the function's kind keep these out")
        }
    }
}

fn encode_extreme(extreme: Option<&Extreme>, to: &mut Vec<u8>) {
    match extreme {
        None => to.push(0),
        Some(Extreme::Number(Number::Integer(value))) => {
            to.push(1);
            to.extend_from_slice(&value.to_le_bytes());
        }
        Some(Extreme::Number(Number::Float(value))) => {
            to.push(2);
            to.extend_from_slice(&value.to_le_bytes());
        }
        Some(Extreme::Text(text)) => {
            to.push(3);
            let length = u32::try_from(text.len()).expect("a guest's memory has 32-bit addresses");
            to.extend_from_slice(&length.to_le_bytes());
            to.extend_from_slice(text);
        }
    }
}

fn decode_extreme(from: &mut &[u8]) -> Option<Option<Extreme>> {
    let [kind] = array(from)?;
    Some(match kind {
        0 => None,
        1 => Some(Extreme::Number(Number::Integer(i64::from_le_bytes(array(from)?)))),
        2 => Some(Extreme::Number(Number::float(f64::from_le_bytes(array(from)?))?)),
        3 => {
            let length = u32::from_le_bytes(array(from)?);
            let (text, rest) = from.split_at_checked(length as usize)?;
            *from = rest;
            Some(Extreme::Text(text.to_vec()))
        }
        _ => return None,
    })
}

fn array<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}
