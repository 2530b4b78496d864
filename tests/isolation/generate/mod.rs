//! Conversations of a seed: worlds, and what is said in them.
//!
//! What a statement yields is decided by its rows alone: ties are broken, sums are
//! exact, and nothing depends on the time. So two answers differ only where the
//! rows behind them do.

mod define;
mod expression;
mod metadata;
mod oracle;
mod query;
mod relation;
mod world;
mod write;

pub use define::TABLE_COLUMNS;
pub use oracle::shared;
pub use world::private;

use crate::dice::Dice;

/// What an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Integer,
    Text,
    /// Quarters, whose sums are exact.
    Double,
    Boolean,
}

pub const TYPES: [Type; 4] = [Type::Integer, Type::Text, Type::Double, Type::Boolean];

/// Something that a statement can name.
#[derive(Clone, Debug)]
pub struct Table {
    /// As it is spelled in SQL.
    pub sql: String,
    /// Its last name.
    pub name: String,
    pub columns: Vec<(String, Type)>,
    /// Whether `tenant_id` is among its columns as text.
    pub tenant: bool,
    /// Whether Alice writes rows of it.
    pub writable: bool,
    /// Whether its definition is Alice's.
    pub own: bool,
}

/// A column that an expression may use.
#[derive(Clone, Debug)]
pub struct Column {
    /// With its relation's name.
    pub sql: String,
    pub of: Type,
    /// Whether it is as the table has it, so that Bob's values can be felt in it.
    pub stored: bool,
}

/// The state of a generator: what exists, and what it decides by.
pub struct Generator {
    pub dice: Dice,
    pub tables: Vec<Table>,
    /// Names of WITH queries that can be read here, and the types of their
    /// columns `c0`, `c1` and so on.
    ctes: Vec<(String, Vec<Type>)>,
    /// How many names were made up.
    names: usize,
    /// How many relations the statement may still read.
    relations: usize,
    /// Whether expressions may fail on a row, of Bob or of Alice.
    pub traps: bool,
    /// Whether expressions may be subqueries.
    subqueries: bool,
    /// Whether they may be IN and ANY of one, which DataFusion 55 makes false where
    /// they are NULL, so that no condition is true of such a row.
    lists: bool,
}

impl Generator {
    pub fn new(dice: Dice) -> Self {
        Generator {
            dice,
            tables: Vec::new(),
            ctes: Vec::new(),
            names: 0,
            relations: 0,
            traps: true,
            subqueries: true,
            lists: true,
        }
    }

    /// Starts a statement that reads so many relations, or a few more.
    fn begin(&mut self, relations: usize) {
        self.names = 0;
        self.relations = relations;
        self.ctes.clear();
    }

    /// A name that nothing has, from `prefix`.
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn types(&mut self, most: usize) -> Vec<Type> {
        let count = 1 + self.dice.below(most);
        (0..count).map(|_| TYPES[self.dice.below(4)]).collect()
    }

    /// A statement that only reads.
    pub fn reads(&mut self) -> String {
        self.begin(5);
        let types = self.types(4);
        self.ordered_query(&types, 2)
    }
}
