//! What a line that is being typed says around its cursor.
//!
//! It need not be SQL yet: whatever can be told from it is.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Word};

/// A table that a line reads or writes, by the names it has there.
#[derive(Debug, PartialEq, Eq)]
pub struct Relation {
    /// The dotted name, in one to three parts.
    pub path: Vec<String>,
    /// The name given to it.
    pub alias: Option<String>,
}

/// The tables after FROM, JOIN, INTO and UPDATE.
pub fn relations(line: &str) -> Vec<Relation> {
    let mut tokens = Vec::new();
    // What does not tokenize yet is not finished: what precedes it counts.
    let _ = Tokenizer::new(&GenericDialect {}, line).tokenize_with_location_into_buf(&mut tokens);
    let words: Vec<Token> = tokens
        .into_iter()
        .map(|token| token.token)
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .collect();
    let mut relations = Vec::new();
    for (at, token) in words.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        if !matches!(
            word.keyword,
            Keyword::FROM | Keyword::JOIN | Keyword::INTO | Keyword::UPDATE
        ) {
            continue;
        }
        let (path, rest) = path_at(&words[at + 1..]);
        let alias = alias_at(rest);
        relations.push(Relation { path, alias });
    }
    relations
}

/// Where the word that ends `text` starts. A quoted name is a word.
pub fn word_start(text: &str) -> usize {
    let is_part = |character: char| {
        character.is_alphanumeric() || matches!(character, '_' | '.' | '"' | '\\' | '?')
    };
    text.trim_end_matches(is_part).len()
}

/// Whether `text` ends within a string.
pub fn is_in_string(text: &str) -> bool {
    text.matches('\'').count() % 2 == 1
}

/// Whether a table is what comes after `text`.
pub fn expects_table(text: &str) -> bool {
    let last = text
        .trim_end()
        .rsplit(|character: char| !character.is_alphanumeric())
        .next();
    let openers = [
        "from", "join", "table", "describe", "into", "update", "truncate", "view", "using",
    ];
    text.ends_with(char::is_whitespace)
        && last.is_some_and(|last| openers.iter().any(|word| word.eq_ignore_ascii_case(last)))
}

/// The dotted name that `tokens` start with, and what follows it.
fn path_at(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [Token::Word(word), after @ ..] = rest {
        path.push(meaning(word));
        rest = after;
        match rest {
            [Token::Period, after @ ..] => rest = after,
            _ => break,
        }
    }
    (path, rest)
}

/// The alias that `tokens` start with.
fn alias_at(tokens: &[Token]) -> Option<String> {
    match tokens {
        [Token::Word(word), Token::Word(alias), ..] if word.keyword == Keyword::AS => {
            Some(meaning(alias))
        }
        [Token::Word(alias), ..] if alias.keyword == Keyword::NoKeyword => Some(meaning(alias)),
        _ => None,
    }
}

/// The name that a word means: unquoted ones are in lower case.
fn meaning(word: &Word) -> String {
    match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read_from_unfinished_lines() {
        for (line, expected) in [
            ("select", &[][..]),
            ("select * from A.b as X where", &[("a.b", Some("x"))]),
            (
                "from t join \"U v\" u on",
                &[("t", None), ("U v", Some("u"))],
            ),
            ("select 'open from t", &[]),
            ("from t where a = 'open", &[("t", None)]),
            ("insert into t (", &[("t", None)]),
            ("update t as x set", &[("t", Some("x"))]),
        ] {
            let found = relations(line);
            let found: Vec<_> = found
                .iter()
                .map(|relation| (relation.path.join("."), relation.alias.as_deref()))
                .collect();
            let found: Vec<_> = found
                .iter()
                .map(|(path, alias)| (path.as_str(), *alias))
                .collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn a_table_follows_from_and_join() {
        for (text, expected) in [
            ("select * from ", true),
            ("select * FROM", false),
            ("from a join\n", true),
            ("insert into ", true),
            ("UPDATE ", true),
            ("from a where ", false),
            ("", false),
        ] {
            assert_eq!(expects_table(text), expected, "{text:?}");
        }
    }
}
