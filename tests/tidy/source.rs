//! One Rust file as the tidy rules see it: its code without comments and strings, its functions, its test regions.
//!
//! It owns a scanner that knows tokens and braces, not grammar: good for code that compiles. It reads no files.

use std::ops::Range;

/// A source file, scanned once.
///
/// - `code` has the length of the text: comments and the inside of literals are blanked, line ends kept.
pub(crate) struct Source {
    pub(crate) code: String,
    /// Each string literal's offset and content, as written.
    pub(crate) strings: Vec<(usize, String)>,
    /// Where `#[cfg(test)]` items stand.
    pub(crate) tests: Vec<Range<usize>>,
    lines: Vec<usize>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) at: usize,
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn scan(text: &str) -> Self {
        let (code, strings) = blank(text);
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let tests = test_items(&code);
        Self {
            code,
            strings,
            tests,
            lines,
        }
    }

    /// The line number, from 1, of an offset.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    pub(crate) fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// Lines that are not in test items.
    pub(crate) fn product_lines(&self) -> usize {
        let last = self.line(self.code.len().saturating_sub(1));
        (1..=last)
            .filter(|line| !self.is_test(self.lines[line - 1]))
            .count()
    }

    /// Every function with a body, nested ones too.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for at in words(&self.code, "fn") {
            let rest = &self.code[at + 2..];
            let name = identifier(rest.trim_start());
            if name.is_empty() {
                continue;
            }
            let Some(open) = body(&self.code, at) else {
                continue;
            };
            let lines = self.line(closing(&self.code, open)) - self.line(at) + 1;
            found.push(Function {
                name: name.to_owned(),
                at,
                lines,
            });
        }
        found
    }

    /// How many inline modules (`mod name { ... }`) an offset stands in.
    pub(crate) fn inline_depth(&self, at: usize) -> usize {
        words(&self.code[..at], "mod")
            .filter_map(|start| body(&self.code, start))
            .filter(|open| *open < at && closing(&self.code, *open) >= at)
            .count()
    }

    /// Names declared by `mod name;`, each with whether it is for tests only.
    pub(crate) fn declared_modules(&self) -> Vec<(String, bool)> {
        words(&self.code, "mod")
            .filter_map(|at| {
                let rest = self.code[at + 3..].trim_start();
                let name = identifier(rest);
                let ends = rest[name.len()..].trim_start().starts_with(';');
                (ends && !name.is_empty()).then(|| (name.to_owned(), self.is_test(at)))
            })
            .collect()
    }
}

/// Offsets of a word that stands alone.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The identifier that a text begins with, or nothing.
pub(crate) fn identifier(text: &str) -> &str {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The `{` that opens the body of the item starting at `from`; none when it ends with `;` first.
fn body(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(from + at),
            ';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

/// The `}` that belongs to the `{` at `open`; the last byte when there is none.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (at, c) in code[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return open + at;
        }
    }
    code.len().saturating_sub(1)
}

/// From each `#[cfg(...test...)]` to the end of the item under it.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let Some(length) = code[at..].find(']') else {
            continue;
        };
        let attribute = &code[at..at + length];
        if attribute.contains("not(") || words(attribute, "test").next().is_none() {
            continue;
        }
        let mut item = at + length + 1;
        // Other attributes of the same item.
        while code[item..].trim_start().starts_with("#[") {
            let Some(end) = code[item..].find(']') else { break };
            item += end + 1;
        }
        let end = match body(code, item) {
            Some(open) => closing(code, open) + 1,
            None => code[item..].find(';').map_or(code.len(), |end| item + end + 1),
        };
        found.push(at..end);
    }
    found
}

/// Blanks comments and the inside of literals; collects the strings.
fn blank(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (end, keep) = match bytes[at] {
            b'/' if text[at..].starts_with("//") => (line_end(bytes, at), 0),
            b'/' if text[at..].starts_with("/*") => (comment_end(bytes, at), 0),
            b'"' => (string_end(bytes, at), 1),
            b'r' if raw_hashes(bytes, at).is_some() => {
                let hashes = raw_hashes(bytes, at).unwrap_or(0);
                (raw_end(text, at, hashes), 2 + hashes)
            }
            b'\'' => (char_end(text, at), 1),
            _ => (at + 1, 1),
        };
        if keep > 0 && end > at + 1 && bytes[at] != b'\'' {
            let tail = if bytes[at] == b'r' { keep - 1 } else { 1 };
            strings.push((
                at,
                text.get(at + keep..end.saturating_sub(tail))
                    .unwrap_or("")
                    .to_owned(),
            ));
        }
        let tail = if keep == 0 { 0 } else { 1 };
        for byte in &mut code[(at + keep).min(end)..end.saturating_sub(tail).max((at + keep).min(end))] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    (String::from_utf8_lossy(&code).into_owned(), strings)
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_u32);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// How many `#` a raw string that begins here has; none when no raw string begins here.
fn raw_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| bytes[before]);
    let starts = !before
        .is_some_and(|byte| byte.is_ascii_alphanumeric() && byte != b'b' && byte != b'c' || byte == b'_');
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    (starts && bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_end(text: &str, at: usize, hashes: usize) -> usize {
    let close = format!("\"{}", "#".repeat(hashes));
    let inside = at + 2 + hashes;
    text[inside..]
        .find(&close)
        .map_or(text.len(), |length| inside + length + close.len())
}

/// The end of a character literal, or one past the quote of a lifetime.
fn char_end(text: &str, at: usize) -> usize {
    let mut rest = text[at + 1..].char_indices();
    match rest.next() {
        Some((_, '\\')) => {
            // The escaped character is skipped: it may be the quote itself.
            rest.next();
            rest.find(|(_, c)| *c == '\'')
                .map_or(at + 1, |(length, _)| at + 1 + length + 1)
        }
        Some(_) => match rest.next() {
            Some((length, '\'')) => at + 1 + length + 1,
            _ => at + 1,
        },
        None => at + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_strings_kept() {
        let text = "let a = \"x{\\\"}\"; // {\nlet b = '{'; /* { /* } */ */ let c = r#\"q\"{\"#; fn f<'a>(x: &'a str) {}";
        let source = Source::scan(text);
        assert_eq!(source.code.len(), text.len());
        assert_eq!(source.code.matches('{').count(), 1, "{}", source.code);
        let strings: Vec<&str> = source.strings.iter().map(|(_, string)| string.as_str()).collect();
        assert_eq!(strings, ["x{\\\"}", "q\"{"]);
        assert_eq!(source.line(source.strings[1].0), 2);
    }

    #[test]
    fn functions_have_lengths() {
        let source = Source::scan(
            "fn one() -> [u8; 2] {\n  x\n}\ntrait T { fn none(&self) -> u8; }\ntype F = fn(u8) -> u8;\nfn two()\nwhere T: X\n{\n fn three() {}\n}\n",
        );
        let lengths: Vec<(String, usize)> = source
            .functions()
            .into_iter()
            .map(|function| (function.name, function.lines))
            .collect();
        assert_eq!(
            lengths,
            [
                ("one".to_owned(), 3),
                ("two".to_owned(), 5),
                ("three".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn test_items_are_not_product() {
        let source = Source::scan(
            "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n fn b() {}\n}\n#[cfg(not(test))]\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}\n",
        );
        assert_eq!(source.product_lines(), 4);
        assert_eq!(source.declared_modules(), [("more".to_owned(), true)]);
        let depths: Vec<usize> = source
            .functions()
            .iter()
            .map(|function| source.inline_depth(function.at))
            .collect();
        assert_eq!(depths, [0, 1, 0, 0]);
    }
}
