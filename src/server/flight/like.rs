//! The patterns of metadata requests.

/// A pattern as in SQL's LIKE: `%` is any run of characters, `_` any one, and a
/// backslash takes the next character as it is. Every text is a pattern: an odd
/// one matches little or nothing, and is never an error.
pub(super) struct LikePattern(Vec<Token>);

#[derive(Clone, Copy, PartialEq)]
enum Token {
    AnyRun,
    AnyOne,
    Exactly(char),
}

impl LikePattern {
    /// Reads `pattern`.
    pub fn new(pattern: &str) -> Self {
        let mut tokens = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            let token = match character {
                // Runs in a row are one run.
                '%' if tokens.last() == Some(&Token::AnyRun) => continue,
                '%' => Token::AnyRun,
                '_' => Token::AnyOne,
                '\\' => Token::Exactly(characters.next().unwrap_or('\\')),
                _ => Token::Exactly(character),
            };
            tokens.push(token);
        }
        LikePattern(tokens)
    }

    /// Whether the whole of `text` fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut token, mut at) = (0, 0);
        // Where to take up again when what follows a run does not fit: the run
        // takes one character more. Only the latest run matters, which bounds
        // the work by the product of the two lengths.
        let mut run: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.0.get(token) {
                Some(Token::AnyRun) => {
                    run = Some((token, at));
                    token += 1;
                }
                Some(Token::AnyOne) => (token, at) = (token + 1, at + 1),
                Some(Token::Exactly(character)) if *character == text[at] => {
                    (token, at) = (token + 1, at + 1);
                }
                Some(Token::Exactly(_)) | None => match &mut run {
                    Some((start, taken)) => {
                        *taken += 1;
                        (token, at) = (*start + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        self.0[token..].iter().all(|rest| *rest == Token::AnyRun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("inbox", "inbox", true),
            ("inbox", "Inbox", false),
            ("inbox", "inbox2", false),
            ("", "", true),
            ("", "inbox", false),
            ("%", "", true),
            ("%", "inbox", true),
            ("in%", "inbox", true),
            ("%box", "inbox", true),
            ("%b%x", "inboxbox", true),
            ("%%%", "inbox", true),
            ("i%z", "inbox", false),
            ("_nbox", "inbox", true),
            ("_____", "inbox", true),
            ("____", "inbox", false),
            ("a_b", "axb", true),
            (r"a\_b", "axb", false),
            (r"a\_b", "a_b", true),
            (r"a\%", "a%", true),
            (r"a\%", "abc", false),
            (r"a\\b", r"a\b", true),
            (r"a\", r"a\", true),
            ("_", "\u{e9}", true),
            ("select * from (", "inbox", false),
            ("[a-z]*", "inbox", false),
            ("%aab", "aaaaab", true),
        ] {
            assert_eq!(
                LikePattern::new(pattern).matches(text),
                fits,
                "{pattern:?} {text:?}"
            );
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = LikePattern::new(&"%a".repeat(500));
        assert!(!pattern.matches(&"b".repeat(60)));
        assert!(!pattern.matches(&"a".repeat(499)));
        assert!(pattern.matches(&"a".repeat(500)));
    }
}
