//! What each tenant may have of what all queries share: memory, and disk where
//! they spill.
//!
//! One tenant alone may have its setting of both. Several have less each, so that
//! something is always left for one who comes: what a tenant has stays below a
//! factor of what is free, as in Choudhury and Hahne's "Dynamic Queue Length
//! Thresholds in a Shared Memory ATM Switch" (1996). With a setting of half of the
//! whole, two have a third each and leave a third.
//!
//! Architecture invariant: what an error tells of sizes is the tenant's own.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::common::{DataFusionError, Result, human_readable_size};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use datafusion::prelude::SessionConfig;
use futures::Stream;

use crate::config::EngineConfig;
use crate::error::Error;

/// The part of a whole that one tenant alone may have where no setting says.
const TENANT_PART: u64 = 2;

/// The text of an error of a memory pool when it is not its tenant who has too much.
pub(super) const ALL_IN_USE: &str = "the memory of all queries is in use";

/// The memory and the disk of all queries.
#[derive(Clone)]
pub(super) struct Shares {
    base: RuntimeEnv,
    memory: Arc<Whole>,
    spill: Arc<Whole>,
}

impl Shares {
    pub(super) fn new(config: &EngineConfig) -> crate::error::Result<Self> {
        let mut disk = DiskManagerBuilder::default()
            // It is counted here, where tenants are known.
            .with_max_temp_directory_size(u64::MAX);
        if let Some(dir) = &config.spill_dir {
            disk = disk.with_mode(DiskManagerMode::Directories(vec![dir.clone()]));
        }
        let base = RuntimeEnvBuilder::new()
            // Listings are made anew for each scan, so that a new file is seen.
            .with_object_list_cache_limit(0)
            .with_disk_manager_builder(disk)
            .build()
            .map_err(|error| Error::internal("the engine's runtime cannot be made", error))?;
        let each = config.tenant_memory_bytes.map(|bytes| bytes as u64);
        Ok(Shares {
            base,
            memory: Arc::new(Whole::new(config.memory_bytes as u64, each)),
            spill: Arc::new(Whole::new(
                config.spill_bytes_max,
                config.tenant_spill_bytes_max,
            )),
        })
    }

    /// What the plans of one more tenant run in.
    pub(super) fn context(&self, session: &SessionConfig) -> Arc<TaskContext> {
        // Functions are in the plans already.
        Arc::new(TaskContext::new(
            None,
            String::new(),
            session.clone(),
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            self.runtime(),
        ))
    }

    /// A runtime with shares of its own, and the same stores and caches.
    pub(super) fn runtime(&self) -> Arc<RuntimeEnv> {
        let files = SpillFiles {
            disk: Arc::clone(&self.base.disk_manager),
            share: Arc::new(Share::of(&self.spill)),
        };
        let disk = DiskManagerBuilder::default()
            .with_temp_file_factory(Arc::new(files))
            .build()
            .expect("a disk manager over a factory opens nothing");
        Arc::new(RuntimeEnv {
            memory_pool: Arc::new(TenantPool::new(&self.memory)),
            disk_manager: Arc::new(disk),
            ..self.base.clone()
        })
    }
}

/// Bytes that tenants share.
#[derive(Debug)]
struct Whole {
    bytes: u64,
    /// What one tenant alone may have.
    each: u64,
    used: AtomicU64,
}

impl Whole {
    fn new(bytes: u64, each: Option<u64>) -> Self {
        Whole {
            bytes,
            each: each.unwrap_or(bytes / TENANT_PART).min(bytes),
            used: AtomicU64::new(0),
        }
    }

    /// Whether one who has `own` when `used` are in use leaves enough to others.
    fn leaves_enough(&self, own: u64, used: u64) -> bool {
        let others = u128::from(self.bytes - self.each);
        self.bytes.checked_sub(used).is_some_and(|free| {
            u128::from(own) * others <= u128::from(self.each) * u128::from(free)
        })
    }
}

/// Who has too much for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TooMuch {
    Own,
    All,
}

/// What one tenant has.
#[derive(Debug)]
struct Share {
    of: Arc<Whole>,
    used: AtomicU64,
}

impl Share {
    fn of(whole: &Arc<Whole>) -> Self {
        Share {
            of: Arc::clone(whole),
            used: AtomicU64::new(0),
        }
    }

    fn take(&self, bytes: u64) -> Result<(), TooMuch> {
        let more = |used: &AtomicU64, fits: &dyn Fn(u64) -> bool| {
            used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| fits(*used))
            })
        };
        let whole = &self.of;
        let own = more(&self.used, &|own| own <= whole.each).map_err(|_| TooMuch::Own)? + bytes;
        more(&whole.used, &|used| whole.leaves_enough(own, used)).map_err(|_| {
            self.used.fetch_sub(bytes, Ordering::AcqRel);
            TooMuch::All
        })?;
        Ok(())
    }

    /// Takes what is in use already.
    fn take_anyway(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        self.of.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.of.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The memory of one tenant's queries, divided among those of their operators that
/// can spill.
#[derive(Debug)]
struct TenantPool {
    divided: FairSpillPool,
    share: Share,
}

impl TenantPool {
    fn new(memory: &Arc<Whole>) -> Self {
        let each = usize::try_from(memory.each).unwrap_or(usize::MAX);
        TenantPool {
            divided: FairSpillPool::new(each),
            share: Share::of(memory),
        }
    }
}

impl fmt::Display for TenantPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl MemoryPool for TenantPool {
    fn name(&self) -> &str {
        "tenant"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.divided.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.divided.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.divided.grow(reservation, additional);
        self.share.take_anyway(additional as u64);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.share.give_back(shrink as u64);
        self.divided.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let divided = self.divided.try_grow(reservation, additional);
        let taken = divided.map_err(|_| TooMuch::Own).and_then(|()| {
            let taken = self.share.take(additional as u64);
            taken.inspect_err(|_| self.divided.shrink(reservation, additional))
        });
        // Operators that can spill know this kind of error.
        taken.map_err(|who| {
            DataFusionError::ResourcesExhausted(match who {
                TooMuch::Own => format!(
                    "{} has {} and asks for {} more",
                    reservation.consumer().name(),
                    human_readable_size(reservation.size()),
                    human_readable_size(additional)
                ),
                TooMuch::All => ALL_IN_USE.into(),
            })
        })
    }

    fn reserved(&self) -> usize {
        self.divided.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.divided.memory_limit()
    }
}

/// Makes the files of one tenant's spills.
struct SpillFiles {
    disk: Arc<DiskManager>,
    share: Arc<Share>,
}

impl TempFileFactory for SpillFiles {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        Ok(Arc::new(CountedFile {
            file: self.disk.create_tmp_file(description)?,
            size: Arc::new(FileSize {
                share: Arc::clone(&self.share),
                bytes: AtomicU64::new(0),
            }),
        }))
    }
}

/// What a file has of its tenant's share, until it is removed.
struct FileSize {
    share: Arc<Share>,
    bytes: AtomicU64,
}

impl FileSize {
    fn take(&self, bytes: u64) -> io::Result<()> {
        self.share.take(bytes).map_err(|who| {
            let whole = &self.share.of;
            io::Error::other(Error::ResourceExhausted(match who {
                TooMuch::Own => format!(
                    "the statement spills more to disk than the setting \
                     engine.tenant_spill_bytes_max (now {}) leaves it: ask for less at a time, or \
                     raise it",
                    whole.each
                ),
                TooMuch::All => {
                    "the disk for spills, the setting engine.spill_bytes_max, is in use: \
                                 send the statement again later, or raise it"
                        .into()
                }
            }))
        })?;
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.share.give_back(bytes);
    }
}

impl Drop for FileSize {
    fn drop(&mut self) {
        self.share.give_back(*self.bytes.get_mut());
    }
}

struct CountedFile {
    // Removed before its size is given back.
    file: Arc<dyn SpillFile>,
    size: Arc<FileSize>,
}

impl SpillFile for CountedFile {
    fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    fn size(&self) -> Option<u64> {
        self.file.size()
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        self.file.read_stream()
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(CountedWriter {
            writer: self.file.open_writer()?,
            size: Arc::clone(&self.size),
        }))
    }
}

struct CountedWriter {
    writer: Box<dyn SpillWriter>,
    size: Arc<FileSize>,
}

impl io::Write for CountedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let asked = bytes.len() as u64;
        self.size.take(asked)?;
        let written = self.writer.write(bytes);
        let unused = asked - written.as_ref().map_or(0, |written| *written as u64);
        self.size.give_back(unused);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl SpillWriter for CountedWriter {
    fn finish(&mut self) -> Result<()> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes ten at a time, as often as it goes.
    fn fill(share: &Share) -> (u64, TooMuch) {
        loop {
            if let Err(who) = share.take(10) {
                return (share.used.load(Ordering::Relaxed), who);
            }
        }
    }

    #[test]
    fn one_has_its_part_and_more_leave_something_for_the_next() {
        for (each, shares) in [
            // The whole, each tenant's setting, and what those who come get.
            (
                None,
                vec![
                    (1_200, TooMuch::Own),
                    (600, TooMuch::All),
                    (300, TooMuch::All),
                ],
            ),
            (
                Some(1_600),
                vec![
                    (1_600, TooMuch::Own),
                    (530, TooMuch::All),
                    (180, TooMuch::All),
                ],
            ),
            (Some(2_400), vec![(2_400, TooMuch::Own), (0, TooMuch::All)]),
        ] {
            let whole = Arc::new(Whole::new(2_400, each));
            let mut held = Vec::new();
            for expected in shares {
                let share = Share::of(&whole);
                assert_eq!(fill(&share), expected, "{each:?}");
                held.push(share);
            }
            for share in held {
                share.give_back(share.used.load(Ordering::Relaxed));
            }
            assert_eq!(whole.used.load(Ordering::Relaxed), 0);
            // Those who come at once have the same.
            let (first, second) = (Share::of(&whole), Share::of(&whole));
            while first.take(10).is_ok() | second.take(10).is_ok() {}
            let used = |share: &Share| share.used.load(Ordering::Relaxed);
            assert!(used(&first).abs_diff(used(&second)) <= 10, "{each:?}");
        }
    }
}
