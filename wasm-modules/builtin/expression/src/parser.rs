//! Reads expressions and paths, and says what it expected where it found something else.
//! It is public because some parameters hold more than one expression: the built-in modules read the rest around it.

use crate::expression::{Arithmetic, Comparison, Expression, Kind, Literal, Node, Search};
use crate::fields::Fields;
use crate::lexer::{Lexer, ParseError, Token};
use crate::number::Number;
use crate::path::{Path, Step};
use crate::text::unescape_literal;

/// Parentheses, signs and `not` within each other.
const DEPTH_MAX: usize = 64;
const PATH_STEPS_MAX: usize = 32;
const SOURCE_BYTES_MAX: usize = 64 << 10;
const LANGUAGE: [&str; 9] = ["and", "or", "not", "in", "is", "null", "true", "false", "as"];

/// Reads a text from its start, part by part.
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// # Errors
    /// When the text is too long or its first token is none.
    pub fn new(source: &'a str) -> Result<Self, ParseError> {
        let mut lexer = Lexer::new(source);
        if source.len() > SOURCE_BYTES_MAX {
            return Err(lexer.error(0, format!("longer than {SOURCE_BYTES_MAX} bytes")));
        }
        let (at, token) = lexer.next()?;
        Ok(Self {
            lexer,
            token,
            at,
            depth: 0,
        })
    }

    /// Reads an expression of any kind; its fields are added to `fields`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn expression(&mut self, fields: &mut Fields) -> Result<Expression, ParseError> {
        self.any(fields).map(|node| Expression { node })
    }

    /// Reads an expression that can be true or false.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn condition(&mut self, fields: &mut Fields) -> Result<Expression, ParseError> {
        let at = self.at;
        let node = self.any(fields)?;
        self.must_be(&node, Kind::Boolean, at)?;
        Ok(Expression { node })
    }

    /// Reads an expression that can be a number.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn number_expression(&mut self, fields: &mut Fields) -> Result<Expression, ParseError> {
        let at = self.at;
        let node = self.any(fields)?;
        self.must_be(&node, Kind::Number, at)?;
        Ok(Expression { node })
    }

    /// Reads a field path.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn path(&mut self) -> Result<Path, ParseError> {
        let steps = match self.token {
            Token::Sign("$") => Vec::new(),
            Token::Word(name) if !is_language(name) => vec![Step::Member(name.into())],
            Token::Quoted(name) => vec![Step::Member(name.into())],
            Token::Sign("[") => return self.path_from(Vec::new()),
            _ => return Err(self.expected("the name of a field")),
        };
        self.advance()?;
        self.path_from(steps)
    }

    /// Takes a word of the language or a name if it stands next, in any case.
    ///
    /// # Errors
    /// When what follows it is no token.
    pub fn takes_word(&mut self, word: &str) -> Result<bool, ParseError> {
        let takes = matches!(self.token, Token::Word(found) if found.eq_ignore_ascii_case(word));
        if takes {
            self.advance()?;
        }
        Ok(takes)
    }

    /// Takes a sign if it stands next.
    ///
    /// # Errors
    /// When what follows it is no token.
    pub fn takes(&mut self, sign: &str) -> Result<bool, ParseError> {
        let takes = matches!(self.token, Token::Sign(found) if found == sign);
        if takes {
            self.advance()?;
        }
        Ok(takes)
    }

    /// # Errors
    /// When another thing stands next.
    pub fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.takes(sign)? {
            Ok(())
        } else {
            Err(self.expected(&format!("`{sign}`")))
        }
    }

    /// Takes a name: a word, or anything in backticks.
    ///
    /// # Errors
    /// When another thing stands next.
    pub fn name(&mut self, what: &str) -> Result<&'a str, ParseError> {
        let (Token::Word(name) | Token::Quoted(name)) = self.token else {
            return Err(self.expected(what));
        };
        self.advance()?;
        Ok(name)
    }

    /// Takes a name in backticks if one stands next.
    ///
    /// # Errors
    /// When what follows it is no token.
    pub fn takes_quoted(&mut self) -> Result<Option<&'a str>, ParseError> {
        let Token::Quoted(name) = self.token else {
            return Ok(None);
        };
        self.advance()?;
        Ok(Some(name))
    }

    /// Takes a name that may hold dots and hyphens, as topics and tables have.
    ///
    /// # Errors
    /// When another thing stands next.
    pub fn dotted_name(&mut self, what: &str) -> Result<&'a str, ParseError> {
        let here = self.lexer;
        let name = self.lexer.dotted(self.at);
        if name.is_empty() {
            self.lexer = here;
            return Err(self.expected(what));
        }
        self.advance()?;
        Ok(name)
    }

    /// # Errors
    /// When there is more text.
    pub fn expect_end(&self) -> Result<(), ParseError> {
        if self.at_end() {
            Ok(())
        } else {
            Err(self.expected("an operator or the end"))
        }
    }

    #[must_use]
    pub fn at_end(&self) -> bool {
        self.token == Token::End
    }

    /// An error at what stands next, which is not what was expected.
    #[must_use]
    pub fn expected(&self, what: &str) -> ParseError {
        self.error(format!("expected {what}, found {}", self.token))
    }

    /// An error at what stands next.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ParseError {
        self.lexer.error(self.at, message)
    }

    fn advance(&mut self) -> Result<(), ParseError> {
        (self.at, self.token) = self.lexer.next()?;
        Ok(())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn any(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        self.deeper(|parser| parser.joined(fields, "or", |parser, fields| parser.all(fields), Node::Any))
    }

    fn all(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        self.joined(fields, "and", |parser, fields| parser.negation(fields), Node::All)
    }

    /// One part, or several joined by a word, each of which must then be a truth.
    fn joined(
        &mut self,
        fields: &mut Fields,
        word: &str,
        read: fn(&mut Self, &mut Fields) -> Result<Node, ParseError>,
        join: fn(Box<[Node]>) -> Node,
    ) -> Result<Node, ParseError> {
        let mut at = self.at;
        let first = read(self, fields)?;
        let mut parts = vec![first];
        while self.takes_word(word)? {
            self.must_be(&parts[parts.len() - 1], Kind::Boolean, at)?;
            at = self.at;
            parts.push(read(self, fields)?);
        }
        if parts.len() > 1 {
            self.must_be(&parts[parts.len() - 1], Kind::Boolean, at)?;
            return Ok(join(parts.into()));
        }
        Ok(parts.remove(0))
    }

    fn negation(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        if !self.takes_word("not")? {
            return self.comparison(fields);
        }
        let at = self.at;
        let node = self.deeper(|parser| parser.negation(fields))?;
        self.must_be(&node, Kind::Boolean, at)?;
        Ok(Node::Not(node.into()))
    }

    fn comparison(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        let left = self.sum(fields)?;
        if self.takes_word("is")? {
            let negated = self.takes_word("not")?;
            if !self.takes_word("null")? {
                return Err(self.expected("`null`"));
            }
            return Ok(not_if(negated, Node::IsNull(left.into())));
        }
        let negated = self.takes_word("not")?;
        if self.takes_word("in")? {
            let literals = self.literals()?;
            return Ok(not_if(negated, Node::In(left.into(), literals)));
        }
        if negated {
            return Err(self.expected("`in`"));
        }
        let Some(comparison) = self.comparison_sign() else {
            return Ok(left);
        };
        self.advance()?;
        let at = self.at;
        let right = self.sum(fields)?;
        self.must_fit(comparison, &left, &right, at)?;
        if self.comparison_sign().is_some() {
            return Err(self.error("one comparison at a time: join two with `and`"));
        }
        Ok(Node::Compare(comparison, [left, right].into()))
    }

    fn comparison_sign(&self) -> Option<Comparison> {
        let Token::Sign(sign) = self.token else {
            return None;
        };
        Some(match sign {
            "=" | "==" => Comparison::Equal,
            "!=" | "<>" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn literals(&mut self) -> Result<Box<[Literal]>, ParseError> {
        self.expect("(")?;
        let mut literals = Vec::new();
        loop {
            literals.push(
                self.literal()?
                    .ok_or_else(|| self.expected("a number, a text, true, false or null"))?,
            );
            if !self.takes(",")? {
                self.expect(")")?;
                return Ok(literals.into());
            }
        }
    }

    fn sum(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        let at = self.at;
        let mut left = self.product(fields)?;
        loop {
            let operation = match self.token {
                Token::Sign("+") => Arithmetic::Add,
                Token::Sign("-") => Arithmetic::Subtract,
                _ => return Ok(left),
            };
            left = self.operation(operation, left, at, fields, Self::product)?;
        }
    }

    fn product(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        let at = self.at;
        let mut left = self.signed(fields)?;
        loop {
            let operation = match self.token {
                Token::Sign("*") => Arithmetic::Multiply,
                Token::Sign("/") => Arithmetic::Divide,
                Token::Sign("%") => Arithmetic::Remainder,
                _ => return Ok(left),
            };
            left = self.operation(operation, left, at, fields, Self::signed)?;
        }
    }

    fn operation(
        &mut self,
        operation: Arithmetic,
        left: Node,
        at: usize,
        fields: &mut Fields,
        operand: fn(&mut Self, &mut Fields) -> Result<Node, ParseError>,
    ) -> Result<Node, ParseError> {
        self.must_be(&left, Kind::Number, at)?;
        self.advance()?;
        let at = self.at;
        let right = operand(self, fields)?;
        self.must_be(&right, Kind::Number, at)?;
        Ok(Node::Arithmetic(operation, [left, right].into()))
    }

    fn signed(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        if let Token::Sign("-") = self.token {
            if let Some(literal) = self.literal()? {
                return Ok(Node::Literal(literal));
            }
            self.advance()?;
            let at = self.at;
            let node = self.deeper(|parser| parser.signed(fields))?;
            self.must_be(&node, Kind::Number, at)?;
            return Ok(Node::Negate(node.into()));
        }
        self.primary(fields)
    }

    fn primary(&mut self, fields: &mut Fields) -> Result<Node, ParseError> {
        if let Some(literal) = self.literal()? {
            return Ok(Node::Literal(literal));
        }
        if self.takes("(")? {
            let node = self.any(fields)?;
            self.expect(")")?;
            return Ok(node);
        }
        let Token::Word(word) = self.token else {
            return self
                .path_or("a field, a value or `(`")
                .map(|path| Node::Field(fields.add(&path)));
        };
        let start = self.clone();
        self.advance()?;
        if self.takes("(")? {
            let call = self.call(word, &start, fields)?;
            self.expect(")")?;
            return Ok(call);
        }
        match word.to_ascii_lowercase().as_str() {
            "key" => return Ok(Node::Key),
            "timestamp" => return Ok(Node::Timestamp),
            "offset" => return Ok(Node::Offset),
            _ => *self = start,
        }
        self.path_or("a field, a value or `(`")
            .map(|path| Node::Field(fields.add(&path)))
    }

    fn path_or(&mut self, what: &str) -> Result<Path, ParseError> {
        match self.token {
            Token::Word(word) if is_language(word) => Err(self.expected(what)),
            Token::Word(_) | Token::Quoted(_) | Token::Sign("$" | "[") => self.path(),
            Token::Number(_) | Token::Text(_) | Token::Sign(_) | Token::End => Err(self.expected(what)),
        }
    }

    fn path_from(&mut self, mut steps: Vec<Step>) -> Result<Path, ParseError> {
        loop {
            if self.takes(".")? {
                steps.push(Step::Member(self.name("the name of a field")?.into()));
            } else if self.takes("[")? {
                steps.push(match self.token {
                    Token::Number(number) => {
                        Step::Element(number.parse().map_err(|_| self.expected("a position"))?)
                    }
                    Token::Text(name) => Step::Member(unescape_literal(name).into()),
                    _ => return Err(self.expected("a position or a name in quotes")),
                });
                self.advance()?;
                self.expect("]")?;
            } else {
                return Ok(Path { steps });
            }
            if steps.len() > PATH_STEPS_MAX {
                return Err(self.error(format!("a path has at most {PATH_STEPS_MAX} steps")));
            }
        }
    }

    /// Reads the arguments of a function, up to but not including the parenthesis.
    fn call(&mut self, name: &str, start: &Self, fields: &mut Fields) -> Result<Node, ParseError> {
        let search = match name.to_ascii_lowercase().as_str() {
            "exists" => return Ok(Node::Exists(fields.add(&self.path()?))),
            "header" => {
                let Token::Text(header) = self.token else {
                    return Err(self.expected("a name in quotes"));
                };
                self.advance()?;
                return Ok(Node::Header(unescape_literal(header).into()));
            }
            "starts_with" => Search::StartsWith,
            "ends_with" => Search::EndsWith,
            "contains" => Search::Contains,
            _ => {
                return Err(start.error(format!(
                    "there is no function `{name}`; there are exists, header, starts_with, ends_with and contains"
                )));
            }
        };
        let at = self.at;
        let text = self.any(fields)?;
        self.must_be(&text, Kind::Text, at)?;
        self.expect(",")?;
        let at = self.at;
        let part = self.any(fields)?;
        self.must_be(&part, Kind::Text, at)?;
        Ok(Node::Search(search, [text, part].into()))
    }

    /// Takes a literal if one stands next.
    fn literal(&mut self) -> Result<Option<Literal>, ParseError> {
        let literal = match self.token {
            Token::Number(text) => self.number(text)?,
            Token::Sign("-") => {
                let before = self.clone();
                self.advance()?;
                let Token::Number(text) = self.token else {
                    *self = before;
                    return Ok(None);
                };
                self.number(&format!("-{text}"))?
            }
            Token::Text(text) => Literal::Text(unescape_literal(text).into()),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "null" => Literal::Null,
                "true" => Literal::Boolean(true),
                "false" => Literal::Boolean(false),
                _ => return Ok(None),
            },
            Token::Quoted(_) | Token::Sign(_) | Token::End => return Ok(None),
        };
        self.advance()?;
        Ok(Some(literal))
    }

    fn number(&self, text: &str) -> Result<Literal, ParseError> {
        let number = Number::parse(text.as_bytes());
        number
            .map(Literal::Number)
            .ok_or_else(|| self.error(format!("`{text}` is no number that can be computed with")))
    }

    /// Refuses what can never be of the kind that is needed.
    fn must_be(&self, node: &Node, needed: Kind, at: usize) -> Result<(), ParseError> {
        let kind = node.kind();
        if kind == needed || kind == Kind::Any {
            return Ok(());
        }
        Err(self.lexer.error(
            at,
            format!("this is {}, but {} is needed", words(kind), words(needed)),
        ))
    }

    /// Refuses comparisons that can never hold.
    fn must_fit(
        &self,
        comparison: Comparison,
        left: &Node,
        right: &Node,
        at: usize,
    ) -> Result<(), ParseError> {
        let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let (left, right) = (left.kind(), right.kind());
        if ordered
            && (left == Kind::Boolean || right == Kind::Boolean || left == Kind::Null || right == Kind::Null)
        {
            return Err(self.lexer.error(at, "only numbers and texts have an order"));
        }
        let known = |kind| !matches!(kind, Kind::Any | Kind::Null);
        if known(left) && known(right) && left != right {
            return Err(self.lexer.error(
                at,
                format!("{} never compares with {}", words(left), words(right)),
            ));
        }
        Ok(())
    }
}

fn is_language(word: &str) -> bool {
    LANGUAGE.iter().any(|known| known.eq_ignore_ascii_case(word))
}

fn not_if(negated: bool, node: Node) -> Node {
    if negated { Node::Not(node.into()) } else { node }
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "true or false",
        Kind::Number => "a number",
        Kind::Text => "a text",
        Kind::Null => "null",
        Kind::Any => "any value",
    }
}
