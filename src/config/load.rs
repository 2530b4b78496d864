//! Layering: where each setting's value comes from, and how that is shown.
//!
//! Invariant: the environment, the working directory and the flags are
//! arguments; only [`ConfigSources::from_process`] looks at the process.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::JammiConfig;
use super::keys::{COMMAND_LINE_VARIABLES, KEYS, Key, Kind, VARIABLE_PREFIX, siblings};
use crate::error::{Error, Result};

/// The file that is read when none is named and it exists.
const DEFAULT_FILE: &str = "jammi.toml";

/// The variable that names the file.
const FILE_VARIABLE: &str = "JAMMI_CONFIG";

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// The file named by `--config`, which must exist. `JAMMI_CONFIG` names it
    /// where this is absent; where both are, `jammi.toml` in `working_dir` is
    /// read if it exists.
    pub file: Option<PathBuf>,
    /// Where `jammi.toml` is looked for; nowhere when empty.
    pub working_dir: PathBuf,
    /// Variables by name; those that do not start with `JAMMI_` are ignored.
    pub environment: Vec<(String, String)>,
    /// The flags that were given.
    pub flags: Vec<FlagValue>,
}

/// A flag that sets a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagValue {
    /// The flag as the user typed it, for messages: `--listen`.
    pub flag: &'static str,
    /// The setting: `server.listen`.
    pub key: &'static str,
    /// The text given.
    pub value: String,
}

impl ConfigSources {
    /// The process's environment and working directory, without flags.
    ///
    /// # Errors
    /// A `JAMMI_*` variable that is not UTF-8.
    pub fn from_process() -> Result<Self> {
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name
                .to_str()
                .filter(|name| name.starts_with(VARIABLE_PREFIX))
            else {
                continue;
            };
            let value = value.into_string().map_err(|_| {
                Error::InvalidArgument(format!(
                    "environment variable {name} is not UTF-8: set it to UTF-8 text, or unset it"
                ))
            })?;
            environment.push((name.to_owned(), value));
        }
        Ok(ConfigSources {
            working_dir: PathBuf::from("."),
            environment,
            ..ConfigSources::default()
        })
    }

    /// The file to read, if any.
    fn file(&self) -> Option<PathBuf> {
        if let Some(file) = &self.file {
            return Some(file.clone());
        }
        let named = self
            .environment
            .iter()
            .find(|(name, _)| name == FILE_VARIABLE);
        if let Some((_, file)) = named {
            return Some(PathBuf::from(file));
        }
        if self.working_dir.as_os_str().is_empty() {
            return None;
        }
        let default = self.working_dir.join(DEFAULT_FILE);
        default.exists().then_some(default)
    }
}

impl JammiConfig {
    /// The settings that `sources` say, checked.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the setting, where it came from,
    /// and what to write instead.
    pub fn load(sources: ConfigSources) -> Result<JammiConfig> {
        let (config, _) = layers(&sources)?;
        Ok(config)
    }
}

/// The settings that `sources` say as a TOML file, with a comment behind each
/// value that says where it came from.
///
/// # Errors
/// As [`JammiConfig::load`].
pub fn show(sources: ConfigSources) -> Result<String> {
    let (config, figment) = layers(&sources)?;
    let values = toml::Table::try_from(&config)
        .map_err(|error| Error::internal("settings cannot be shown", error))?;
    let mut text = String::new();
    let mut table = "";
    for key in KEYS {
        let (key_table, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if key_table != table {
            table = key_table;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n[{table}]");
        }
        let _ = match find(&values, key.path) {
            Some(value) => {
                let origin = figment
                    .find_metadata(key.path)
                    .map_or("default", |metadata| metadata.name.as_ref());
                writeln!(text, "{name} = {value}  # {origin}")
            }
            None => writeln!(text, "# {name} is not set"),
        };
    }
    Ok(text)
}

/// The value at a dotted path.
fn find<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    match path.split_once('.') {
        Some((head, rest)) => find(table.get(head)?.as_table()?, rest),
        None => table.get(path),
    }
}

/// Merges the layers, the strongest last, and keeps which one each value is of.
fn layers(sources: &ConfigSources) -> Result<(JammiConfig, Figment)> {
    let mut figment = Figment::from(Layer::defaults()?);
    if let Some(file) = sources.file() {
        figment = figment.merge(file_layer(&file)?);
    }
    for (name, text) in &sources.environment {
        if let Some(layer) = variable_layer(name, text)? {
            figment = figment.merge(layer);
        }
    }
    for flag in &sources.flags {
        let key = Key::find(flag.key).ok_or_else(|| unknown(flag.key, flag.flag))?;
        let value = key.parse(&flag.value, flag.flag)?;
        figment = figment.merge(Layer::one(flag.flag.to_owned(), key.path, value));
    }
    let config: JammiConfig = figment.extract().map_err(|error| wrong_value(&error))?;
    config.validate()?;
    Ok((config, figment))
}

/// Values with one origin.
struct Layer {
    origin: String,
    values: Dict,
}

impl Layer {
    fn defaults() -> Result<Layer> {
        let value = Value::serialize(JammiConfig::default())
            .map_err(|error| Error::internal("default settings cannot be read", error))?;
        Ok(Layer {
            origin: "default".into(),
            values: value.into_dict().unwrap_or_default(),
        })
    }

    fn one(origin: String, path: &str, value: Value) -> Layer {
        Layer {
            origin,
            values: figment::util::nest(path, value)
                .into_dict()
                .unwrap_or_default(),
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn variable_layer(name: &str, text: &str) -> Result<Option<Layer>> {
    if !name.starts_with(VARIABLE_PREFIX) || COMMAND_LINE_VARIABLES.contains(&name) {
        return Ok(None);
    }
    let Some(key) = Key::of_variable(name) else {
        let path = name[VARIABLE_PREFIX.len()..]
            .to_ascii_lowercase()
            .replace("__", ".");
        return Err(unknown(&path, &format!("environment variable {name}")));
    };
    let value = key.parse(text, name)?;
    Ok(Some(Layer::one(name.to_owned(), key.path, value)))
}

fn file_layer(file: &Path) -> Result<Layer> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::InvalidArgument(format!(
            "settings file {shown} cannot be read ({error}): name a readable file with --config \
             or {FILE_VARIABLE}"
        ))
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text
            .bytes()
            .take(start)
            .filter(|byte| *byte == b'\n')
            .count();
        Error::InvalidArgument(format!(
            "settings file {shown} is not TOML at line {line}: {}",
            error.message()
        ))
    })?;
    check_names(&table, "", &shown)?;
    let value = Value::serialize(&table)
        .map_err(|error| Error::internal("settings file cannot be read", error))?;
    Ok(Layer {
        origin: shown,
        values: value.into_dict().unwrap_or_default(),
    })
}

/// Every name below `table` is a setting, and its value of the setting's kind.
fn check_names(table: &toml::Table, prefix: &str, origin: &str) -> Result<()> {
    for (name, value) in table {
        let path = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        let inside = format!("{path}.");
        let is_table = KEYS.iter().any(|key| key.path.starts_with(&inside));
        match (Key::find(&path), value) {
            (None, toml::Value::Table(inner)) if is_table => check_names(inner, &path, origin)?,
            (None, _) if is_table => {
                return Err(Error::InvalidArgument(format!(
                    "`{path}` in {origin} is a table of settings: write [{path}] and its settings \
                     below ({})",
                    siblings(&inside)
                )));
            }
            (None, _) => return Err(unknown(&path, origin)),
            (Some(key), value) if !is_of_kind(value, key.kind) => {
                return Err(Error::InvalidArgument(format!(
                    "setting `{path}` in {origin} is {value}: write {}",
                    key.kind.expected()
                )));
            }
            (Some(_), _) => {}
        }
    }
    Ok(())
}

fn is_of_kind(value: &toml::Value, kind: Kind) -> bool {
    match kind {
        Kind::Text => value.is_str(),
        Kind::Number => value.as_integer().is_some_and(|number| number >= 0),
        Kind::Switch => value.is_bool(),
        Kind::List => value
            .as_array()
            .is_some_and(|items| items.iter().all(toml::Value::is_str)),
    }
}

fn unknown(path: &str, origin: &str) -> Error {
    Error::InvalidArgument(format!(
        "setting `{path}` ({origin}) is not known: use one of {}",
        siblings(path)
    ))
}

fn wrong_value(error: &figment::Error) -> Error {
    let origin = error
        .metadata
        .as_ref()
        .map_or("default", |metadata| metadata.name.as_ref());
    Error::InvalidArgument(format!(
        "setting `{}` ({origin}) is wrong: {}",
        error.path.join("."),
        error.kind
    ))
}
