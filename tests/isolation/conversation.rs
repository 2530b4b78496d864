//! The format of conversations: a line for each thing that somebody does.
//!
//! ```text
//! operator query> CREATE TABLE t1 (id BIGINT PRIMARY KEY, n BIGINT)
//! bob@one query> INSERT INTO t1 (id, n) VALUES (1, 777)
//! alice query> SELECT id FROM t1 WHERE 1 / (n - 777) = 0
//! ```
//!
//! `@one` and `@other` are heard by one of the two servers alone. Empty lines and
//! those that start with `#` are comments.

use std::fmt;
use std::str::FromStr;

/// How a line reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `partitions N`, `dedicated true` or `batches false`: see [`Settings`].
    Setting,
    /// `SOURCE [values]` or `SOURCE xCOUNT [values]`: rows of a source that is
    /// registered later, of whoever says so.
    Row,
    /// `NAME LAYOUT ENCODING`: see `files`; `stored` is a table's layout.
    Source,
    /// A statement by GetFlightInfo and DoGet.
    Query,
    /// A statement by DoPut.
    Update,
    /// `[parameters] STATEMENT`: prepared, bound and run.
    Prepared,
    /// `TABLE MODE [rows]`, by CommandStatementIngest.
    Ingest,
    /// A call that is no statement: see `play`.
    Call,
    /// `QUERY == QUERY`: both yield the same rows.
    Same,
    /// `QUERY == QUERY`: the first, of each lane, yields together what the second
    /// does of all rows, as the operator asks it.
    Lanes,
}

const ROUTES: [(&str, Route); 10] = [
    ("setting", Route::Setting),
    ("row", Route::Row),
    ("source", Route::Source),
    ("query", Route::Query),
    ("update", Route::Update),
    ("prepared", Route::Prepared),
    ("ingest", Route::Ingest),
    ("call", Route::Call),
    ("same", Route::Same),
    ("lanes", Route::Lanes),
];

/// The two servers.
pub const WORLDS: [&str; 2] = ["one", "other"];

#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub who: String,
    /// The server that alone hears it.
    pub world: Option<usize>,
    pub route: Route,
    pub text: String,
}

impl Line {
    pub fn new(who: &str, route: Route, text: impl Into<String>) -> Self {
        Line {
            who: who.to_owned(),
            world: None,
            route,
            text: text.into(),
        }
    }

    pub fn only(self, world: usize) -> Self {
        Line {
            world: Some(world),
            ..self
        }
    }

    /// Whether what is answered must be the same on both servers. Bob's answers
    /// are his own, and the operator may meet Bob's rows when it defines tables.
    pub fn is_compared(&self) -> bool {
        match self.route {
            Route::Setting | Route::Row | Route::Source => false,
            // Says by itself whether it holds.
            Route::Same | Route::Lanes => true,
            Route::Query => self.world.is_none() && self.who != "bob",
            Route::Update | Route::Prepared | Route::Ingest | Route::Call => {
                self.world.is_none() && !matches!(self.who.as_str(), "bob" | "operator")
            }
        }
    }

    /// The statement of the line, where there is one, and what is before it.
    pub fn statement(&self) -> Option<(&str, &str)> {
        match self.route {
            Route::Query | Route::Update => Some(("", &self.text)),
            Route::Prepared => {
                let end = self.text.find("] ")? + 2;
                Some(self.text.split_at(end))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = ROUTES.iter().find(|(_, route)| *route == self.route);
        let (name, _) = named.expect("every route has a name");
        let (at, world) = match self.world {
            Some(world) => ("@", WORLDS[world]),
            None => ("", ""),
        };
        write!(f, "{}{at}{world} {name}> {}", self.who, self.text)
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("no line of a conversation: {line}");
        let (head, text) = line.split_once("> ").ok_or_else(wrong)?;
        let (who, route) = head.split_once(' ').ok_or_else(wrong)?;
        let (_, route) = ROUTES
            .iter()
            .find(|(name, _)| *name == route)
            .ok_or_else(wrong)?;
        let (who, world) = match who.split_once('@') {
            None => (who, None),
            Some((who, world)) => {
                let place = WORLDS.iter().position(|name| *name == world);
                (who, Some(place.ok_or_else(wrong)?))
            }
        };
        Ok(Line {
            who: who.to_owned(),
            world,
            route: *route,
            text: text.to_owned(),
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    pub lines: Vec<Line>,
}

/// What a conversation asks of the servers and of the comparison.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// In how many partitions a query runs: one unless said otherwise.
    pub partitions: usize,
    /// Whether the other server is a dedicated one: it holds Alice's rows and
    /// everybody's, in files in which no tenant is looked at, so that rows and status
    /// codes alone are compared. The first one has all rows in such files too, as
    /// `NAME_all`.
    pub dedicated: bool,
    /// Whether it is compared how rows came in batches.
    pub batches: bool,
}

impl Conversation {
    pub fn settings(&self) -> Settings {
        let mut settings = Settings {
            partitions: 1,
            dedicated: false,
            batches: true,
        };
        for line in self.lines.iter().filter(|l| l.route == Route::Setting) {
            match line.text.split_once(' ') {
                Some(("partitions", count)) => settings.partitions = count.parse().unwrap(),
                Some(("dedicated", "true")) => settings.dedicated = true,
                Some(("batches", "false")) => settings.batches = false,
                _ => panic!("no setting of a conversation: {line}"),
            }
        }
        settings
    }

    pub fn push(&mut self, who: &str, route: Route, text: impl Into<String>) {
        self.lines.push(Line::new(who, route, text));
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Conversation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines: Result<Vec<Line>, String> = lines.map(str::parse).collect();
        Ok(Conversation { lines: lines? })
    }
}

#[test]
fn a_conversation_is_read_as_it_is_printed() {
    let text = "server setting> partitions 2\n\
                bob@one row> s1 x30 [1, 777, \"x\", 0.5, true]\n\
                operator source> s1 hive text\n\
                alice prepared> [1, \"a]\"] SELECT $1 > 2, '> '\n";
    let conversation: Conversation = text.parse().unwrap();
    assert_eq!(conversation.to_string(), text);
    assert_eq!(conversation.settings().partitions, 2);
    assert!("alice says> hello".parse::<Conversation>().is_err());
}
