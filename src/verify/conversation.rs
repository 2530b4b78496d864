//! What is asked of an installation and what it answers.

use std::fmt;

use crate::backend::DatabaseName;
use crate::tenant::Lane;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A session that is bound to the lane's tenant, or to none.
    Session(Lane),
    /// The same, of a copy of the installation in which there is no lane but this one and
    /// the global one. The files of sources are the same.
    Alone(Lane),
    /// Whoever has the lane's file: the question is in SQLite's SQL, and nothing comes
    /// between it and the rows.
    File(Lane),
}

impl Asker {
    /// A question of this asker.
    pub fn asks(self, sql: impl Into<String>) -> Question {
        Question {
            asker: self,
            sql: sql.into(),
        }
    }

    /// The lane that the question is for.
    pub fn lane(self) -> Lane {
        match self {
            Asker::Session(lane) | Asker::Alone(lane) | Asker::File(lane) => lane,
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asker::File(lane) => f.write_str(&DatabaseName::Lane(*lane).file()),
            Asker::Session(Lane::Global) => f.write_str("no tenant"),
            Asker::Session(Lane::Tenant(tenant)) => write!(f, "{tenant}"),
            Asker::Alone(lane) => write!(f, "{} alone", Asker::Session(*lane)),
        }
    }
}

/// A statement that reads, and who sends it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Who asks.
    pub asker: Asker,
    /// The statement.
    pub sql: String,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}> {}", self.asker, self.sql)
    }
}

/// Questions in order: a line of text each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The questions.
    pub questions: Vec<Question>,
}

impl FromIterator<Question> for Conversation {
    fn from_iter<I: IntoIterator<Item = Question>>(questions: I) -> Self {
        Conversation {
            questions: questions.into_iter().collect(),
        }
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut questions = self.questions.iter();
        questions.try_for_each(|question| writeln!(f, "{question}"))
    }
}

/// The rows of an answer, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The values of each row; `None` is NULL. Bytes are in hexadecimal digits.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    /// The value of an answer of one row and one column that is not NULL.
    pub fn single(&self) -> Option<&str> {
        match self.rows.as_slice() {
            [row] => match row.as_slice() {
                [Some(value)] => Some(value),
                _ => None,
            },
            _ => None,
        }
    }

    /// Every value that is not NULL.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().flatten().flatten().map(String::as_str)
    }
}

/// A question, and its rows or the text of its error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What was asked.
    pub question: Question,
    /// The rows, or why there are none.
    pub answer: Result<Answer, String>,
}
