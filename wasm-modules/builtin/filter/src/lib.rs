//! The built-in module `filter`: keeps the records for which an expression is true.
//! It owns the parameter `where`; the language is `headwater-expression`'s.

use headwater_expression::{Expression, Fields, ParseError, Parser};
use headwater_guest::{
    Error, Filter, Metadata, Module, Param, ParamKind, Params, Record, export_filter, package_metadata,
};

struct Where {
    condition: Expression,
    fields: Fields,
}

impl Module for Where {
    fn describe() -> Metadata {
        package_metadata!().param(
            Param::new(
                "where",
                ParamKind::Text,
                "Records for which this is true are kept: an expression over the fields of the JSON value, such as \
                 delay > 15 and origin in ('ATL', 'DEN'). It knows = != < <= > >=, and, or, not, in, is null, \
                 + - * / %, exists(field), starts_with, ends_with, contains, key, timestamp, offset and \
                 header('name'). A missing field counts as null.",
            )
            .required(),
        )
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        let mut fields = Fields::default();
        let condition = parse(params.text("where")?, &mut fields)
            .map_err(|error| Error::new(format!("parameter 'where', {error}")))?;
        Ok(Self { condition, fields })
    }
}

fn parse(source: &str, fields: &mut Fields) -> Result<Expression, ParseError> {
    let mut parser = Parser::new(source)?;
    let condition = parser.condition(fields)?;
    parser.expect_end()?;
    Ok(condition)
}

impl Filter for Where {
    fn keep(&mut self, record: &Record<'_>) -> Result<bool, Error> {
        let view = self.fields.view(record)?;
        self.condition.test(&view)
    }
}

export_filter!(Where);

#[cfg(test)]
mod tests {
    /// The node's tests run the same files through the component.
    #[test]
    fn golden_files_hold() {
        headwater_golden_native::check_filter::<super::Where>("filter");
    }
}
