//! A JSON value as serde_json reads it, with every member of an object in its order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::number::Number;
use crate::path::{Path, Step};
use crate::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// What a path leads to; the first member of a name counts.
    pub(super) fn at(&self, path: &Path) -> Option<&Self> {
        let mut here = vec![self];
        for step in &path.steps {
            // The first member of a name may have no such field where the second has one.
            here = here.into_iter().flat_map(|tree| tree.steps(step)).collect();
        }
        here.first().copied()
    }

    fn steps(&self, step: &Step) -> Vec<&Self> {
        match (self, step) {
            (Self::Object(members), Step::Member(name)) => {
                let of_name = members.iter().filter(|(own, _)| **own == **name);
                of_name.map(|(_, value)| value).collect()
            }
            (Self::Array(elements), Step::Element(index)) => elements.get(*index).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it is what the reader makes of the same text.
    pub(super) fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Boolean(own), Value::Boolean(other)) => own == other,
            (Self::Integer(own), Value::Number(Number::Integer(other))) => own == other,
            (Self::Float(own), Value::Number(Number::Float(other))) => own.to_bits() == other.to_bits(),
            // serde_json takes -0 for a double.
            (Self::Float(own), Value::Number(Number::Integer(0))) => *own == 0.0,
            (Self::Text(own), Value::Text(other)) => {
                let mut text = Vec::new();
                other.put(&mut text);
                text == own.as_bytes() && other.is(own.as_bytes())
            }
            (Self::Array(_) | Self::Object(_), Value::Nested(json)) => {
                serde_json::from_slice::<Self>(json).is_ok_and(|tree| tree == *self)
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(Tree::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Tree::Object(object))
    }
}
