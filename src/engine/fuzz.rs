//! The way of a stranger's text up to where its names are looked up.

use std::sync::OnceLock;

use super::limits::Limits;
use super::shape::Lifted;
use super::statement::{self, StatementKind};
use super::{masked, may_assign, setting};
use crate::config::EngineConfig;

/// Reads a text as a statement is read: whatever it is, it is of a kind that is served,
/// or refused.
pub fn sql(data: &[u8]) {
    static LIMITS: OnceLock<Limits> = OnceLock::new();
    let limits = LIMITS.get_or_init(|| Limits::new(&EngineConfig::default()));
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    // Whatever it is, it can be shown.
    let _ = masked(text);
    let Ok(read) = statement::read(text, limits) else {
        return;
    };
    let Ok(kind) = statement::kind_of(&read) else {
        return;
    };
    // What binds a session is told before anything is planned.
    if kind == StatementKind::Set {
        assert!(may_assign(text), "{text}");
        let _ = setting::Assignment::read(&read);
    }
    // A statement is one thing.
    let does = [kind.reads(), kind.writes_rows(), kind.defines()];
    assert!(does.iter().filter(|does| **does).count() <= 1, "{kind:?}");
    if let Some(lifted) = Lifted::of(&read) {
        // What is left is a query too, with as many parameters as values were taken out.
        let kind = statement::kind_of(&lifted.shape);
        assert!(matches!(kind, Ok(StatementKind::Query)), "{}", lifted.shape);
    }
}
