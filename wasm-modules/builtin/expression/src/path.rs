//! The way to a field: names and positions, from the top of a JSON value.

use std::fmt;

use crate::lexer::ParseError;
use crate::parser::Parser;

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Member(Box<str>),
    Element(usize),
}

/// The way to a field. No steps: the whole value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub(crate) steps: Vec<Step>,
}

impl Path {
    /// Reads a path that is the whole text.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::new(text)?;
        let path = parser.path()?;
        parser.expect_end()?;
        Ok(path)
    }

    /// The way to a member of the value itself.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self {
            steps: vec![Step::Member(name.into())],
        }
    }

    /// The name of the last step that has one: what a result is called after.
    #[must_use]
    pub fn last_name(&self) -> Option<&str> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Member(name) => Some(&**name),
            Step::Element(_) => None,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return formatter.write_str("$");
        }
        for (position, step) in self.steps.iter().enumerate() {
            match step {
                Step::Member(name) if position == 0 => formatter.write_str(name)?,
                Step::Member(name) => write!(formatter, ".{name}")?,
                Step::Element(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}
