//! Cuts an expression into tokens, each with its place for messages.

use std::fmt;

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Counted in characters from 1.
    pub character: usize,
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "character {}: {}", self.character, self.message)
    }
}

impl std::error::Error for ParseError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A name or a word of the language.
    Word(&'a str),
    /// A name in backticks.
    Quoted(&'a str),
    Number(&'a str),
    /// The inside of a literal, escapes and all.
    Text(&'a str),
    Sign(&'static str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(text) | Token::Number(text) => write!(formatter, "`{text}`"),
            Token::Quoted(text) => write!(formatter, "`{text}` in backticks"),
            Token::Text(text) => write!(formatter, "the text '{text}'"),
            Token::Sign(text) => write!(formatter, "`{text}`"),
            Token::End => write!(formatter, "the end"),
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 20] = [
    "<=", ">=", "!=", "<>", "==", "=", "<", ">", "(", ")", "[", "]", ",", ".", "+", "-", "*", "/", "%", "$",
];
/// Signs that only other parts of a parameter use: `topic: expression; ...`.
const SEPARATORS: [&str; 2] = [":", ";"];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self { source, at: 0 }
    }

    /// The next token and where it starts, in bytes.
    pub(crate) fn next(&mut self) -> Result<(usize, Token<'a>), ParseError> {
        let rest = &self.source[self.at..];
        let space = rest.len() - rest.trim_start().len();
        let start = self.at + space;
        let rest = &rest[space..];
        let Some(first) = rest.chars().next() else {
            self.at = start;
            return Ok((start, Token::End));
        };
        let (length, token) = if first.is_alphabetic() || first == '_' {
            let length = rest
                .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .unwrap_or(rest.len());
            (length, Token::Word(&rest[..length]))
        } else if first.is_ascii_digit() {
            let length = number_length(rest);
            (length, Token::Number(&rest[..length]))
        } else if let '\'' | '"' | '`' = first {
            let inside = self.inside_quotes(start, first)?;
            let token = if first == '`' {
                Token::Quoted(inside)
            } else {
                Token::Text(inside)
            };
            (inside.len() + 2, token)
        } else if let Some(sign) = SIGNS
            .into_iter()
            .chain(SEPARATORS)
            .find(|sign| rest.starts_with(sign))
        {
            (sign.len(), Token::Sign(sign))
        } else {
            let hint = match first {
                '&' => "; write `and`",
                '|' => "; write `or`",
                '!' => "; write `not`",
                _ => "",
            };
            return Err(self.error(start, format!("unexpected `{first}`{hint}")));
        };
        self.at = start + length;
        Ok((start, token))
    }

    /// Goes back to `start` and takes as much as is made of letters, digits, dots, hyphens and underscores.
    pub(crate) fn dotted(&mut self, start: usize) -> &'a str {
        let rest = &self.source[start..];
        let other = |letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '.' | '-' | '_');
        let name = &rest[..rest.find(other).unwrap_or(rest.len())];
        self.at = start + name.len();
        name
    }

    fn inside_quotes(&self, start: usize, quote: char) -> Result<&'a str, ParseError> {
        let inside = &self.source[start + 1..];
        let mut escaped = false;
        for (at, letter) in inside.char_indices() {
            if letter == quote && !escaped {
                return Ok(&inside[..at]);
            }
            escaped = letter == '\\' && !escaped && quote != '`';
        }
        Err(self.error(start, format!("this {quote} is never closed")))
    }

    pub(crate) fn error(&self, at: usize, message: impl Into<String>) -> ParseError {
        ParseError {
            character: self.source[..at].chars().count() + 1,
            message: message.into(),
        }
    }
}

/// Digits, a fraction, an exponent; what follows is the parser's business.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut length = digits(0);
    if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    if let Some(b'e' | b'E') = bytes.get(length) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        if digits(length + 1 + sign) > 0 {
            length += 1 + sign + digits(length + 1 + sign);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Result<Vec<Token<'_>>, String> {
        let mut lexer = Lexer::new(source);
        let mut tokens = Vec::new();
        loop {
            match lexer.next().map_err(|error| error.to_string())? {
                (_, Token::End) => return Ok(tokens),
                (_, token) => tokens.push(token),
            }
        }
    }

    #[test]
    fn tokens_are_told_apart() {
        use Token::{Number, Quoted, Sign, Text, Word};
        assert_eq!(
            tokens(r"a.b[0]<=1.5e-3 `x y` 'it\'s'"),
            Ok(vec![
                Word("a"),
                Sign("."),
                Word("b"),
                Sign("["),
                Number("0"),
                Sign("]"),
                Sign("<="),
                Number("1.5e-3"),
                Quoted("x y"),
                Text(r"it\'s"),
            ])
        );
        assert_eq!(
            tokens("1.e 2e+"),
            Ok(vec![
                Number("1"),
                Sign("."),
                Word("e"),
                Number("2"),
                Word("e"),
                Sign("+")
            ])
        );
        assert_eq!(tokens("größe"), Ok(vec![Word("größe")]));
    }

    #[test]
    fn mistakes_have_a_place() {
        assert_eq!(
            tokens("a && b"),
            Err("character 3: unexpected `&`; write `and`".into())
        );
        assert_eq!(
            tokens("é = 'x"),
            Err("character 5: this ' is never closed".into())
        );
        assert_eq!(tokens("a # b"), Err("character 3: unexpected `#`".into()));
    }
}
