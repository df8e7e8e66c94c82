//! The built-in module `route`: sends each record, unchanged, to the topic of the first rule that holds for it.
//! It owns the parameter `rules`; the language of the conditions is `headwater-expression`'s.

use headwater_expression::{Expression, Fields, ParseError, Parser, View};
use headwater_guest::{
    Batch, Error, Mapping, Metadata, Module, Output, Outputs, Param, ParamKind, Params, export_mapping,
    package_metadata,
};

struct Route {
    rules: Vec<Rule>,
    rest: Destination,
    fields: Fields,
}

struct Rule {
    condition: Expression,
    destination: Destination,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    Topic(String),
    Drop,
}

impl Module for Route {
    fn describe() -> Metadata {
        package_metadata!().param(
            Param::new(
                "rules",
                ParamKind::Text,
                "Rules divided by semicolons, tried in order, each a topic and the condition under which records go \
                 there; the last one is the default. `drop` in place of a topic drops the record. Example: \
                 late: delay > 60; western: origin in ('SFO', 'LAX'); default: drop. The topics must be among the \
                 transform's sinks; one that is itself called drop or default stands in backticks.",
            )
            .required(),
        )
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        let mut fields = Fields::default();
        let (rules, rest) = parse(params.text("rules")?, &mut fields)
            .map_err(|error| Error::new(format!("parameter 'rules', {error}")))?;
        Ok(Self { rules, rest, fields })
    }
}

fn parse(source: &str, fields: &mut Fields) -> Result<(Vec<Rule>, Destination), ParseError> {
    let mut parser = Parser::new(source)?;
    let mut rules = Vec::new();
    while !parser.at_end() {
        let before = parser.clone();
        let destination = match parser.takes_quoted()? {
            Some(topic) => Destination::topic(topic, &before)?,
            None => match parser.dotted_name("a topic, `drop` or `default`")? {
                "default" => return rest(&mut parser).map(|rest| (rules, rest)),
                "drop" => Destination::Drop,
                topic => Destination::topic(topic, &before)?,
            },
        };
        parser.expect(":")?;
        rules.push(Rule {
            condition: parser.condition(fields)?,
            destination,
        });
        if !parser.takes(";")? && !parser.at_end() {
            return Err(parser.expected("an operator or `;`"));
        }
    }
    Err(parser.error("say where all other records go: end with `default: TOPIC` or `default: drop`"))
}

/// Reads what stands behind `default`, which is the last rule.
fn rest(parser: &mut Parser<'_>) -> Result<Destination, ParseError> {
    parser.expect(":")?;
    let before = parser.clone();
    let rest = match parser.takes_quoted()? {
        Some(topic) => Destination::topic(topic, &before)?,
        None => match parser.dotted_name("a topic or `drop`")? {
            "drop" => Destination::Drop,
            topic => Destination::topic(topic, &before)?,
        },
    };
    parser.takes(";")?;
    if parser.at_end() {
        Ok(rest)
    } else {
        Err(parser.expected("the end, since the default comes last"))
    }
}

impl Destination {
    /// `before` stands where the name does, for the message.
    fn topic(name: &str, before: &Parser<'_>) -> Result<Self, ParseError> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        if name.is_empty() || name.len() > 249 || !name.chars().all(allowed) || name == "." || name == ".." {
            return Err(before.error(format!("`{name}` cannot be the name of a topic")));
        }
        Ok(Self::Topic(name.into()))
    }
}

/// Where a record goes.
fn destination<'r>(
    rules: &'r [Rule],
    rest: &'r Destination,
    view: &View<'_>,
) -> Result<&'r Destination, Error> {
    for rule in rules {
        if rule.condition.test(view)? {
            return Ok(&rule.destination);
        }
    }
    Ok(rest)
}

impl Mapping for Route {
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        for record in batch {
            let view = self.fields.view(&record);
            match view.and_then(|view| destination(&self.rules, &self.rest, &view)) {
                Ok(Destination::Topic(topic)) => outputs.push(&record, Output::default().topic(topic)),
                Ok(Destination::Drop) => {}
                Err(error) => outputs.fail(&record, error),
            }
        }
    }
}

export_mapping!(Route);

#[cfg(test)]
mod tests {
    /// The node's tests run the same files through the component.
    #[test]
    fn golden_files_hold() {
        headwater_golden_native::check_mapping::<super::Route>("route");
    }
}
