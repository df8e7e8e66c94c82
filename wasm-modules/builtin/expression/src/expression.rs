//! A parsed expression, and what it gives for a record.
//! The rules of comparison and arithmetic live here, as README.md states them.

use std::cmp::Ordering;

use headwater_guest::Error;
use headwater_guest::bytes::same;

use crate::fields::{Simple, Slot, View};
use crate::number::Number;
use crate::text::Text;
use crate::value::Value;

/// An expression, ready to be computed for any number of records. [`crate::Parser`] makes it.
#[derive(Clone, Debug)]
pub struct Expression {
    pub(crate) node: Node,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Literal(Literal),
    Field(Slot),
    Key,
    Timestamp,
    Offset,
    Header(Box<str>),
    Not(Box<Node>),
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Compare(Comparison, Box<[Node; 2]>),
    In(Box<Node>, Box<[Literal]>),
    IsNull(Box<Node>),
    Exists(Slot),
    Search(Search, Box<[Node; 2]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Negate(Box<Node>),
}

#[derive(Clone, Debug)]
pub(crate) enum Literal {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// What is known of an expression before there is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Number,
    Text,
    Null,
    Any,
}

impl Expression {
    /// Computes the value for a record.
    ///
    /// # Errors
    /// When values do not fit each other, as README.md says.
    #[inline]
    pub fn value<'a>(&'a self, view: &View<'a>) -> Result<Value<'a>, Error> {
        self.node.value(view)
    }

    /// Whether it is true for a record; null counts as false.
    ///
    /// # Errors
    /// As `value`, and when the value is no boolean.
    #[inline]
    pub fn test(&self, view: &View<'_>) -> Result<bool, Error> {
        self.node.test(view)
    }

    /// Says that the value it had for a record is not what it must be.
    #[must_use]
    pub fn misfit(&self, value: &Value<'_>, expected: &str, view: &View<'_>) -> Error {
        self.node.misfit(value, expected, view)
    }

    /// The field, where the expression is nothing else.
    #[must_use]
    pub fn field(&self) -> Option<Slot> {
        match self.node {
            Node::Field(slot) => Some(slot),
            _ => None,
        }
    }
}

impl Node {
    #[inline]
    fn test(&self, view: &View<'_>) -> Result<bool, Error> {
        match self {
            Self::Not(inner) => Ok(!inner.test(view)?),
            Self::All(nodes) => {
                for node in nodes {
                    if !node.test(view)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(nodes) => {
                for node in nodes {
                    if node.test(view)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Compare(comparison, sides) => compare(*comparison, sides, view),
            Self::In(node, literals) => {
                if let Self::Field(slot) = **node
                    && let Some(Simple::Text(text)) = view.simple(slot)
                {
                    let is_text = |literal: &Literal| match literal {
                        Literal::Text(known) => same(text, known.as_bytes()),
                        Literal::Null | Literal::Boolean(_) | Literal::Number(_) => false,
                    };
                    return Ok(literals.iter().any(is_text));
                }
                let value = node.value(view)?;
                for literal in literals {
                    if equal(&value, &literal.value(), node, view)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::IsNull(node) => Ok(matches!(node.value(view)?, Value::Null)),
            Self::Exists(slot) => Ok(view.raw(*slot).is_some()),
            Self::Search(search, sides) => find(*search, sides, view),
            other => match other.value(view)? {
                Value::Boolean(truth) => Ok(truth),
                Value::Null => Ok(false),
                value => Err(other.misfit(&value, "true or false", view)),
            },
        }
    }

    #[inline]
    fn value<'a>(&'a self, view: &View<'a>) -> Result<Value<'a>, Error> {
        match self {
            Self::Field(slot) => Ok(view.field(*slot)),
            Self::Literal(literal) => Ok(literal.value()),
            Self::Key => Ok(text_or_null(view.record.key())),
            Self::Timestamp => Ok(Value::Number(Number::Integer(view.record.timestamp_ms()))),
            Self::Offset => Ok(Value::Number(Number::Integer(view.record.offset()))),
            Self::Header(name) => Ok(text_or_null(view.record.header(name))),
            Self::Arithmetic(operation, sides) => arithmetic(*operation, sides, view),
            Self::Negate(node) => Ok(node
                .number(view)?
                .map_or(Value::Null, |number| Value::Number(number.negate()))),
            Self::Not(_)
            | Self::All(_)
            | Self::Any(_)
            | Self::Compare(..)
            | Self::In(..)
            | Self::IsNull(_)
            | Self::Exists(_)
            | Self::Search(..) => self.test(view).map(Value::Boolean),
        }
    }

    /// Its value, which must be a number or null.
    fn number(&self, view: &View<'_>) -> Result<Option<Number>, Error> {
        match self.value(view)? {
            Value::Number(number) => Ok(Some(number)),
            Value::Null => Ok(None),
            value => Err(self.misfit(&value, "a number", view)),
        }
    }

    /// Says that a value is not what it must be here.
    #[cold]
    fn misfit(&self, value: &Value<'_>, expected: &str, view: &View<'_>) -> Error {
        let kind = value.kind();
        Error::new(match self {
            Self::Field(slot) => format!("{} is {kind}, not {expected}", view.path(*slot)),
            Self::Key => format!("the key is {kind}, not {expected}"),
            Self::Header(name) => format!("header '{name}' is {kind}, not {expected}"),
            _ => format!("{kind} stands where {expected} is needed"),
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Literal(literal) => literal.kind(),
            Self::Field(_) => Kind::Any,
            Self::Key | Self::Header(_) => Kind::Text,
            Self::Timestamp | Self::Offset | Self::Arithmetic(..) | Self::Negate(_) => Kind::Number,
            Self::Not(_)
            | Self::All(_)
            | Self::Any(_)
            | Self::Compare(..)
            | Self::In(..)
            | Self::IsNull(_)
            | Self::Exists(_)
            | Self::Search(..) => Kind::Boolean,
        }
    }
}

impl Literal {
    #[inline]
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(truth) => Value::Boolean(*truth),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(Text::plain(text.as_bytes())),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Boolean(_) => Kind::Boolean,
            Self::Number(_) => Kind::Number,
            Self::Text(_) => Kind::Text,
        }
    }
}

fn text_or_null(text: Option<&[u8]>) -> Value<'_> {
    text.map_or(Value::Null, |text| Value::Text(Text::plain(text)))
}

#[inline]
fn compare(comparison: Comparison, sides: &[Node; 2], view: &View<'_>) -> Result<bool, Error> {
    if let Some(truth) = compare_simple(comparison, sides, view) {
        return Ok(truth);
    }
    compare_values(comparison, sides, view)
}

/// What most conditions are: a field, the timestamp or the offset against a literal of the same kind. Made without
/// a value on either side.
#[inline]
fn compare_simple(comparison: Comparison, [left, right]: &[Node; 2], view: &View<'_>) -> Option<bool> {
    let Node::Literal(right) = right else { return None };
    let left = match left {
        Node::Field(slot) => view.simple(*slot)?,
        Node::Timestamp => Simple::Integer(view.record.timestamp_ms()),
        Node::Offset => Simple::Integer(view.record.offset()),
        _ => return None,
    };
    match (left, right) {
        (Simple::Integer(left), Literal::Number(Number::Integer(right))) => {
            Some(comparison.holds(left.cmp(right)))
        }
        (Simple::Text(left), Literal::Text(right)) => match comparison {
            Comparison::Equal => Some(same(left, right.as_bytes())),
            Comparison::NotEqual => Some(!same(left, right.as_bytes())),
            _ => Some(comparison.holds(left.cmp(right.as_bytes()))),
        },
        _ => None,
    }
}

fn compare_values(comparison: Comparison, sides: &[Node; 2], view: &View<'_>) -> Result<bool, Error> {
    let [left, right] = sides;
    let (left_value, right_value) = (left.value(view)?, right.value(view)?);
    let equals = || equal(&left_value, &right_value, if_comparable(sides, &left_value), view);
    match comparison {
        Comparison::Equal => equals(),
        Comparison::NotEqual => equals().map(|equal| !equal),
        Comparison::Less | Comparison::LessOrEqual | Comparison::Greater | Comparison::GreaterOrEqual => {
            order(comparison, sides, left_value, right_value, view)
        }
    }
}

impl Comparison {
    #[inline]
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// Which side to blame when two values cannot be compared.
fn if_comparable<'n>(sides: &'n [Node; 2], left: &Value<'_>) -> &'n Node {
    &sides[usize::from(!matches!(left, Value::Nested(_) | Value::BadNumber(_)))]
}

fn equal(left: &Value<'_>, right: &Value<'_>, blamed: &Node, view: &View<'_>) -> Result<bool, Error> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Ok(left == right),
        (Value::Text(left), Value::Text(right)) => Ok(left == right),
        (Value::Boolean(left), Value::Boolean(right)) => Ok(left == right),
        (Value::Null, Value::Null) => Ok(true),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        (value @ (Value::Nested(_) | Value::BadNumber(_)), _)
        | (_, value @ (Value::Nested(_) | Value::BadNumber(_))) => {
            Err(blamed.misfit(value, "a value that can be compared", view))
        }
        (Value::Number(_) | Value::Text(_) | Value::Boolean(_), _) => Ok(false),
    }
}

fn order(
    comparison: Comparison,
    [left, right]: &[Node; 2],
    left_value: Value<'_>,
    right_value: Value<'_>,
    view: &View<'_>,
) -> Result<bool, Error> {
    match (&left_value, &right_value) {
        (Value::Number(left), Value::Number(right)) => Ok(comparison.holds(left.cmp(right))),
        (Value::Text(left), Value::Text(right)) => Ok(comparison.holds(left.cmp(right))),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        // The side that varies from record to record is the one to blame.
        (value, other @ (Value::Number(_) | Value::Text(_))) if !matches!(left, Node::Literal(_)) => {
            Err(left.misfit(value, other.kind(), view))
        }
        (other, value) => Err(right.misfit(value, other.kind(), view)),
    }
}

fn find(search: Search, [text, part]: &[Node; 2], view: &View<'_>) -> Result<bool, Error> {
    let side = |node: &Node, value: Value<'_>| Err(node.misfit(&value, "text", view));
    match (text.value(view)?, part.value(view)?) {
        (Value::Text(text), Value::Text(part)) => Ok(match search {
            Search::StartsWith => text.starts_with(part),
            Search::EndsWith => text.ends_with(part),
            Search::Contains => text.contains(part),
        }),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        (Value::Text(_), value) => side(part, value),
        (value, _) => side(text, value),
    }
}

fn arithmetic<'a>(
    operation: Arithmetic,
    [left, right]: &[Node; 2],
    view: &View<'a>,
) -> Result<Value<'a>, Error> {
    let (Some(left), Some(right)) = (left.number(view)?, right.number(view)?) else {
        return Ok(Value::Null);
    };
    compute(operation, left, right).map(Value::Number)
}

fn compute(operation: Arithmetic, left: Number, right: Number) -> Result<Number, Error> {
    let divides = matches!(operation, Arithmetic::Divide | Arithmetic::Remainder);
    if divides && right.to_f64() == 0.0 {
        return Err(Error::new("division by zero"));
    }
    if let (Number::Integer(left), Number::Integer(right)) = (left, right) {
        let exact = match operation {
            Arithmetic::Add => left.checked_add(right),
            Arithmetic::Subtract => left.checked_sub(right),
            Arithmetic::Multiply => left.checked_mul(right),
            Arithmetic::Remainder => left.checked_rem(right),
            Arithmetic::Divide => None,
        };
        if let Some(exact) = exact {
            return Ok(Number::Integer(exact));
        }
    }
    let (left, right) = (left.to_f64(), right.to_f64());
    let result = match operation {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
    };
    Number::float(result).ok_or_else(|| Error::new("the result is beyond what a float can hold"))
}
