//! Where one SQL statement ends and the next begins.
//!
//! The text is cut at the `;` tokens of SQL's own grammar, so a `;` in a
//! string, a quoted name or a comment separates nothing. Statements are not
//! parsed: that is the engine's, and its errors are the ones that users see.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{
    Location, Token, TokenWithSpan, Tokenizer, TokenizerError,
};

/// A text cut into statements.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The statements that a `;` ends, without it, in order. Empty ones and
    /// those of comments alone are left out.
    pub ended: Vec<&'a str>,
    /// What follows the last `;`: an unfinished statement, or nothing that
    /// could be run.
    pub rest: &'a str,
}

/// Cuts `text`, which may end within a statement, a string or a comment.
pub fn split(text: &str) -> Split<'_> {
    let mut tokens = Vec::new();
    let unterminated = tokenize(text, &mut tokens).is_err();
    let lines = LineIndex::new(text);
    let mut split = Split {
        ended: Vec::new(),
        rest: "",
    };
    let mut start = 0;
    let mut has_content = false;
    for token in &tokens {
        match &token.token {
            Token::SemiColon => {
                let end = lines.offset(token.span.start);
                if has_content {
                    split.ended.push(text[start..end].trim());
                }
                start = end + 1;
                has_content = false;
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => has_content = true,
        }
    }
    if has_content || unterminated {
        split.rest = text[start..].trim();
    }
    split
}

/// Cuts a whole script, whose last statement needs no `;`.
pub fn split_script(text: &str) -> Vec<&str> {
    let split = split(text);
    let mut statements = split.ended;
    if !split.rest.is_empty() {
        statements.push(split.rest);
    }
    statements
}

/// Whether nothing is left to be typed: every statement has its `;`.
pub fn is_complete(text: &str) -> bool {
    split(text).rest.is_empty()
}

fn tokenize(text: &str, tokens: &mut Vec<TokenWithSpan>) -> Result<(), TokenizerError> {
    // Escapes are left as written: only the places of tokens are of interest.
    Tokenizer::new(&GenericDialect {}, text)
        .with_unescape(false)
        .tokenize_with_location_into_buf(tokens)
}

/// Byte offsets of the lines of a text: the tokenizer counts lines and
/// characters.
struct LineIndex<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    fn new(text: &'a str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        LineIndex {
            text,
            starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// The byte offset of a location, both of whose numbers start at 1.
    fn offset(&self, location: Location) -> usize {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX);
        let column = usize::try_from(location.column).unwrap_or(usize::MAX);
        let Some(&start) = self.starts.get(line.saturating_sub(1)) else {
            return self.text.len();
        };
        self.text[start..]
            .char_indices()
            .nth(column.saturating_sub(1))
            .map_or(self.text.len(), |(at, _)| start + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statements_end_at_semicolons_of_the_grammar() {
        for (text, expected) in [
            ("", vec![]),
            (" \n ; ;; \n", vec![]),
            ("-- only a comment;\n", vec![]),
            ("/* a; b */;", vec![]),
            ("select 1", vec!["select 1"]),
            ("select 1;", vec!["select 1"]),
            ("select 1; select 2", vec!["select 1", "select 2"]),
            ("select ';' ; select 2", vec!["select ';'", "select 2"]),
            (
                "select 'it''s; so';select 2;",
                vec!["select 'it''s; so'", "select 2"],
            ),
            ("select \"a;b\"; x", vec!["select \"a;b\"", "x"]),
            ("select $$a;b$$; x", vec!["select $$a;b$$", "x"]),
            (
                "select 1 -- one; two\n; x",
                vec!["select 1 -- one; two", "x"],
            ),
            (
                "select 1 /* ; /* ; */ ; */; x",
                vec!["select 1 /* ; /* ; */ ; */", "x"],
            ),
            (
                "select 'é\u{1F600};';\r\nselect '日本';x",
                vec!["select 'é\u{1F600};'", "select '日本'", "x"],
            ),
            (
                "select 'two\nlines;\n' ; x",
                vec!["select 'two\nlines;\n'", "x"],
            ),
            ("select ?; select $1", vec!["select ?", "select $1"]),
            // What does not tokenize goes to the engine, which says why.
            (
                "select 1; select 'open; x",
                vec!["select 1", "select 'open; x"],
            ),
        ] {
            assert_eq!(split_script(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_shell_waits_for_the_semicolon() {
        for (text, complete) in [
            ("", true),
            ("  ", true),
            ("-- note", true),
            ("select 1", false),
            ("select 1;", true),
            ("select 1; -- done", true),
            ("select 1; select", false),
            ("select ';", false),
            ("select 1; /* ", false),
            ("select 1 ; ;", true),
        ] {
            assert_eq!(is_complete(text), complete, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn cutting_never_panics(text in "[a-z0-9'\";$?\\-/* \n\ré\u{1F600}]{0,80}") {
            let _ = split_script(&text);
        }

        #[test]
        fn statements_come_back_as_written(
            parts in prop::collection::vec("select '[a-z; \né]{0,9}', \"[a-z;]{1,5}\"", 0..6),
        ) {
            let script: String = parts.iter().map(|part| format!("{part} ;\n")).collect();
            prop_assert_eq!(split_script(&script), parts);
        }
    }
}
