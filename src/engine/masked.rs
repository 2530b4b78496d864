//! A statement's text without its values, to be shown to others than its sender.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// What stands for a value.
const MASK: &str = "?";
/// What stands for what cannot be told apart from one.
const REST: &str = "...";

/// `sql` with `?` for each number and text in it, one blank for each run of blanks,
/// and no comments. Names, keywords, operators and parameters stay. Of a text that
/// cannot be taken apart, what comes after the last word that can is left out.
///
/// ```
/// use jammi_db::engine::masked;
///
/// let sql = "SELECT name FROM people\nWHERE phone = '555-0100' -- hers\n  AND age > 41";
/// assert_eq!(masked(sql), "SELECT name FROM people WHERE phone = ? AND age > ?");
/// ```
pub fn masked(sql: &str) -> String {
    let mut tokens = Vec::new();
    let whole =
        Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location_into_buf(&mut tokens);
    let mut masked = Masked::default();
    for TokenWithSpan { token, .. } in &tokens {
        masked.push(token);
    }
    if whole.is_err() {
        masked.separate();
        masked.text.push_str(REST);
    }
    masked.text
}

#[derive(Default)]
struct Masked {
    text: String,
    /// Whether the last token was a value, of which a word without a blank between
    /// is a part: `0x1f`, `1_000`.
    after_value: bool,
    blank: bool,
}

impl Masked {
    fn push(&mut self, token: &Token) {
        match token {
            Token::EOF => {}
            Token::Whitespace(_) => {
                self.blank = true;
                self.after_value = false;
            }
            Token::Word(_) if self.after_value => {}
            Token::Word(_) | Token::Placeholder(_) => {
                self.separate();
                self.text.push_str(&token.to_string());
                self.after_value = false;
            }
            other => {
                let text = other.to_string();
                let is_value = !is_punctuation(&text);
                if !(is_value && self.after_value) {
                    self.separate();
                    self.text.push_str(if is_value { MASK } else { &text });
                }
                self.after_value = is_value;
            }
        }
    }

    fn separate(&mut self) {
        if std::mem::take(&mut self.blank) && !self.text.is_empty() {
            self.text.push(' ');
        }
    }
}

/// Whether a token is one of signs alone, which no value is: those have digits,
/// letters or quotes. What a newer parser knows more is taken for a value unless it is.
fn is_punctuation(text: &str) -> bool {
    const SIGNS: &str = "()[]{},;:.+-*/%=<>!|&^~#@?\\";
    text.chars().all(|sign| SIGNS.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_masked_and_names_are_not() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT ?"),
            ("select  a.b, \"C d\"\tfrom t", "select a.b, \"C d\" from t"),
            (
                "INSERT INTO t VALUES (1, 'x''y', -2.5e3)",
                "INSERT INTO t VALUES (?, ?, -?)",
            ),
            ("SELECT '', '  ', '--', '/*'", "SELECT ?, ?, ?, ?"),
            ("SELECT E'a\\'b', N'n', X'00ff', B'01'", "SELECT ?, ?, ?, ?"),
            ("SELECT $$secret$$, $tag$secret$tag$", "SELECT ?, ?"),
            ("SELECT 0xCAFE, 1_000, 12abc", "SELECT ?, ?, ?"),
            ("SELECT $1, ?, :name", "SELECT $1, ?, :name"),
            (
                "SELECT 1 /* secret */ + /* more */ 2 -- secret",
                "SELECT ? + ?",
            ),
            (
                "SELECT a->>'k', a @> '[1]' FROM t",
                "SELECT a->>?, a @> ? FROM t",
            ),
            (
                "SELECT interval '1 day', date '2020-01-01'",
                "SELECT interval ?, date ?",
            ),
            (
                "SET app.current_tenant_id = 'x'",
                "SET app.current_tenant_id = ?",
            ),
            ("KILL QUERY 77", "KILL QUERY ?"),
            ("", ""),
            (" -- secret", ""),
        ] {
            assert_eq!(masked(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_taken_apart_is_left_out() {
        for sql in [
            "SELECT a FROM t WHERE b = 'secret",
            "SELECT a FROM t WHERE b = $$secret",
            "SELECT a FROM t WHERE b = /* secret",
            "SELECT a FROM t WHERE b = \"secret",
            "SELECT a FROM t WHERE b = E'secret\\",
        ] {
            let text = masked(sql);
            assert!(!text.contains("secret"), "{text}");
            assert!(text.starts_with("SELECT a FROM t WHERE b ="), "{text}");
            assert!(text.ends_with(REST), "{text}");
        }
    }

    #[test]
    fn a_text_cut_anywhere_shows_no_value() {
        let sql = "INSERT INTO t (a) VALUES ('secret', 424242, $q$secret$q$, E'secret', X'5ec7e7')";
        for end in 0..sql.len() {
            let text = masked(&sql[..end]);
            for value in ["secret", "4242", "5ec7"] {
                assert!(!text.contains(value), "{text}");
            }
        }
    }
}
