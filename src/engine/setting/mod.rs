//! `app.current_tenant_id`: the tenant that a session is bound to, as a setting of
//! SQL. SHOW and `current_setting` read it, SET, RESET and `set_config` say what it
//! is to be.
//!
//! Architecture invariant: nothing holds the setting. It is read from the scope
//! that a statement is planned for; a statement that sets it is handed to whoever
//! keeps the session's binding, and never reaches DataFusion's options.

mod function;

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, ContextModifier, Set};

pub(super) use function::function;

use super::params::is_placeholder;
use super::statement::{only_binds, parse_one};
use super::stream::RecordStream;
use crate::error::{Error, Result};
use crate::tenant::TenantId;

/// The setting's name, which is of either case as every name of a setting.
pub const TENANT_SETTING: &str = "app.current_tenant_id";

const CURRENT_SETTING: &str = "current_setting";
const SET_CONFIG: &str = "set_config";

/// What a SET, a RESET or a `SELECT set_config` says of the setting.
#[derive(Debug)]
pub struct Assignment {
    value: Value,
    /// Whether it answers with the value, as `set_config` does.
    answers: bool,
}

#[derive(Debug)]
enum Value {
    Known(Option<TenantId>),
    /// `$1`.
    Parameter,
}

impl Assignment {
    /// The tenant that the session is to be bound to, or none, where `parameters`
    /// are the statement's.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that is no tenant, or as many as are not asked
    /// for.
    pub fn tenant(&self, parameters: &[ScalarValue]) -> Result<Option<TenantId>> {
        match (&self.value, parameters) {
            (Value::Known(tenant), []) => Ok(*tenant),
            (Value::Parameter, [value]) => match value.try_as_str() {
                Some(text) => tenant_of(text),
                None if value.is_null() => Ok(None),
                None => Err(Error::InvalidArgument(format!(
                    "{TENANT_SETTING} is text, and the parameter is {}: send a UUID as text",
                    value.data_type()
                ))),
            },
            (value, _) => Err(Error::InvalidArgument(format!(
                "the statement has {} parameters and {} values are bound",
                matches!(value, Value::Parameter) as usize,
                parameters.len()
            ))),
        }
    }

    /// What the statement answers with once `tenant` is bound.
    pub fn answer(&self, tenant: Option<TenantId>) -> Result<RecordStream> {
        let schema = self.schema();
        if !self.answers {
            return Ok(RecordStream::empty(schema));
        }
        let text = tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
        let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column])
            .map_err(|error| Error::internal("the setting cannot be answered", error))?;
        Ok(RecordStream::ready(schema, vec![batch]))
    }

    pub(super) fn answers(&self) -> bool {
        self.answers
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(match self.answers {
            true => Schema::new(vec![Field::new(SET_CONFIG, DataType::Utf8, true)]),
            false => Schema::empty(),
        })
    }

    pub(super) fn parameters(&self) -> SchemaRef {
        Arc::new(match self.value {
            Value::Parameter => Schema::new(vec![Field::new("$1", DataType::Utf8, true)]),
            Value::Known(_) => Schema::empty(),
        })
    }

    /// Reads a statement of the kind [`super::StatementKind::Set`].
    pub(super) fn read(statement: &ast::Statement) -> Result<Self> {
        match statement {
            ast::Statement::Set(Set::SingleAssignment {
                scope,
                hivevar: false,
                variable,
                values,
            }) => {
                check_name(&name_of(variable))?;
                check_scope(*scope)?;
                let [value] = values.as_slice() else {
                    return Err(no_value(&listed(values)));
                };
                Ok(Assignment {
                    value: value_of(value)?,
                    answers: false,
                })
            }
            ast::Statement::Reset(ast::ResetStatement {
                reset: ast::Reset::ConfigurationParameter(name),
            }) => {
                check_name(&name_of(name))?;
                Ok(Assignment {
                    value: Value::Known(None),
                    answers: false,
                })
            }
            ast::Statement::Query(query) => match set_config_of(query) {
                Some(call) => Self::read_call(call),
                None => Err(unserved(statement)),
            },
            other => Err(unserved(other)),
        }
    }

    fn read_call(call: &ast::Function) -> Result<Self> {
        let wrong = || {
            Error::InvalidArgument(format!(
                "`{call}` is not served: send SELECT {SET_CONFIG}('{TENANT_SETTING}', '<uuid>', \
                 false)"
            ))
        };
        let arguments = arguments_of(call).ok_or_else(wrong)?;
        let [name, value, is_local] = arguments.as_slice() else {
            return Err(wrong());
        };
        check_name(text_of(name).ok_or_else(wrong)?)?;
        match is_local {
            ast::Expr::Value(ast::ValueWithSpan {
                value: ast::Value::Boolean(local),
                ..
            }) => check_scope(local.then_some(ContextModifier::Local))?,
            _ => return Err(wrong()),
        }
        Ok(Assignment {
            value: value_of(value)?,
            answers: true,
        })
    }
}

/// Whether a text may set the setting: what does not look so is not parsed to find
/// out. One that does may be anything else all the same.
pub fn may_assign(sql: &str) -> bool {
    let text = first_word(sql);
    let starts_with = |word: &str| starts_with_word(text, word);
    // A comment may hide the first word.
    starts_with("SET")
        || starts_with("RESET")
        || is_comment(text)
        || (starts_with("SELECT") && {
            let rest = text["SELECT".len()..].trim_start();
            is_comment(rest) || starts_with_word(rest, SET_CONFIG)
        })
}

/// A text from its first word or comment on: empty statements may be before it.
pub fn first_word(sql: &str) -> &str {
    sql.trim_start_matches(|c: char| c.is_whitespace() || c == ';')
}

fn is_comment(text: &str) -> bool {
    text.starts_with("--") || text.starts_with("/*")
}

fn starts_with_word(text: &str, word: &str) -> bool {
    let start = text.get(..word.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn has_set_config(text: &str) -> bool {
    let mut windows = text.as_bytes().windows(SET_CONFIG.len());
    windows.any(|window| window.eq_ignore_ascii_case(SET_CONFIG.as_bytes()))
}

/// Whether a query is a bare `SELECT set_config(...)`.
pub(super) fn is_set_config(query: &ast::Query) -> bool {
    set_config_of(query).is_some()
}

/// Refuses `set_config` in a statement that is more than the call: a query changes
/// nothing.
pub(super) fn check_calls(sql: &str, statement: &ast::Statement) -> Result<()> {
    if !has_set_config(sql) || only_binds(statement) {
        return Ok(());
    }
    let called = ast::visit_expressions(statement, |expr| match expr {
        ast::Expr::Function(call) if is_named_set_config(call) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if called.is_continue() {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "{SET_CONFIG} is a statement of its own: send SELECT {SET_CONFIG}('{TENANT_SETTING}', \
         '<uuid>', false)"
    )))
}

fn is_named_set_config(call: &ast::Function) -> bool {
    let last = call.name.0.last().and_then(ast::ObjectNamePart::as_ident);
    last.is_some_and(|name| name.value.eq_ignore_ascii_case(SET_CONFIG))
}

/// The call that a query is, if it is nothing else.
fn set_config_of(query: &ast::Query) -> Option<&ast::Function> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let [ast::SelectItem::UnnamedExpr(ast::Expr::Function(call))] = select.projection.as_slice()
    else {
        return None;
    };
    // Whatever else the grammar knows of a query would be shown.
    let is_set_config = call.name.to_string().eq_ignore_ascii_case(SET_CONFIG);
    (is_set_config && query.to_string() == format!("SELECT {call}")).then_some(call)
}

/// What `SHOW name` means.
pub(super) fn shown(statement: &ast::Statement) -> Result<ast::Statement> {
    let ast::Statement::ShowVariable { variable } = statement else {
        return Err(unserved(statement));
    };
    let parts: Vec<&str> = variable.iter().map(|part| part.value.as_str()).collect();
    let name = parts.join(".");
    if !is_tenant_setting(&name) {
        return Err(Error::InvalidArgument(format!(
            "{}: SHOW {TENANT_SETTING}, TABLES, COLUMNS FROM table and FUNCTIONS are served",
            unrecognized(&name)
        )));
    }
    parse_one(&format!(
        "SELECT {CURRENT_SETTING}('{TENANT_SETTING}', true) AS \"{TENANT_SETTING}\""
    ))
}

fn name_of(name: &ast::ObjectName) -> String {
    let parts = name.0.iter().map(|part| match part.as_ident() {
        Some(ident) => ident.value.clone(),
        None => part.to_string(),
    });
    parts.collect::<Vec<_>>().join(".")
}

fn is_tenant_setting(name: &str) -> bool {
    name.eq_ignore_ascii_case(TENANT_SETTING)
}

fn check_name(name: &str) -> Result<()> {
    if is_tenant_setting(name) {
        return Ok(());
    }
    Err(Error::Unimplemented(format!(
        "SET is not served of {name:?}: {TENANT_SETTING} is the one setting of a session"
    )))
}

/// Refuses what would end with the transaction, or reach other sessions.
fn check_scope(scope: Option<ContextModifier>) -> Result<()> {
    match scope {
        None | Some(ContextModifier::Session) => Ok(()),
        Some(ContextModifier::Local) => Err(Error::Unimplemented(format!(
            "{TENANT_SETTING} is not set for a transaction alone, since a transaction belongs to \
             the tenant that it was begun for: SET it without LOCAL, or {SET_CONFIG} with false, \
             before the transaction"
        ))),
        Some(ContextModifier::Global) => Err(Error::Unimplemented(format!(
            "{TENANT_SETTING} is a session's own: SET it without GLOBAL"
        ))),
    }
}

fn value_of(value: &ast::Expr) -> Result<Value> {
    match value {
        value if is_placeholder(value) => Ok(Value::Parameter),
        ast::Expr::Identifier(word) if is_default(word) => Ok(Value::Known(None)),
        ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Null,
            ..
        }) => Ok(Value::Known(None)),
        value => match text_of(value) {
            Some(text) => tenant_of(Some(text)).map(Value::Known),
            None => Err(no_value(&value.to_string())),
        },
    }
}

fn is_default(word: &ast::Ident) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case("DEFAULT")
}

/// The empty text is no tenant, as where row security is written with
/// `current_setting` in Postgres.
fn tenant_of(text: Option<&str>) -> Result<Option<TenantId>> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some),
    }
}

fn text_of(value: &ast::Expr) -> Option<&str> {
    match value {
        ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::SingleQuotedString(text),
            ..
        }) => Some(text),
        _ => None,
    }
}

fn arguments_of(call: &ast::Function) -> Option<Vec<&ast::Expr>> {
    let ast::FunctionArguments::List(list) = &call.args else {
        return None;
    };
    let arguments = list.args.iter().map(|argument| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    arguments.collect()
}

fn listed(values: &[ast::Expr]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(", ")
}

fn no_value(shown: &str) -> Error {
    Error::InvalidArgument(format!(
        "{TENANT_SETTING} cannot be {shown}: write '<uuid>' in quotes, a parameter, or DEFAULT for \
         no tenant"
    ))
}

fn unserved(statement: &ast::Statement) -> Error {
    Error::Unimplemented(format!(
        "`{statement}` is not served: SET {TENANT_SETTING} = '<uuid>' and RESET {TENANT_SETTING} \
         are"
    ))
}

fn unrecognized(name: &str) -> String {
    format!("unrecognized configuration parameter \"{name}\"")
}
