//! A tenant as one file, which another installation takes in.
//!
//! ```text
//! jammi-tenant 1\n          what it is, and its format
//! 4 bytes                   how long the head is, the most significant first
//! head                      a JSON object: whose it is, and what comes with it
//! lane                      a backup of the lane, as `jammi backup` writes one
//! 32 bytes                  SHA-256 of all before
//! ```
//!
//! Invariant: nothing of an archive is taken in before all of it has come and its
//! digest is right; then the lane is restored as from any backup, which finds out
//! what is not the tenant's or not sound. Deliberately absent: the files of sources,
//! which belong to whoever put them there.

use std::fs::File;
use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::record::{check_name, erasing, insert};
use super::{SourceEntry, TableRows, Tenant, TenantState, Tenants};
use crate::backend::{Backend, BackendError, Scratch, Transaction};
use crate::catalog::Leftovers;
use crate::error::{Error, Result};
use crate::table;
use crate::tenant::{Lane, TenantId};

const MAGIC: &[u8] = b"jammi-tenant 1\n";
/// The longest head: it lists sources and tables.
const HEAD_BYTES_MAX: usize = 16 << 20;
const LENGTH_BYTES: usize = 4;
const DIGEST_BYTES: usize = 32;
/// What is given at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose it is.
    pub tenant: String,
    /// What the operator called the tenant.
    pub name: String,
    /// Whether the tenant was suspended, and is to be again.
    pub suspended: bool,
    /// Unix time in milliseconds.
    pub exported_at_ms: i64,
    /// The version of Jammi that wrote it.
    pub written_by: String,
    /// The length of the lane's backup: 0 where the tenant had none.
    pub lane_bytes: u64,
    /// The sources, whose files do not come along.
    pub sources: Vec<SourceEntry>,
    /// Shared tables of which the tenant has rows.
    pub shared_tables: Vec<SharedRows>,
}

/// The rows of a shared table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRows {
    /// The table's name.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// How the lane stores them, which another installation may not.
    pub stored: String,
}

/// An archive that is there to be read.
pub struct Archive {
    head: Head,
    start: Bytes,
    lane: Option<File>,
}

/// How an archive is taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Put it in the place of what the tenant has.
    pub replace: bool,
    /// Leave out rows of shared tables that there are not here.
    pub without_shared_rows: bool,
}

/// What was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The tenant.
    pub tenant: Tenant,
    /// What the operator should know.
    pub notices: Vec<String>,
}

impl Archive {
    /// What it says of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its bytes, in order.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let digest = Sha256::new().chain_update(&self.start);
        let start = stream::iter([Ok(self.start)]);
        let rest = stream::try_unfold(Some((self.lane, digest)), |state| async move {
            let Some((lane, digest)) = state else {
                return Ok(None);
            };
            let read = tokio::task::spawn_blocking(move || next_chunk(lane, digest)).await;
            read.map_err(|error| Error::internal("the archive cannot be read", error))?
                .map(Some)
        });
        start.chain(rest)
    }
}

type Rest = Option<(Option<File>, Sha256)>;

/// The bytes of the lane that come next, or else the digest, which is the last.
fn next_chunk(lane: Option<File>, mut digest: Sha256) -> Result<(Bytes, Rest)> {
    if let Some(file) = lane {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        read.map_err(|error| Error::internal("the archive cannot be read", error))?;
        if !chunk.is_empty() {
            digest.update(&chunk);
            return Ok((chunk.into(), Some((Some(file), digest))));
        }
    }
    Ok((Bytes::copy_from_slice(&digest.finalize()), None))
}

impl Tenants {
    /// One state of the tenant, while it is in use.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while it is being erased.
    pub async fn export(&self, id: TenantId) -> Result<Archive> {
        let tenant = self.find(id).await?;
        if tenant.state == TenantState::Erasing {
            return Err(erasing(id));
        }
        let scratch = self.backend().scratch().await?;
        let lane = match self
            .backend()
            .backup(Lane::Tenant(id), scratch.path())
            .await
        {
            Ok(()) => Some(opened(&scratch)?),
            Err(BackendError::NothingToBackUp { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let (lane, lane_bytes) = match lane {
            Some((file, bytes)) => (Some(file), bytes),
            None => (None, 0),
        };
        let contents = self.contents(id).await?;
        let shared = contents.tables.into_iter().filter(|table| table.shared);
        let head = Head {
            tenant: id.to_string(),
            name: tenant.name,
            suspended: tenant.state == TenantState::Suspended,
            exported_at_ms: self.now_ms(),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            lane_bytes,
            sources: contents.sources,
            shared_tables: shared.map(SharedRows::from).collect(),
        };
        let start = start_of(&head)?;
        Ok(Archive { head, start, lane })
    }

    /// Takes in the tenant of an archive, whose bytes come as `chunks`.
    ///
    /// # Errors
    /// `DataLoss` for what is no archive, or not a whole one; `AlreadyExists` where
    /// the tenant has something here and `options` do not say that it is replaced;
    /// `FailedPrecondition` for rows of shared tables that there are not here, and
    /// while the tenant is being erased. Nothing is changed then.
    pub async fn import(
        &self,
        mut chunks: impl Stream<Item = Result<Bytes>> + Unpin + Send,
        options: ImportOptions,
    ) -> Result<Imported> {
        let scratch = self.backend().scratch().await?;
        let file = tokio::fs::File::create_new(scratch.path()).await;
        let mut arrival = Arrival::new(file.map_err(unwritten)?);
        while let Some(chunk) = chunks.next().await {
            arrival.add(&chunk?).await?;
        }
        let head = arrival.finish().await?;
        let id: TenantId = head.tenant.parse().map_err(|_| damaged())?;
        check_name(&head.name)?;
        let _turn = self.turn().await;
        self.check_may_import(id, &head, options).await?;
        let is_new = self.register_suspended(id, &head).await?;
        if head.lane_bytes > 0
            && let Err(error) = restore(self.backend(), id, &scratch).await
        {
            if is_new {
                self.write(move |system| Ok(forget(system, id)?)).await?;
            }
            return Err(error.into());
        }
        let tenant = match is_new && !head.suspended {
            true => self.resume(id).await?,
            false => self.find(id).await?,
        };
        Ok(Imported {
            tenant,
            notices: notices(&head, options),
        })
    }

    async fn check_may_import(
        &self,
        id: TenantId,
        head: &Head,
        options: ImportOptions,
    ) -> Result<()> {
        let state = self.find(id).await.ok().map(|tenant| tenant.state);
        if state == Some(TenantState::Erasing) {
            return Err(erasing(id));
        }
        let is_empty = self.contents(id).await?.is_empty();
        if !is_empty && !options.replace {
            return Err(Error::AlreadyExists(format!(
                "tenant {id} has something here: have it replaced with --replace, or erase the \
                 tenant first"
            )));
        }
        if !is_empty && head.lane_bytes == 0 {
            return Err(Error::FailedPrecondition(format!(
                "the archive is of a tenant who had nothing: erase tenant {id} instead"
            )));
        }
        let here = self.shared_tables(Lane::Tenant(id)).await?;
        let mut missing = head
            .shared_tables
            .iter()
            .filter(|shared| !here.contains_key(&shared.stored));
        match missing.next() {
            Some(shared) if !options.without_shared_rows => {
                Err(Error::FailedPrecondition(format!(
                    "the archive has {} rows of shared table {:?}, which is not the one of this \
                 installation: leave such rows out with --without-shared-rows",
                    shared.rows, shared.table
                )))
            }
            _ => Ok(()),
        }
    }

    /// Registers a tenant who may not be used before all is there. `false`: it is
    /// registered already, and stays as it is.
    async fn register_suspended(&self, id: TenantId, head: &Head) -> Result<bool> {
        let tenant = Tenant {
            state: TenantState::Suspended,
            ..self.registered(id, &head.name)
        };
        self.write(move |system| Ok(insert(system, &tenant)?)).await
    }
}

impl From<TableRows> for SharedRows {
    fn from(table: TableRows) -> Self {
        SharedRows {
            table: table.name,
            rows: table.rows,
            stored: table.stored,
        }
    }
}

/// The backup in a scratch file, which may lose its name now.
fn opened(scratch: &Scratch) -> Result<(File, u64)> {
    let open = || {
        let file = File::open(scratch.path())?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    };
    open().map_err(|error: std::io::Error| Error::internal("the archive cannot be read", error))
}

fn start_of(head: &Head) -> Result<Bytes> {
    let json = serde_json::to_vec(head)
        .map_err(|error| Error::internal("the archive cannot be written", error))?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= HEAD_BYTES_MAX);
    let length = length.ok_or_else(|| {
        Error::ResourceExhausted(
            "the tenant has more sources than an archive lists: drop some first".into(),
        )
    })?;
    Ok([MAGIC, &length.to_be_bytes(), &json].concat().into())
}

/// An archive that comes in.
struct Arrival {
    digest: Sha256,
    /// What came and was not looked at: at the end, the digest.
    waiting: BytesMut,
    head: Option<Head>,
    /// How much of the lane is to come.
    lane_bytes: u64,
    lane: tokio::fs::File,
}

impl Arrival {
    fn new(lane: tokio::fs::File) -> Self {
        Arrival {
            digest: Sha256::new(),
            waiting: BytesMut::new(),
            head: None,
            lane_bytes: 0,
            lane,
        }
    }

    async fn add(&mut self, chunk: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(chunk);
        if self.head.is_none() {
            let Some(head) = self.take_head()? else {
                return Ok(());
            };
            self.lane_bytes = head.lane_bytes;
            self.head = Some(head);
        }
        let of_lane = usize::try_from(self.lane_bytes).unwrap_or(usize::MAX);
        let of_lane = self.waiting.split_to(of_lane.min(self.waiting.len()));
        self.lane_bytes -= of_lane.len() as u64;
        self.digest.update(&of_lane);
        self.lane.write_all(&of_lane).await.map_err(unwritten)?;
        match self.waiting.len() <= DIGEST_BYTES {
            true => Ok(()),
            false => Err(damaged()),
        }
    }

    /// The head, once all of it is there.
    fn take_head(&mut self) -> Result<Option<Head>> {
        let known = self.waiting.len().min(MAGIC.len());
        if self.waiting[..known] != MAGIC[..known] {
            return Err(damaged());
        }
        let start = MAGIC.len() + LENGTH_BYTES;
        if self.waiting.len() < start {
            return Ok(None);
        }
        let length = (&self.waiting[MAGIC.len()..start]).get_u32() as usize;
        if length > HEAD_BYTES_MAX {
            return Err(damaged());
        }
        if self.waiting.len() < start + length {
            return Ok(None);
        }
        let head = self.waiting.split_to(start + length);
        self.digest.update(&head);
        let head = serde_json::from_slice(&head[start..]).map_err(|_| damaged())?;
        Ok(Some(head))
    }

    async fn finish(mut self) -> Result<Head> {
        self.lane.flush().await.map_err(unwritten)?;
        let digest = self.digest.finalize();
        match self.head {
            Some(head) if self.lane_bytes == 0 && self.waiting[..] == digest[..] => Ok(head),
            _ => Err(damaged()),
        }
    }
}

fn damaged() -> Error {
    Error::DataLoss(
        "this is no archive of a tenant, or not a whole one: name a file that `jammi tenants \
         export` has written"
            .into(),
    )
}

fn unwritten(error: std::io::Error) -> Error {
    Error::internal("the archive cannot be kept while it is looked at", error)
}

/// Puts the backup in the place of the lane, without what belongs to sessions.
async fn restore(backend: &Backend, id: TenantId, from: &Scratch) -> Result<(), BackendError> {
    let strip = |restored: &Transaction<'_>| table::drop_temporary(restored, &Leftovers::All);
    backend.restore(Lane::Tenant(id), from.path(), strip).await
}

fn forget(system: &rusqlite::Transaction<'_>, id: TenantId) -> rusqlite::Result<()> {
    system
        .prepare_cached("DELETE FROM tenants WHERE id = ?1")?
        .execute([id.to_string()])?;
    Ok(())
}

fn notices(head: &Head, options: ImportOptions) -> Vec<String> {
    let mut notices = Vec::new();
    for source in &head.sources {
        notices.push(format!(
            "the files of source {} do not come along: it reads {}",
            source.name, source.location
        ));
    }
    if options.without_shared_rows {
        for shared in &head.shared_tables {
            notices.push(format!(
                "rows of shared table {} come along only where it is the same here",
                shared.table
            ));
        }
    }
    notices
}
