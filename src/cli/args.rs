//! What the command line accepts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::target::ServerUrl;
use crate::audit::{Place, PublicKey};
use crate::catalog::SourceFormat;
use crate::error::Error;
use crate::tenant::TenantId;
use crate::verify::Canary;

/// A multi-tenant database: one engine, one connection per tenant.
///
/// Without a command, opens the interactive shell.
#[derive(Debug, Parser)]
#[command(name = "jammi", version, max_term_width = 100)]
pub struct Cli {
    /// Where the command works and for whom.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// Reads a command line.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let cli = Cli::try_parse_from(words)?;
        // The parser knows no conflicts between flags on two sides of a command.
        if cli.global.url.is_some() && cli.global.artifact_dir.is_some() {
            return Err(Cli::command().error(
                ErrorKind::ArgumentConflict,
                "the argument '--url <URL>' cannot be used with '--artifact-dir <DIR>'",
            ));
        }
        Ok(cli)
    }
}

/// The flags that every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Work as this tenant: a UUID of version 4 or 7. Without it, on the shared rows alone.
    #[arg(long, global = true, env = "JAMMI_TENANT", value_name = "UUID")]
    pub tenant: Option<TenantId>,
    /// Work in this process on the databases of a directory.
    #[arg(long, global = true, value_name = "DIR")]
    pub artifact_dir: Option<PathBuf>,
    /// Work through a running server, as in grpc://127.0.0.1:50051. [env: JAMMI_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<ServerUrl>,
    /// Trust servers of grpc+tls:// whose certificates have their root in a PEM file, in place
    /// of the system's roots.
    #[arg(long, global = true, env = "JAMMI_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Show servers of grpc+tls:// the certificate of a PEM file.
    #[arg(
        long,
        global = true,
        env = "JAMMI_CLIENT_CERTIFICATE_FILE",
        value_name = "FILE",
        requires = "client_private_key_file"
    )]
    pub client_certificate_file: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    #[arg(
        long,
        global = true,
        env = "JAMMI_CLIENT_PRIVATE_KEY_FILE",
        value_name = "FILE",
        requires = "client_certificate_file"
    )]
    pub client_private_key_file: Option<PathBuf>,
    /// Sign in to a server as this user. The password is typed, unless there is a file of it.
    #[arg(long = "user", global = true, env = "JAMMI_USER", value_name = "NAME")]
    pub sign_in_as: Option<String>,
    /// Read that user's password from the first line of a file.
    #[arg(
        long,
        global = true,
        env = "JAMMI_PASSWORD_FILE",
        value_name = "FILE",
        requires = "sign_in_as"
    )]
    pub password_file: Option<PathBuf>,
    /// Read settings from a TOML file. [env: JAMMI_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server until it is told to stop.
    Serve(ServeArgs),
    /// Look at the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Files that are read as tables.
    #[command(subcommand)]
    Sources(SourcesCommand),
    /// Tables whose rows are stored here, and views.
    #[command(subcommand)]
    Tables(TablesCommand),
    /// The registry of models.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Run SQL and write its rows to stdout.
    Query(QueryArgs),
    /// Check that tenants are kept apart in a directory; exits with 1 where they are not.
    Verify(VerifyArgs),
    /// Talk SQL: interactively on a terminal, else statement by statement from stdin.
    Shell(OutputArgs),
    /// The keys by which clients of a server authenticate.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The users of a server who sign in by passwords of their own.
    #[command(subcommand)]
    Users(UsersCommand),
    /// The tenants of the installation, for its operator.
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// The sessions of a running server.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// The statements that a running server runs.
    #[command(subcommand)]
    Queries(QueriesCommand),
    /// The audit trail of a directory.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Copy what the tenant has to a new file, while it is in use; without a tenant, what is shared.
    Backup {
        /// The file, which must not be there yet.
        file: PathBuf,
    },
    /// Put a backup in the place of what the tenant has; without a tenant, of what is shared.
    Restore {
        /// A file that `jammi backup` wrote for the same tenant.
        file: PathBuf,
    },
}

/// How the server is run.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where gRPC, Flight SQL and gRPC-Web are served; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where health and metrics are served by plain HTTP; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT")]
    pub http_listen: Option<String>,
    /// Start with a small data set of three tenants and a shared table.
    #[arg(long)]
    pub sample: bool,
}

/// What to check beside what has to hold of every installation.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Also run the statements of a file, which only read, as every tenant.
    #[arg(long, value_name = "FILE")]
    pub statements: Vec<PathBuf>,
    /// A text that only one tenant may be shown.
    #[arg(
        long = "canary",
        value_name = "UUID=TEXT",
        value_parser = canary,
        requires = "statements"
    )]
    pub canaries: Vec<Canary>,
}

fn canary(text: &str) -> Result<Canary, String> {
    let (tenant, text) = text.split_once('=').ok_or("write a tenant, = and a text")?;
    let tenant = tenant.parse().map_err(|error: Error| error.to_string())?;
    match text.is_empty() {
        true => Err("the text is empty".into()),
        false => Ok(Canary {
            tenant,
            text: text.to_owned(),
        }),
    }
}

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting as it takes effect.
    Show,
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key, whose text is shown once.
    Create(CreateKeyArgs),
    /// List the keys. Their texts are not kept.
    List(OutputArgs),
    /// Make another key in place of one.
    Rotate {
        /// What the old key is recognised by: what follows `jammi_` in it.
        id: String,
        /// How long the old key is accepted still.
        #[arg(long, value_name = "HOURS", default_value_t = 0)]
        overlap_hours: u32,
    },
    /// Have a key refused from now on.
    Revoke {
        /// What the key is recognised by: what follows `jammi_` in it.
        id: String,
    },
}

/// A key to be made.
#[derive(Debug, Args)]
pub struct CreateKeyArgs {
    /// Whose key it is: a name of your choosing.
    #[arg(value_name = "USER")]
    pub user: String,
    /// A tenant that it acts for; may be repeated.
    #[arg(long = "acts-for", value_name = "UUID")]
    pub acts_for: Vec<TenantId>,
    /// Let it act for any tenant.
    #[arg(long, conflicts_with = "acts_for")]
    pub all_tenants: bool,
    /// What it may do beside that, such as global-writer; may be repeated.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Have it refused after so many days.
    #[arg(long, value_name = "DAYS")]
    pub expires_in_days: Option<u32>,
}

/// What to do with users. Passwords are read from stdin, one line.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Make a user, whose password is read from stdin.
    Create(NewUserArgs),
    /// List the users. Their passwords are not kept.
    List(OutputArgs),
    /// Give a user another password, which is read from stdin.
    Passwd {
        /// The user's name.
        name: String,
    },
    /// Have a user refused from now on.
    Drop {
        /// The user's name.
        name: String,
    },
}

/// A user to be made.
#[derive(Debug, Args)]
pub struct NewUserArgs {
    /// The name to sign in by.
    pub name: String,
    /// A tenant that the user acts for; may be repeated.
    #[arg(long = "acts-for", value_name = "UUID")]
    pub acts_for: Vec<TenantId>,
    /// Let the user act for any tenant.
    #[arg(long, conflicts_with = "acts_for")]
    pub all_tenants: bool,
    /// What the user may do beside that, such as global-writer; may be repeated.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// Register a tenant, and say its id.
    Create {
        /// What you call it.
        #[arg(default_value = "")]
        name: String,
        /// The tenant's id, where it has one already.
        #[arg(long, value_name = "UUID")]
        id: Option<TenantId>,
        /// The tenant above, which is registered.
        #[arg(long, value_name = "UUID")]
        parent: Option<TenantId>,
        /// Let tenants below read its rows.
        #[arg(long)]
        shares: bool,
    },
    /// List the tenants: those that are registered, and those who have rows alone.
    List(OutputArgs),
    /// Show a tenant and what it has.
    Describe {
        /// The tenant; that of --tenant when not given.
        id: Option<TenantId>,
        /// How the rows are written.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change what is registered of a tenant.
    Update {
        /// The tenant.
        id: TenantId,
        /// What you call it.
        #[arg(long)]
        name: Option<String>,
        /// The tenant above, which is registered.
        #[arg(long, value_name = "UUID", conflicts_with = "no_parent")]
        parent: Option<TenantId>,
        /// Put no tenant above it.
        #[arg(long)]
        no_parent: bool,
        /// Whether tenants below read its rows.
        #[arg(long, value_name = "BOOL")]
        shares: Option<bool>,
    },
    /// Have a tenant's requests refused from now on. What it has is kept.
    Suspend {
        /// The tenant.
        id: TenantId,
    },
    /// Let a tenant be used again.
    Resume {
        /// The tenant.
        id: TenantId,
    },
    /// Write one state of a tenant to a new file, while it is in use.
    Export {
        /// The tenant.
        id: TenantId,
        /// The file, which must not be there yet.
        file: PathBuf,
    },
    /// Take in the tenant of a file that export wrote: all of it, or nothing.
    Import {
        /// The file.
        file: PathBuf,
        /// Put it in the place of what the tenant has here.
        #[arg(long)]
        replace: bool,
        /// Leave out rows of shared tables that there are not here.
        #[arg(long)]
        without_shared_rows: bool,
    },
    /// Remove all that is kept of a suspended tenant, and write a certificate of it.
    Erase {
        /// The tenant.
        id: TenantId,
        /// The tenant once more.
        #[arg(long, value_name = "UUID")]
        confirm: TenantId,
    },
    /// Show what a tenant stores and has asked for.
    Usage {
        /// The tenant; that of --tenant when not given.
        id: Option<TenantId>,
        /// How the rows are written.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// What to do with the sessions of a server.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List the sessions of which the server keeps anything, those that were used last first.
    List(ListingArgs),
    /// End a session: its binding, transactions, temporary tables and running statements.
    End {
        /// What the list calls it.
        id: u64,
    },
}

/// What to do with the statements that a server runs.
#[derive(Debug, Subcommand)]
pub enum QueriesCommand {
    /// List the statements that run, those that began first first.
    List(ListingArgs),
    /// End a statement. Its client is told so.
    Cancel {
        /// What the list calls it.
        id: u64,
    },
}

/// How much is listed, and how.
#[derive(Debug, Args)]
pub struct ListingArgs {
    /// How many are listed at most, up to 10000.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub limit: u32,
    /// How the rows are written.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no record was removed or changed; exits with 1 where one was.
    Verify(VerifyAuditArgs),
    /// Print the public key by which the trail is checked, to be kept elsewhere.
    Key,
    /// Write the records that the tenant may see to a file; without a tenant, all of them.
    Export {
        /// The file, which appears when all of them are written.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// How they are written.
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Parquet)]
        format: OutputFormat,
    },
}

/// What the audit trail is checked against.
#[derive(Debug, Args)]
pub struct VerifyAuditArgs {
    /// The public key, as `jammi audit key` printed it; that of the directory when not given.
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub public_key: Option<PublicKey>,
    /// A checkpoint that an earlier check printed, which the trail has to hold.
    #[arg(long, value_name = "POSITION:HASH")]
    pub checkpoint: Option<Place>,
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).ok_or_else(|| "write it as `jammi audit key` does".to_owned())
}

/// What to do with sources.
#[derive(Debug, Subcommand)]
pub enum SourcesCommand {
    /// List the sources that can be read.
    List(OutputArgs),
    /// Register files as a table.
    Add(AddSourceArgs),
    /// Show a source and its columns.
    Describe {
        /// The source's name.
        name: String,
        /// How the rows are written.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Read the schema of a source's files again.
    Refresh {
        /// The source's name.
        name: String,
    },
    /// Forget a source. Its files stay where they are.
    Drop {
        /// The source's name.
        name: String,
    },
}

/// A source to be registered.
#[derive(Debug, Args)]
pub struct AddSourceArgs {
    /// The name in SQL: NAME.public.NAME.
    pub name: String,
    /// A file, a glob or a directory: a path, or a file:// or s3:// URL.
    pub location: String,
    /// How the files are encoded; read from their names when not given.
    #[arg(long, value_name = "FORMAT", value_parser = source_format())]
    pub format: Option<SourceFormat>,
    /// The column that says which tenant a row belongs to.
    #[arg(long, value_name = "COLUMN", conflicts_with = "no_tenant_column")]
    pub tenant_column: Option<String>,
    /// Rows carry no tenant: whoever sees the source sees all of them.
    #[arg(long)]
    pub no_tenant_column: bool,
}

/// What to do with tables.
#[derive(Debug, Subcommand)]
pub enum TablesCommand {
    /// List the stored tables and views that can be read.
    List(OutputArgs),
    /// Show a table with its columns and constraints, or a view.
    Describe {
        /// The table's name.
        name: String,
        /// How the rows are written.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make a table.
    Create(CreateTableArgs),
    /// Forget a table and its rows.
    Drop {
        /// The table's name.
        name: String,
    },
}

/// A table to be made.
#[derive(Debug, Args)]
pub struct CreateTableArgs {
    /// The table's name.
    pub name: String,
    /// Take the columns of a Parquet or Arrow file; its rows stay there.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "columns",
        required_unless_present = "columns"
    )]
    pub schema_from: Option<PathBuf>,
    /// The columns as in CREATE TABLE, as in "id BIGINT PRIMARY KEY, title VARCHAR".
    #[arg(long, value_name = "SQL")]
    pub columns: Option<String>,
    /// The columns of the primary key.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub primary_key: Vec<String>,
    /// The columns of a unique constraint; may be given more than once.
    #[arg(long, value_name = "COLUMN,...")]
    pub unique: Vec<String>,
    /// Leave an existing table of the name as it is.
    #[arg(long)]
    pub if_not_exists: bool,
}

/// What to do with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List the models that can be read.
    List {
        /// The versions of this model alone.
        name: Option<String>,
        /// How the rows are written.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Record a version of a model.
    Register {
        /// The model's name.
        name: String,
        /// The version, new for this model.
        version: String,
        /// Where the model's artifact is.
        uri: String,
        /// What else is known of it.
        #[arg(long, value_name = "JSON", default_value = "{}")]
        metadata: String,
    },
    /// Show one version of a model.
    Describe {
        /// The model's name.
        name: String,
        /// The version; the one registered last when not given.
        version: Option<String>,
        /// How the rows are written.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Forget a version of a model.
    Drop {
        /// The model's name.
        name: String,
        /// The version.
        version: String,
    },
}

/// SQL to be run, from one of three places.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Statements, separated by `;`.
    #[arg(value_name = "SQL", required_unless_present_any = ["command", "file"])]
    pub sql: Option<String>,
    /// Statements, as with psql.
    #[arg(short = 'c', long, value_name = "SQL", conflicts_with = "sql")]
    pub command: Option<String>,
    /// Read the statements from a file; `-` is stdin.
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with_all = ["sql", "command"])]
    pub file: Option<PathBuf>,
    /// Write the rows to a file, which appears when all of them are written.
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Read the rows of these tenants through a server, with the role super-admin. It is
    /// recorded for each of them before there are any.
    #[arg(long, value_name = "UUID", value_delimiter = ',', requires = "reason")]
    pub bypass: Vec<TenantId>,
    /// Why their rows are read.
    #[arg(long, value_name = "TEXT", requires = "bypass")]
    pub reason: Option<String>,
    /// How the rows are written.
    #[command(flatten)]
    pub format: OutputArgs,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// How rows are written.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub format: OutputFormat,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns in line, for people.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// One array of objects.
    Json,
    /// One object a line.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl OutputFormat {
    /// Whether the bytes are not for a terminal, and two results in a row do
    /// not make one.
    pub fn is_binary(self) -> bool {
        match self {
            OutputFormat::Arrow | OutputFormat::Parquet => true,
            OutputFormat::Table | OutputFormat::Csv | OutputFormat::Json | OutputFormat::Ndjson => {
                false
            }
        }
    }
}

/// Parses a [`SourceFormat`] and offers its names in help and completions.
fn source_format() -> impl clap::builder::TypedValueParser<Value = SourceFormat> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(SourceFormat::ALL.map(SourceFormat::as_str))
        .try_map(|name| name.parse::<SourceFormat>())
}
