//! Servers in processes of their own, and one client for both kinds.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use arrow::array::{Array, RecordBatch};
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightClient, FlightDescriptor};
use futures::TryStreamExt;
use jammi_db::TenantId;
use jammi_db::server::proto::session::session_service_client::SessionServiceClient;
use jammi_db::server::proto::session::{SetTenantRequest, Tenant};
use prost::Message;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::Outcome;

const SESSION_HEADER: &str = "jammi-session-id";
const SESSION: &str = "bench";

/// A server that is killed when this is dropped.
pub struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// The measured server over `artifact_dir`, with every setting at its
    /// default.
    pub fn jammi(artifact_dir: &Path) -> Outcome<Server> {
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
        Server::start(command).map_err(|error| {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            format!("{error}: {log}").into()
        })
    }

    /// The bare one: this program, told to be it.
    pub fn bare(data_dir: &Path) -> Outcome<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(crate::BARE_SERVER).arg(data_dir);
        Server::start(command)
    }

    fn start(mut command: Command) -> Outcome<Server> {
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

    /// A connection of its own, as an application would have one.
    pub async fn connect(&self) -> Outcome<Client> {
        let channel = Endpoint::from_shared(self.address.clone())?
            .tcp_nodelay(true)
            .connect()
            .await?;
        let mut flight = FlightClient::new(channel.clone());
        flight.add_header(SESSION_HEADER, SESSION)?;
        Ok(Client { channel, flight })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A Flight client in one session.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    flight: FlightClient,
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
            .insert(SESSION_HEADER, SESSION.parse()?);
        SessionServiceClient::new(self.channel.clone())
            .set_tenant(request)
            .await?;
        Ok(())
    }

    /// Runs `sql` by GetFlightInfo and DoGet and reads the rows to their end,
    /// which are to be `rows`.
    pub async fn query(&mut self, sql: &str, rows: u64) -> Outcome {
        let mut read = 0;
        self.each_batch(sql, |batch| read += batch.num_rows() as u64)
            .await?;
        if read != rows {
            return Err(format!("{sql:?} has {read} rows and not {rows}").into());
        }
        Ok(())
    }

    /// The bytes of the rows of `sql`.
    pub async fn bytes(&mut self, sql: &str) -> Outcome<usize> {
        let mut bytes = 0;
        self.each_batch(sql, |batch| {
            for column in batch.columns() {
                bytes += column.to_data().get_slice_memory_size().unwrap_or(0);
            }
        })
        .await?;
        Ok(bytes)
    }

    async fn each_batch(&mut self, sql: &str, mut each: impl FnMut(&RecordBatch)) -> Outcome {
        let command = CommandStatementQuery {
            query: sql.to_owned(),
            transaction_id: None,
        };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let info = self.flight.get_flight_info(descriptor).await?;
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
