//! Servers in processes of their own, and one client for all of them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandPreparedStatementUpdate, CommandStatementIngest, DoPutUpdateResult, ProstMessageExt,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use jammi_db::TenantId;
use jammi_db::server::proto::session::session_service_client::SessionServiceClient;
use jammi_db::server::proto::session::{SetTenantRequest, Tenant};
use prost::Message;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::Outcome;

const SESSION_HEADER: &str = "jammi-session-id";

/// A server that is killed when this is dropped.
pub struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// The measured server over `artifact_dir`, with every setting at its default
    /// but for those variables.
    pub fn jammi(artifact_dir: &Path, settings: &[(&str, &str)]) -> Outcome<Server> {
        let log = artifact_dir.join("server.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_jammi"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--http-listen", "127.0.0.1:0", "--artifact-dir"])
            .arg(artifact_dir)
            .stderr(std::fs::File::create(&log)?);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"JAMMI_") {
                command.env_remove(name);
            }
        }
        command.envs(settings.iter().copied());
        Server::start(command).map_err(|error| {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            format!("{error}: {log}").into()
        })
    }

    /// What `command` starts, which prints where it listens.
    pub fn start(mut command: Command) -> Outcome<Server> {
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().ok_or("stdout is a pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let mut server = Server {
            process,
            address: String::new(),
        };
        match line.trim().strip_prefix("listening grpc://") {
            Some(address) => server.address = format!("http://{address}"),
            None => return Err(format!("{command:?} did not start: {line:?}").into()),
        }
        Ok(server)
    }

    /// Kills the server and waits for its end, so that another can take its place.
    pub fn stop(&mut self) -> Outcome {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// The id of the process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Counts the peak of memory anew: the bytes that are in memory now.
    pub fn reset_peak(&self) -> Outcome<u64> {
        std::fs::write(format!("/proc/{}/clear_refs", self.process_id()), "5")?;
        self.status("VmRSS:")
    }

    /// The most bytes that were in memory since.
    pub fn peak(&self) -> Outcome<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id()))?;
        let kibibytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.split_whitespace().next())
            .ok_or("the process has no such field")?
            .parse()?;
        Ok(kibibytes << 10)
    }

    /// A connection of its own in a session, as an application would have one.
    pub async fn connect(&self, session: &str) -> Outcome<Client> {
        let channel = Endpoint::from_shared(self.address.clone())?
            .tcp_nodelay(true)
            .connect()
            .await?;
        let mut flight = FlightSqlServiceClient::new(channel.clone());
        flight.set_header(SESSION_HEADER, session);
        Ok(Client {
            channel,
            flight,
            session: session.to_owned(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// A Flight SQL client in one session.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    flight: FlightSqlServiceClient<Channel>,
    session: String,
}

impl Client {
    /// Binds the session.
    pub async fn bind(&self, tenant: TenantId) -> Outcome {
        let mut request = Request::new(SetTenantRequest {
            tenant: Some(Tenant {
                id: tenant.to_string(),
            }),
        });
        request
            .metadata_mut()
            .insert(SESSION_HEADER, self.session.parse()?);
        SessionServiceClient::new(self.channel.clone())
            .set_tenant(request)
            .await?;
        Ok(())
    }

    /// Runs `sql` by GetFlightInfo and DoGet and reads the rows to their end,
    /// which are to be `rows`.
    pub async fn query(&mut self, sql: &str, rows: u64) -> Outcome {
        let mut read = 0;
        let info = self.flight.execute(sql.to_owned(), None).await?;
        self.each_batch(info, |batch| read += batch.num_rows() as u64)
            .await?;
        expect_rows(sql, read, rows)
    }

    /// The one number that `sql` answers.
    pub async fn number(&mut self, sql: &str) -> Outcome<i64> {
        let mut number = None;
        let info = self.flight.execute(sql.to_owned(), None).await?;
        self.each_batch(info, |batch| {
            let column = batch.column(0).as_primitive_opt::<Int64Type>();
            number = column.and_then(|column| column.iter().next().flatten());
        })
        .await?;
        number.ok_or_else(|| format!("{sql:?} answers no number").into())
    }

    /// The bytes of the rows of `sql`.
    pub async fn bytes(&mut self, sql: &str) -> Outcome<usize> {
        let mut bytes = 0;
        let info = self.flight.execute(sql.to_owned(), None).await?;
        self.each_batch(info, |batch| {
            for column in batch.columns() {
                bytes += column.to_data().get_slice_memory_size().unwrap_or(0);
            }
        })
        .await?;
        Ok(bytes)
    }

    /// Prepares a query, to be run with [`Client::query_prepared`].
    pub async fn prepare(&mut self, sql: &str) -> Outcome<PreparedStatement<Channel>> {
        Ok(self.flight.prepare(sql.to_owned(), None).await?)
    }

    /// Binds `row` to a prepared query, runs it and reads its rows to their end,
    /// which are to be `rows`.
    pub async fn query_prepared(
        &mut self,
        statement: &mut PreparedStatement<Channel>,
        row: RecordBatch,
        rows: u64,
    ) -> Outcome {
        let mut read = 0;
        statement.set_parameters(row)?;
        let info = statement.execute().await?;
        self.each_batch(info, |batch| read += batch.num_rows() as u64)
            .await?;
        expect_rows("a prepared query", read, rows)
    }

    /// Runs a statement that writes by DoPut, and says how many rows it wrote.
    pub async fn update(&mut self, sql: &str) -> Outcome<i64> {
        Ok(self.flight.execute_update(sql.to_owned(), None).await?)
    }

    /// Prepares a statement that writes: its handle.
    pub async fn prepare_update(&mut self, sql: &str) -> Outcome<Bytes> {
        let request = ActionCreatePreparedStatementRequest {
            query: sql.to_owned(),
            transaction_id: None,
        };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let results: Vec<_> = self.flight.do_action(action).await?.try_collect().await?;
        let result = results.first().ok_or("a statement is prepared")?;
        let result: ActionCreatePreparedStatementResult =
            Any::decode(&*result.body)?.unpack()?.ok_or("no handle")?;
        Ok(result.prepared_statement_handle)
    }

    /// Runs a prepared statement that writes for `rows`, which one DoPut brings,
    /// as the drivers of most languages do.
    pub async fn update_prepared(&mut self, handle: &Bytes, rows: RecordBatch) -> Outcome<i64> {
        let command = CommandPreparedStatementUpdate {
            prepared_statement_handle: handle.clone(),
        };
        let messages: Vec<_> = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(
                command.as_any().encode_to_vec(),
            )))
            .with_schema(rows.schema())
            .build(stream::iter([Ok(rows)]))
            .try_collect()
            .await?;
        let mut results = self.flight.do_put(stream::iter(messages)).await?;
        let result = results.message().await?.ok_or("a write is answered")?;
        Ok(DoPutUpdateResult::decode(&*result.app_metadata)?.record_count)
    }

    /// Streams `rows` into a table that is there, or one that is made for them.
    pub async fn ingest(&mut self, table: &str, make: bool, rows: Vec<RecordBatch>) -> Outcome {
        let (missing, exists) = match make {
            true => (TableNotExistOption::Create, TableExistsOption::Fail),
            false => (TableNotExistOption::Fail, TableExistsOption::Append),
        };
        let command = CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: missing.into(),
                if_exists: exists.into(),
            }),
            table: table.to_owned(),
            ..Default::default()
        };
        let sent: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let rows = stream::iter(rows.into_iter().map(Ok));
        let written = self.flight.execute_ingest(command, rows).await?;
        expect_rows("an ingest", written.try_into()?, sent as u64)
    }

    async fn each_batch(
        &mut self,
        info: FlightInfo,
        mut each: impl FnMut(&RecordBatch),
    ) -> Outcome {
        for endpoint in info.endpoint {
            let ticket = endpoint.ticket.ok_or("an endpoint has a ticket")?;
            let mut batches = self.flight.do_get(ticket).await?;
            while let Some(batch) = batches.try_next().await? {
                each(&batch);
            }
        }
        Ok(())
    }
}

fn expect_rows(what: &str, read: u64, expected: u64) -> Outcome {
    if read == expected {
        return Ok(());
    }
    Err(format!("{what:?} has {read} rows and not {expected}").into())
}
