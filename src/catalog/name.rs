//! What sources and models may be called, and how errors spell what they are
//! called.

use crate::error::{Error, Result};

use super::{NewModel, NewSource, TENANT_COLUMN};

/// The longest name of a source, in bytes.
pub const SOURCE_NAME_BYTES_MAX: usize = 63;
/// The longest name of a table, a view, an index or a constraint, in bytes.
pub const RELATION_NAME_BYTES_MAX: usize = 63;
/// The longest name of a table's column, in bytes.
pub const COLUMN_NAME_BYTES_MAX: usize = 255;
/// What names of the columns that the engine adds for itself start with.
pub(crate) const RESERVED_COLUMN_PREFIX: &str = "_jammi_";
/// The longest name and the longest version of a model, in bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 255;
/// The longest URI of a model, in bytes.
pub const MODEL_URI_BYTES_MAX: usize = 4096;
/// The longest metadata of a model, in bytes.
pub const MODEL_METADATA_BYTES_MAX: usize = 1 << 20;

/// Names that mean something else at the head of a table's name in SQL.
const RESERVED_SOURCE_NAMES: [&str; 7] = [
    "jammi",
    "mutable",
    "information_schema",
    "public",
    "pg_catalog",
    "datafusion",
    "default",
];

/// Whether a source may be called `name`: 1 to 63 lower-case letters, digits
/// and underscores, no digit first, and not a reserved name. Refusing capitals
/// means that a name needs no quotes in SQL, which folds what is not quoted.
pub fn check_source_name(name: &str) -> Result<()> {
    let refuse = |why: &str, mend: &str| {
        Err(Error::InvalidArgument(format!(
            "source name {} {why}: {mend}",
            shown(name)
        )))
    };
    const MEND: &str =
        "use 1 to 63 lower-case letters, digits and underscores, with no digit first";
    if name.is_empty() {
        return refuse("is empty", MEND);
    }
    if name.len() > SOURCE_NAME_BYTES_MAX {
        return refuse(&format!("has {} bytes", name.len()), MEND);
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.bytes().all(is_word) || name.starts_with(|first: char| first.is_ascii_digit()) {
        return refuse("is not a plain identifier", MEND);
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return refuse("has upper-case letters", "use lower case");
    }
    if RESERVED_SOURCE_NAMES.contains(&name) {
        return refuse("is reserved", "choose another");
    }
    Ok(())
}

/// Whether a table, a view, an index or a constraint may be called `name`: any
/// text of 1 to 63 bytes without control characters. Rows are stored under
/// numbers, so a name is never more than a name.
pub fn check_relation_name(name: &str) -> Result<()> {
    check_identifier("name", name, RELATION_NAME_BYTES_MAX)
}

/// Whether a column may be called `name`: any text of 1 to 255 bytes without
/// control characters that is not mistaken for one of the server's own.
pub fn check_column_name(name: &str) -> Result<()> {
    check_identifier("column name", name, COLUMN_NAME_BYTES_MAX)?;
    let own = |reserved: &str| name != reserved && name.eq_ignore_ascii_case(reserved);
    if own(TENANT_COLUMN) {
        return Err(Error::InvalidArgument(format!(
            "column name {} looks like `tenant_id`, which every table has: leave it out, or choose \
             another",
            shown(name)
        )));
    }
    if name.starts_with(RESERVED_COLUMN_PREFIX) {
        return Err(Error::InvalidArgument(format!(
            "column name {} is reserved: choose one that does not start with \
             {RESERVED_COLUMN_PREFIX}",
            shown(name)
        )));
    }
    Ok(())
}

fn check_identifier(what: &str, name: &str, bytes_max: usize) -> Result<()> {
    if name.is_empty() || name.len() > bytes_max || name.chars().any(char::is_control) {
        return Err(Error::InvalidArgument(format!(
            "{what} {} cannot be used: use 1 to {bytes_max} bytes without control characters",
            shown(name)
        )));
    }
    Ok(())
}

/// Whether a source can be recorded.
pub(super) fn check_source(source: &NewSource) -> Result<()> {
    check_source_name(&source.name)?;
    if source.location.is_empty() {
        return Err(Error::InvalidArgument(format!(
            "the location of source {} is empty: name a file, a glob or a directory",
            shown(&source.name)
        )));
    }
    Ok(())
}

/// Whether a model can be recorded.
pub(super) fn check_model(model: &NewModel) -> Result<()> {
    check_model_text("name", &model.name)?;
    check_model_text("version", &model.version)?;
    let name = shown(&model.name);
    if model.uri.is_empty() || model.uri.len() > MODEL_URI_BYTES_MAX {
        return Err(Error::InvalidArgument(format!(
            "the uri of model {name} has {} bytes: use 1 to {MODEL_URI_BYTES_MAX}",
            model.uri.len()
        )));
    }
    if model.metadata.len() > MODEL_METADATA_BYTES_MAX {
        return Err(Error::InvalidArgument(format!(
            "the metadata of model {name} has {} bytes: use at most {MODEL_METADATA_BYTES_MAX}, \
             and keep the rest where the model is",
            model.metadata.len()
        )));
    }
    match serde_json::from_str::<serde_json::Value>(&model.metadata) {
        Ok(serde_json::Value::Object(_)) => Ok(()),
        Ok(_) => Err(Error::InvalidArgument(format!(
            "the metadata of model {name} is not a JSON object: write {{\"key\": value}}"
        ))),
        Err(error) => Err(Error::InvalidArgument(format!(
            "the metadata of model {name} is not JSON ({error}): write {{\"key\": value}}"
        ))),
    }
}

fn check_model_text(what: &str, text: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::InvalidArgument(format!(
            "model {what} {} {why}: use 1 to {MODEL_NAME_BYTES_MAX} bytes without control \
             characters",
            shown(text)
        )))
    };
    if text.is_empty() {
        return refuse("is empty");
    }
    if text.len() > MODEL_NAME_BYTES_MAX {
        return refuse(&format!("has {} bytes", text.len()));
    }
    if text.chars().any(char::is_control) {
        return refuse("has a control character");
    }
    Ok(())
}

/// `text` in backquotes, with what could disturb a terminal or a log escaped,
/// and cut to a length that fits an error.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let mut head: String = text
        .chars()
        .take(SHOWN_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        head.push_str("...");
    }
    format!("`{head}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_names_are_lower_case_identifiers() {
        let longest = "x".repeat(SOURCE_NAME_BYTES_MAX);
        let too_long = "x".repeat(SOURCE_NAME_BYTES_MAX + 1);
        for (name, ok) in [
            ("inbox", true),
            ("_", true),
            ("in_box_2", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("2inbox", false),
            ("Inbox", false),
            ("in-box", false),
            ("in box", false),
            ("inbox\n", false),
            ("inbox\0", false),
            ("inb\u{f6}x", false),
            ("in\"box", false),
            ("a.b", false),
            ("..", false),
            ("jammi", false),
            ("mutable", false),
            ("information_schema", false),
            ("public", false),
        ] {
            assert_eq!(check_source_name(name).is_ok(), ok, "{name:?}");
        }
    }

    #[test]
    fn upper_case_is_told_to_use_lower_case() {
        let error = check_source_name("Inbox").unwrap_err().to_string();
        assert_eq!(
            error,
            "source name `Inbox` has upper-case letters: use lower case"
        );
    }

    #[test]
    fn models_have_bounded_text_and_object_metadata() {
        let model = |name: &str, version: &str, uri: &str, metadata: &str| NewModel {
            name: name.into(),
            version: version.into(),
            uri: uri.into(),
            metadata: metadata.into(),
        };
        let longest = "n".repeat(MODEL_NAME_BYTES_MAX);
        let too_long = "n".repeat(MODEL_NAME_BYTES_MAX + 1);
        let long_uri = "u".repeat(MODEL_URI_BYTES_MAX + 1);
        let big = format!("{{\"k\": \"{}\"}}", "v".repeat(MODEL_METADATA_BYTES_MAX));
        let deep = format!("{{\"k\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for (model, ok) in [
            (model("bert", "1", "s3://m/bert", "{}"), true),
            (model("BERT base/2", "v1.0 beta", "x", "{\"a\": [1]}"), true),
            (model(&longest, &longest, "x", " {} "), true),
            (model(&too_long, "1", "x", "{}"), false),
            (model("bert", &too_long, "x", "{}"), false),
            (model("", "1", "x", "{}"), false),
            (model("bert", "", "x", "{}"), false),
            (model("be\nrt", "1", "x", "{}"), false),
            (model("bert", "1\u{9b}", "x", "{}"), false),
            (model("bert", "1", "", "{}"), false),
            (model("bert", "1", &long_uri, "{}"), false),
            (model("bert", "1", "x", ""), false),
            (model("bert", "1", "x", "[]"), false),
            (model("bert", "1", "x", "{} {}"), false),
            (model("bert", "1", "x", "{'a': 1}"), false),
            (model("bert", "1", "x", &big), false),
            (model("bert", "1", "x", &deep), false),
        ] {
            assert_eq!(check_model(&model).is_ok(), ok, "{}", model.name);
        }
    }

    #[test]
    fn shown_names_are_escaped_and_cut() {
        assert_eq!(shown("a\u{1b}[2J"), "`a\\u{1b}[2J`");
        assert!(shown(&"x".repeat(10_000)).len() < 100);
    }
}
