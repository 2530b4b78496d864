//! A PostgreSQL cluster of this bench's own, and its own programs as clients.
//!
//! Tenants are kept apart as PostgreSQL documents it: row-level security with a
//! policy on a setting, for a role that may not go around it. What is
//! acknowledged is on the disk, as by default.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::data::COLUMNS;
use crate::shared::Outcome;

/// Where Debian's packages put the programs.
const DEBIAN_BIN: &str = "/usr/lib/postgresql/15/bin";
/// The setting that says whose rows a session sees.
pub const SETTING: &str = "app.current_tenant_id";
/// The role that row-level security holds for.
const TENANTS_ROLE: &str = "app";
/// Who the tables belong to, and who loads them: COPY does not go with
/// row-level security.
const OWNER: &str = "postgres";
/// The system's user that the server runs as where this program is root, whom
/// it refuses to run as.
const SYSTEM_USER: &str = "postgres";
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A directory that both databases keep their files in, so that both are on one
/// disk: below `parent` unless the system's user cannot go there.
pub fn work_dir(parent: &Path) -> Outcome<tempfile::TempDir> {
    let make = |parent: &Path| -> Outcome<_> {
        let dir = tempfile::Builder::new()
            .prefix("tables-")
            .tempdir_in(parent)?;
        // The system's user goes through it to its own below.
        finish(Command::new("chmod").arg("a+x").arg(dir.path()))?;
        Ok(dir)
    };
    let dir = make(parent)?;
    let reachable = as_system_user(Path::new("test"))?
        .arg("-d")
        .arg(dir.path().join("."))
        .status()?;
    if reachable.success() {
        return Ok(dir);
    }
    let elsewhere = Path::new("/var/tmp");
    eprintln!(
        "the user {SYSTEM_USER} cannot go to {}: both databases are kept in {}",
        parent.display(),
        elsewhere.display()
    );
    make(elsewhere)
}

/// A server that is stopped when this is dropped, and dies with this program.
pub struct Postgres {
    process: Child,
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Postgres {
    /// A new cluster in `dir`, and the tables that are measured.
    pub fn start(dir: &Path) -> Outcome<Postgres> {
        let bin = bin()?;
        let own = dir.join("postgres");
        fs::create_dir(&own)?;
        if is_root()? {
            let owner = format!("{SYSTEM_USER}:");
            finish(Command::new("chown").arg(owner).arg(&own))?;
        }
        let cluster = own.join("cluster");
        finish(
            as_system_user(&bin.join("initdb"))?
                .args(["-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-U", OWNER])
                .args(["--no-sync", "-D"])
                .arg(&cluster),
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = as_system_user(&bin.join("postgres"))?;
        command
            .arg("-D")
            .arg(&cluster)
            .args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=on",
            "synchronous_commit=on",
            "shared_buffers=1GB",
            // No checkpoint in the middle of a COPY.
            "max_wal_size=4GB",
        ] {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(dir.join("postgres.log"))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Postgres {
            process,
            bin,
            dir: dir.to_owned(),
            port,
        };
        server.wait()?;
        server.sql(&schema())?;
        Ok(server)
    }

    fn wait(&mut self) -> Outcome {
        let began = Instant::now();
        loop {
            let ready = self.client("pg_isready", OWNER).arg("-q").status()?;
            if ready.success() {
                return Ok(());
            }
            if self.process.try_wait()?.is_some() || began.elapsed() > START_TIME_MAX {
                let log = fs::read_to_string(self.dir.join("postgres.log"))?;
                return Err(format!("PostgreSQL did not start: {log}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Which version answers.
    pub fn version(&self) -> Outcome<String> {
        finish(Command::new(self.bin.join("postgres")).arg("--version"))
    }

    /// Runs `sql` as the tables' owner.
    pub fn sql(&self, sql: &str) -> Outcome<String> {
        finish(self.psql(OWNER).args(["-c", sql]))
    }

    /// Gives `items` the other policy, which means the same, and plans anew.
    pub fn set_policy(&self, policy: Policy) -> Outcome {
        let drop = "DROP POLICY own ON items;";
        self.sql(&format!("{drop}{}", policy.sql("items")))?;
        Ok(())
    }

    /// What a tenant's role gets for `sql`.
    pub fn sql_of_tenant(&self, tenant: &str, sql: &str) -> Outcome<String> {
        let options = format!("-c {SETTING}={tenant}");
        finish(
            self.psql(TENANTS_ROLE)
                .env("PGOPTIONS", options)
                .args(["-c", sql]),
        )
    }

    /// Copies the rows of a file on this side to a tenant's rows of `table`, or
    /// the table's columns to the file.
    pub fn copy(&self, table: &str, tenant: &str, how: Transfer, file: &Path) -> Outcome {
        let (direction, format) = match how {
            Transfer::FromCsv => ("from", "csv"),
            Transfer::FromBinary => ("from", "binary"),
            Transfer::ToBinary => ("to", "binary"),
        };
        let columns = COLUMNS.map(|(name, _, _)| name).join(", ");
        let sql = format!(
            "\\copy {table} ({columns}) {direction} '{}' (format {format})",
            file.display()
        );
        let options = format!("-c {SETTING}={tenant}");
        finish(
            self.psql(OWNER)
                .env("PGOPTIONS", options)
                .args(["-c", &sql]),
        )?;
        Ok(())
    }

    /// Runs `script` over and over as the tenants' role.
    pub fn bench(&self, script: &str, load: &Load) -> Outcome<Benched> {
        let dir = tempfile::tempdir_in(&self.dir)?;
        let file = dir.path().join("script.sql");
        fs::write(&file, script)?;
        let mut command = self.client("pgbench", TENANTS_ROLE);
        command
            .args(["-n", "-M", load.protocol])
            .arg("-f")
            .arg(&file)
            .args(["-c", &load.clients.to_string()])
            .args(["-j", &load.clients.min(2).to_string()])
            .args(["-D", "bound=0"]);
        match load.amount {
            Amount::Seconds(seconds) => command.args(["-T", &seconds.to_string()]),
            Amount::Transactions(count) => command.args(["-t", &count.to_string()]),
        };
        if load.latencies {
            command
                .arg("-l")
                .arg("--log-prefix")
                .arg(dir.path().join("log"));
        }
        let printed = finish(command.arg("postgres"))?;
        let a_second = printed
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .ok_or_else(|| format!("pgbench says no rate: {printed}"))?;
        let mut latencies = vec![];
        for entry in fs::read_dir(dir.path())? {
            let path = entry?.path();
            if path != file {
                latencies.extend(read_latencies(&fs::read_to_string(path)?)?);
            }
        }
        Ok(Benched {
            a_second,
            latencies,
        })
    }

    fn psql(&self, role: &str) -> Command {
        let mut command = self.client("psql", role);
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "postgres",
        ]);
        command
    }

    fn client(&self, program: &str, role: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .args(["-h", "127.0.0.1", "-U", role])
            .args(["-p", &self.port.to_string()]);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // As the server's own programs stop it: at once, and its processes too.
        let stopped = as_system_user(&self.bin.join("pg_ctl")).and_then(|mut command| {
            let command = command.args(["stop", "-s", "-m", "immediate", "-D"]);
            finish(command.arg(self.dir.join("postgres/cluster")))
        });
        if let Err(error) = stopped {
            eprintln!("PostgreSQL was not stopped: {error}");
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// How a policy asks for the setting.
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// By itself, which the planner takes for a function that may be called for
    /// each row.
    Plain,
    /// In a subquery, which is run once for a query: faster where many rows are
    /// read, slower where one is.
    Subquery,
}

impl Policy {
    fn sql(self, table: &str) -> String {
        let setting = format!("current_setting('{SETTING}')::uuid");
        let setting = match self {
            Policy::Plain => setting,
            Policy::Subquery => format!("(SELECT {setting})"),
        };
        let own = format!("tenant_id = {setting}");
        format!("CREATE POLICY own ON {table} USING ({own}) WITH CHECK ({own});")
    }
}

/// What is copied to where.
#[derive(Clone, Copy, Debug)]
pub enum Transfer {
    FromCsv,
    FromBinary,
    ToBinary,
}

/// What pgbench does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// `prepared`, or `simple` where every statement is text.
    pub protocol: &'static str,
    pub clients: u32,
    pub amount: Amount,
    /// Whether each transaction's latency is wanted, which costs a little.
    pub latencies: bool,
}

/// How long pgbench runs.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    Seconds(u32),
    Transactions(u32),
}

/// What pgbench measured.
pub struct Benched {
    /// Transactions a second.
    pub a_second: f64,
    /// How long each took.
    pub latencies: Vec<Duration>,
}

/// A log of pgbench: a line for each transaction, with microseconds third.
fn read_latencies(log: &str) -> Outcome<Vec<Duration>> {
    log.lines()
        .map(|line| {
            let field = line.split(' ').nth(2).ok_or("a line has a latency")?;
            Ok(Duration::from_micros(field.parse()?))
        })
        .collect()
}

/// The tables, each under row-level security and with a key on tenant and id.
fn schema() -> String {
    let items = COLUMNS
        .map(|(name, _, postgres)| format!("{name} {postgres}"))
        .join(", ");
    let mut sql = format!("CREATE ROLE {TENANTS_ROLE} LOGIN;");
    for (table, columns) in [
        ("items", items.as_str()),
        ("loaded", items.as_str()),
        (
            "notes",
            "id bigint NOT NULL, title text NOT NULL, score double precision",
        ),
    ] {
        let policy = Policy::Plain.sql(table);
        sql.push_str(&format!(
            "CREATE TABLE {table} (
                tenant_id uuid NOT NULL DEFAULT current_setting('{SETTING}')::uuid,
                {columns}, PRIMARY KEY (tenant_id, id));
             ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
             ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
             {policy}
             GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {TENANTS_ROLE};"
        ));
    }
    sql
}

/// Where PostgreSQL's programs are.
fn bin() -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from(DEBIAN_BIN))
        .chain(std::env::split_paths(&path))
        .find(|dir| {
            ["postgres", "initdb", "psql", "pgbench"]
                .iter()
                .all(|program| dir.join(program).is_file())
        })
        .ok_or_else(|| {
            format!(
                "PostgreSQL's programs are neither in {DEBIAN_BIN} nor on the PATH: install \
                 Debian's package postgresql-15"
            )
            .into()
        })
}

/// `program`, run by a user that is not root, and stopped when this program ends.
fn as_system_user(program: &Path) -> Outcome<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root()? {
        let user = format!("--reuid={SYSTEM_USER}");
        command.args([user, format!("--regid={SYSTEM_USER}")]);
        command.arg("--clear-groups");
    }
    // Where this program stands, that user may not be.
    command.current_dir("/").arg("--").arg(program);
    Ok(command)
}

fn is_root() -> Outcome<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// Runs `command` to its end: what it printed.
fn finish(command: &mut Command) -> Outcome<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed: {said}").into())
}
