//! The line editor: prompt, history, and when Enter ends the input.

use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use reedline::{
    ColumnarMenu, DefaultHinter, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder,
    Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal,
    ValidationResult, Validator, default_emacs_keybindings,
};

use super::super::statements::is_complete;
use super::command::is_command;
use super::completion::{NameCompleter, Names};
use super::notice;
use crate::tenant::TenantId;

/// The variable that names the history file; empty keeps no history.
const HISTORY_VARIABLE: &str = "JAMMI_HISTORY";
/// How many inputs are kept.
const HISTORY_ENTRIES_MAX: usize = 10_000;
const COMPLETION_MENU: &str = "completion";

/// A terminal that a person types at.
pub struct Editor {
    reedline: Reedline,
}

/// What came from the terminal.
pub enum Input {
    /// Statements or a command.
    Text(String),
    /// Ctrl-C: what was typed is not to be run.
    Abandoned,
    /// Ctrl-D.
    End,
}

impl Editor {
    /// An editor that completes `names`.
    pub fn new(names: Arc<RwLock<Names>>) -> Self {
        let mut keybindings = default_emacs_keybindings();
        keybindings.add_binding(
            KeyModifiers::NONE,
            KeyCode::Tab,
            ReedlineEvent::UntilFound(vec![
                ReedlineEvent::Menu(COMPLETION_MENU.to_owned()),
                ReedlineEvent::MenuNext,
            ]),
        );
        let menu = ColumnarMenu::default().with_name(COMPLETION_MENU);
        let mut reedline = Reedline::create()
            .with_edit_mode(Box::new(Emacs::new(keybindings)))
            .with_validator(Box::new(UntilSemicolon))
            .with_hinter(Box::new(DefaultHinter::default()))
            .with_completer(Box::new(NameCompleter::new(names)))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
            .with_quick_completions(true)
            .with_partial_completions(true)
            .use_bracketed_paste(true);
        match open_history() {
            Ok(Some(history)) => reedline = reedline.with_history(Box::new(history)),
            Ok(None) => {}
            Err(error) => notice(format_args!("no history is kept: {error}")),
        }
        Editor { reedline }
    }

    /// Waits for a person to type something whole.
    pub fn read(&mut self, tenant: Option<TenantId>) -> io::Result<Input> {
        let signal = self.reedline.read_line(&TenantPrompt { tenant });
        match signal.map_err(io::Error::other)? {
            Signal::Success(text) => Ok(Input::Text(text)),
            Signal::CtrlD => Ok(Input::End),
            _ => Ok(Input::Abandoned),
        }
    }
}

/// The history, in a file that only its user may read: statements hold data.
fn open_history() -> Result<Option<FileBackedHistory>, String> {
    let Some(path) = history_path() else {
        return Ok(None);
    };
    let describe = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| describe(&error))?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path).map_err(|error| describe(&error))?;
    FileBackedHistory::with_file(HISTORY_ENTRIES_MAX, path.clone())
        .map(Some)
        .map_err(|error| describe(&error))
}

/// Where the history is kept, or `None` where none is wanted or there is no
/// home for it.
fn history_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(HISTORY_VARIABLE) {
        return (!path.is_empty()).then(|| PathBuf::from(path));
    }
    state_dir().map(|dir| dir.join("jammi").join("history"))
}

fn state_dir() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if cfg!(windows) {
        return variable("LOCALAPPDATA");
    }
    variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local").join("state")))
}

/// Enter ends the input when every statement has its `;`.
struct UntilSemicolon;

impl Validator for UntilSemicolon {
    fn validate(&self, input: &str) -> ValidationResult {
        if is_command(input) || is_complete(input) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
        }
    }
}

/// A prompt that says for whom statements run.
struct TenantPrompt {
    tenant: Option<TenantId>,
}

impl Prompt for TenantPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        match self.tenant {
            // The end of a UUID: version 7 starts with the time, which tenants
            // made together share.
            Some(tenant) => Cow::Owned(format!("jammi ..{}", &tenant.to_string()[28..])),
            None => Cow::Borrowed("jammi"),
        }
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("-> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search: {}) ", search.term))
    }
}
