//! The files of a trail.
//!
//! ```text
//! <artifact_dir>/audit/00000000.jsonl   the chain's lines, in segments
//! <artifact_dir>/audit/head             the last checkpoint, replaced by each
//! <artifact_dir>/audit/key              what signs checkpoints
//! <artifact_dir>/audit/lock             held by whoever writes a line
//! ```
//!
//! Several processes write one chain: each holds the lock while it adds lines, and
//! goes on from where the last one ended. What was written by one that was killed is
//! cut off where a line is not whole. Lines are only ever added; what is on the disk
//! when [`Store::append`] returns stays there.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Event;
use super::chain::{Dropped, Line, NewEntry, Place};
use super::key::Key;
use crate::config::AuditConfig;

const SEGMENT_ENDING: &str = ".jsonl";
const HEAD: &str = "head";
const LOCK: &str = "lock";
/// How much of a file is read at a time to find its last line.
const TAIL_BYTES: u64 = 64 << 10;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// How old a segment gets where some are to be dropped for their age.
const SEGMENT_AGE_US: i64 = DAY_US;
/// How often segments are looked at for their age.
const RETENTION_CHECK_US: i64 = 3_600 * SECOND_US;

/// The last checkpoint: a place behind which no line may be missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub place: Place,
    pub written: i64,
    pub signature: String,
}

/// A trail that is written.
pub(super) struct Store {
    directory: PathBuf,
    segment_bytes: u64,
    /// Nothing is dropped where there is none.
    retention_us: Option<i64>,
    key: Key,
    lock: File,
    tail: Tail,
    /// When segments were last looked at for their age.
    retained_at: Option<i64>,
    /// Whether there are lines after the last checkpoint, as far as is known.
    is_unsigned: bool,
}

/// The end of the chain.
struct Tail {
    segment: u64,
    file: File,
    len: u64,
    /// When the segment's first line was written, if it has one.
    began: Option<i64>,
    place: Place,
}

impl Store {
    /// Opens the trail in `directory`, which is made where there is none.
    pub fn open(directory: &Path, config: &AuditConfig, now_us: i64) -> io::Result<Store> {
        make_directory(directory)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join(LOCK))?;
        let key = Key::open_or_make(directory)?;
        let locked = Locked::take(&lock)?;
        let (tail, torn) = Tail::find(directory)?;
        if tail.place == Place::START && read_head(directory)?.is_none() {
            // Before the first line, so that one without it was tampered with.
            write_head(directory, &key, Place::START, now_us)?;
        }
        drop(locked);
        let retention_days = i64::try_from(config.retention_days).unwrap_or(i64::MAX);
        let mut store = Store {
            directory: directory.to_owned(),
            segment_bytes: config.segment_bytes,
            retention_us: (retention_days > 0).then(|| retention_days.saturating_mul(DAY_US)),
            key,
            lock,
            tail,
            retained_at: None,
            is_unsigned: true,
        };
        if torn > 0 {
            store.note_torn(torn, now_us)?;
        }
        Ok(store)
    }

    /// Adds `events` to the chain. They are on the disk when this returns, or none of
    /// them is in the chain.
    pub fn append(&mut self, events: &[&Event], now_us: i64) -> io::Result<()> {
        let lock = self.lock.try_clone()?;
        let _locked = Locked::take(&lock)?;
        self.refresh(now_us)?;
        self.rotate_if_due(now_us)?;
        let entries = events.iter().map(|event| NewEntry::Event(event));
        self.write(entries, now_us)?;
        self.is_unsigned = true;
        // What is too old is in nobody's way.
        if let Err(error) = self.retain(now_us) {
            tracing::warn!(%error, "old segments of the audit trail were not dropped");
        }
        Ok(())
    }

    /// Whether there may be lines after the last checkpoint.
    pub fn is_unsigned(&self) -> bool {
        self.is_unsigned
    }

    /// Signs the chain up to here.
    pub fn checkpoint(&mut self, now_us: i64) -> io::Result<()> {
        let lock = self.lock.try_clone()?;
        let _locked = Locked::take(&lock)?;
        self.refresh(now_us)?;
        let signature = self.key.sign_checkpoint(self.tail.place, now_us);
        let signature = signature.as_str();
        self.write([NewEntry::Checkpoint { signature }], now_us)?;
        write_head(&self.directory, &self.key, self.tail.place, now_us)?;
        self.is_unsigned = false;
        Ok(())
    }

    fn note_torn(&mut self, bytes: u64, now_us: i64) -> io::Result<()> {
        let lock = self.lock.try_clone()?;
        let _locked = Locked::take(&lock)?;
        tracing::warn!(bytes, "a part of a line was cut off the audit trail");
        self.write([NewEntry::Torn { bytes }], now_us)
    }

    /// Goes on from where another process has ended since.
    fn refresh(&mut self, now_us: i64) -> io::Result<()> {
        let metadata = self.tail.file.metadata()?;
        let is_last = !segment_path(&self.directory, self.tail.segment + 1).exists();
        if is_last && metadata.len() == self.tail.len && metadata.nlink() > 0 {
            return Ok(());
        }
        let (tail, torn) = Tail::find(&self.directory)?;
        self.tail = tail;
        self.is_unsigned = true;
        if torn > 0 {
            tracing::warn!(bytes = torn, "a part of a line was cut off the audit trail");
            self.write([NewEntry::Torn { bytes: torn }], now_us)?;
        }
        Ok(())
    }

    fn rotate_if_due(&mut self, now_us: i64) -> io::Result<()> {
        let is_old = self.retention_us.is_some()
            && self
                .tail
                .began
                .is_some_and(|began| now_us.saturating_sub(began) > SEGMENT_AGE_US);
        if self.tail.len == 0 || (self.tail.len < self.segment_bytes && !is_old) {
            return Ok(());
        }
        let segment = self.tail.segment + 1;
        let file = open_segment(&self.directory, segment)?;
        sync_directory(&self.directory)?;
        self.tail = Tail {
            segment,
            len: file.metadata()?.len(),
            file,
            began: None,
            place: self.tail.place,
        };
        Ok(())
    }

    /// Adds lines, all of which are on the disk when this returns. One that fails
    /// leaves none of them.
    fn write<'a>(
        &mut self,
        entries: impl IntoIterator<Item = NewEntry<'a>>,
        now_us: i64,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut place = self.tail.place;
        for entry in entries {
            let from = bytes.len();
            let line = Line {
                position: place.position,
                previous: place.previous,
                written: now_us,
                entry,
            };
            serde_json::to_writer(&mut bytes, &line)?;
            place = place.after(&bytes[from..]);
            bytes.push(b'\n');
        }
        let file = &mut self.tail.file;
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // What is written again later is brought to the disk again as a whole:
            // nothing is taken to be there because an earlier write put it there.
            file.set_len(self.tail.len)?;
            return Err(error);
        }
        self.tail.len += bytes.len() as u64;
        self.tail.began.get_or_insert(now_us);
        self.tail.place = place;
        Ok(())
    }

    /// Drops the segments all of whose lines are too old, and says so in the chain
    /// before it does.
    fn retain(&mut self, now_us: i64) -> io::Result<()> {
        let Some(retention_us) = self.retention_us else {
            return Ok(());
        };
        let is_due = self
            .retained_at
            .is_none_or(|at| now_us.saturating_sub(at) >= RETENTION_CHECK_US);
        if !is_due {
            return Ok(());
        }
        self.retained_at = Some(now_us);
        let numbers: Vec<u64> = segments(&self.directory)?.into_iter().collect();
        let mut dropped = Vec::new();
        for pair in numbers.windows(2) {
            let Some(next) = first_line(&segment_path(&self.directory, pair[1]))? else {
                break;
            };
            if now_us.saturating_sub(next.written) <= retention_us {
                break;
            }
            dropped.push(Dropped {
                segment: pair[0],
                end: next.place(),
            });
        }
        if dropped.is_empty() {
            return Ok(());
        }
        let place = self.tail.place;
        let signature = self.key.sign_retention(&dropped, place, now_us);
        let note = NewEntry::Retention {
            dropped: &dropped,
            signature: &signature,
        };
        self.write([note], now_us)?;
        // The oldest first, so that the rest is in one piece whenever this is cut off.
        for segment in &dropped {
            fs::remove_file(segment_path(&self.directory, segment.segment))?;
        }
        sync_directory(&self.directory)
    }
}

impl Tail {
    /// The end of the chain in `directory`, and how many bytes of a torn line were cut
    /// off there.
    fn find(directory: &Path) -> io::Result<(Tail, u64)> {
        let numbers = segments(directory)?;
        let segment = numbers.last().copied().unwrap_or(0);
        let mut file = open_segment(directory, segment)?;
        if numbers.is_empty() {
            sync_directory(directory)?;
        }
        let found = file.metadata()?.len();
        let (len, mut last) = last_line(&mut file, found)?;
        if len < found {
            file.set_len(len)?;
            file.sync_data()?;
        }
        if last.is_none() && segment > 0 {
            // Begun, and nothing was written yet.
            let mut before = File::open(segment_path(directory, segment - 1))?;
            let len = before.metadata()?.len();
            last = last_line(&mut before, len)?.1;
        }
        let place = match last {
            None => Place::START,
            Some(line) => {
                let read: Line<IgnoredAny> = serde_json::from_slice(&line)
                    .map_err(|_| lost("the last record of the audit trail cannot be read"))?;
                read.place().after(&line)
            }
        };
        if let Some(head) = read_head(directory)?
            && head.is_none_or(|head| place.position < head.place.position)
        {
            return Err(lost("records of the audit trail that were signed are gone"));
        }
        let began = first_line(&segment_path(directory, segment))?.map(|line| line.written);
        let tail = Tail {
            segment,
            file,
            len,
            began,
            place,
        };
        Ok((tail, found - len))
    }
}

fn lost(what: &str) -> io::Error {
    let text = format!(
        "{what}: find out what happened with `jammi audit verify`, and move the directory of the \
         trail away to begin another"
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The lock of a trail, until it is dropped.
struct Locked<'a>(&'a File);

impl<'a> Locked<'a> {
    fn take(file: &'a File) -> io::Result<Self> {
        file.lock()?;
        Ok(Locked(file))
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Fails for a file that is not open.
        let _ = self.0.unlock();
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    match directory.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Puts `bytes` in the place of a file, whole whenever this is cut off.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let next = directory.join(format!("{name}.next"));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, directory.join(name))?;
    sync_directory(directory)
}

fn write_head(directory: &Path, key: &Key, place: Place, now_us: i64) -> io::Result<()> {
    let head = Head {
        place,
        written: now_us,
        signature: key.sign_checkpoint(place, now_us),
    };
    replace(directory, HEAD, &serde_json::to_vec(&head)?)
}

/// The last checkpoint. The inner `None`: there is something that is none.
pub(super) fn read_head(directory: &Path) -> io::Result<Option<Option<Head>>> {
    match fs::read(directory.join(HEAD)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).ok())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file of a segment.
pub(super) fn segment_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:08}{SEGMENT_ENDING}"))
}

fn open_segment(directory: &Path, segment: u64) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(segment_path(directory, segment))
}

/// The numbers of the segments that are there.
pub(super) fn segments(directory: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| {
            let digits = name.strip_suffix(SEGMENT_ENDING)?;
            let number: u64 = digits.parse().ok()?;
            // As they are spelled here, so that one number is one file.
            (format!("{number:08}") == digits).then_some(number)
        });
        numbers.extend(number);
    }
    Ok(numbers)
}

/// The first line of a segment, if it has one that can be read.
pub(super) fn first_line(path: &Path) -> io::Result<Option<Line<IgnoredAny>>> {
    let mut file = io::BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    io::BufRead::read_until(&mut file, b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line).ok())
}

/// Where the last whole line of the first `len` bytes ends, and that line without its
/// line feed.
fn last_line(file: &mut File, len: u64) -> io::Result<(u64, Option<Vec<u8>>)> {
    let mut tail = Vec::new();
    let mut from = len;
    loop {
        let end = tail.iter().rposition(|byte| *byte == b'\n');
        let start = end.and_then(|end| tail[..end].iter().rposition(|byte| *byte == b'\n'));
        match (start, end) {
            (Some(start), Some(end)) => {
                let whole = from + end as u64 + 1;
                return Ok((whole, Some(tail[start + 1..end].to_vec())));
            }
            (None, Some(end)) if from == 0 => {
                return Ok((end as u64 + 1, Some(tail[..end].to_vec())));
            }
            _ if from == 0 => return Ok((0, None)),
            _ => {}
        }
        let next = from.saturating_sub(TAIL_BYTES);
        let mut chunk = vec![0; usize::try_from(from - next).unwrap_or(0)];
        file.seek(SeekFrom::Start(next))?;
        file.read_exact(&mut chunk)?;
        chunk.append(&mut tail);
        tail = chunk;
        from = next;
    }
}
