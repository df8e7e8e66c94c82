//! The parameter `compute`: which results there are, what they are called, and what a record gives to each.

use headwater_expression::{Expression, Fields, ParseError, Parser, Value, View};
use headwater_guest::Error;

use crate::accumulator::{Accumulator, Input, Sum};

/// One result.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    function: Function,
}

#[derive(Clone, Debug)]
enum Function {
    Count,
    CountOf(Expression),
    CountIf(Expression),
    ShareIf(Expression),
    Sum(Expression),
    Mean(Expression),
    Least(Expression),
    Greatest(Expression),
}

/// An input whose text, if it is one, lies in a buffer beside it: so inputs can be kept from record to record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    Input(Input<'static>),
    Text { start: usize, end: usize },
}

impl Kept {
    pub(crate) fn input(self, texts: &[u8]) -> Input<'_> {
        match self {
            Self::Input(input) => input,
            Self::Text { start, end } => Input::Text(&texts[start..end]),
        }
    }
}

/// Reads `count() as flights, avg(delay) as mean_delay`.
pub(crate) fn parse(source: &str, fields: &mut Fields) -> Result<Vec<Column>, ParseError> {
    let mut parser = Parser::new(source)?;
    let mut columns: Vec<Column> = Vec::new();
    loop {
        let before = parser.clone();
        let column = column(&mut parser, fields)?;
        if columns.iter().any(|other| other.name == column.name) {
            return Err(before.error(format!(
                "there are two results called `{0}`; say `as NAME`",
                column.name
            )));
        }
        columns.push(column);
        if parser.at_end() {
            return Ok(columns);
        }
        if !parser.takes(",")? {
            return Err(parser.expected("`,` or `as`"));
        }
    }
}

fn column(parser: &mut Parser<'_>, fields: &mut Fields) -> Result<Column, ParseError> {
    let before = parser.clone();
    let word = parser.name("a function")?;
    let word = word.to_ascii_lowercase();
    parser.expect("(")?;
    let function = match word.as_str() {
        "count" if parser.takes(")")? => Function::Count,
        "count" => Function::CountOf(parser.expression(fields)?),
        "count_if" => Function::CountIf(parser.condition(fields)?),
        "share_if" => Function::ShareIf(parser.condition(fields)?),
        "sum" => Function::Sum(parser.number_expression(fields)?),
        "avg" => Function::Mean(parser.number_expression(fields)?),
        "min" => Function::Least(parser.expression(fields)?),
        "max" => Function::Greatest(parser.expression(fields)?),
        _ => {
            return Err(before.error(format!(
                "there is no function `{word}`; there are count, count_if, share_if, sum, avg, min and max"
            )));
        }
    };
    if !matches!(function, Function::Count) {
        parser.expect(")")?;
    }
    let name = if parser.takes_word("as")? {
        parser.name("a name")?.to_owned()
    } else {
        let field = function.argument().and_then(Expression::field);
        match field.and_then(|slot| fields.path(slot).last_name()) {
            Some(field) => format!("{word}_{field}"),
            None => word,
        }
    };
    Ok(Column { name, function })
}

impl Function {
    fn argument(&self) -> Option<&Expression> {
        match self {
            Self::Count => None,
            Self::CountOf(argument)
            | Self::CountIf(argument)
            | Self::ShareIf(argument)
            | Self::Sum(argument)
            | Self::Mean(argument)
            | Self::Least(argument)
            | Self::Greatest(argument) => Some(argument),
        }
    }
}

impl Column {
    pub(crate) fn start(&self) -> Accumulator {
        match self.function {
            Function::Count | Function::CountOf(_) | Function::CountIf(_) => Accumulator::Count(0),
            Function::ShareIf(_) => Accumulator::Share { hits: 0, all: 0 },
            Function::Sum(_) => Accumulator::Sum(Sum::default()),
            Function::Mean(_) => Accumulator::Mean(Sum::default()),
            Function::Least(_) => Accumulator::Least(None),
            Function::Greatest(_) => Accumulator::Greatest(None),
        }
    }

    /// What a record gives to this column; a text is appended to `texts`.
    #[inline]
    pub(crate) fn input(&self, view: &View<'_>, texts: &mut Vec<u8>) -> Result<Kept, Error> {
        let input = match &self.function {
            Function::Count => Input::Truth(true),
            Function::CountOf(argument) => match argument.value(view)? {
                Value::Null => Input::Nothing,
                Value::Boolean(_)
                | Value::Number(_)
                | Value::Text(_)
                | Value::Nested(_)
                | Value::BadNumber(_) => Input::Truth(true),
            },
            Function::CountIf(condition) | Function::ShareIf(condition) => {
                Input::Truth(condition.test(view)?)
            }
            Function::Sum(argument) | Function::Mean(argument) => match argument.value(view)? {
                Value::Null => Input::Nothing,
                Value::Number(number) => Input::Number(number),
                value => return Err(argument.misfit(&value, "a number", view)),
            },
            Function::Least(argument) | Function::Greatest(argument) => match argument.value(view)? {
                Value::Null => Input::Nothing,
                Value::Number(number) => Input::Number(number),
                Value::Text(text) => {
                    let start = texts.len();
                    text.put(texts);
                    return Ok(Kept::Text {
                        start,
                        end: texts.len(),
                    });
                }
                value => return Err(argument.misfit(&value, "a number or text", view)),
            },
        };
        Ok(Kept::Input(input))
    }
}
