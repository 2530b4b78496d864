//! The records of a trail, from the oldest to the newest.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use super::Event;
use super::chain::{Entry, Line};
use super::store::{first_line, segment_path, segments};
use crate::tenant::TenantId;

/// How far the clock may have been set back without a record being missed that is asked
/// for by its time.
const CLOCK_SLACK_US: i64 = 3_600_000_000;
/// How much is looked through at a time for records that are asked for.
const SEARCHED_BYTES: usize = 1 << 20;
/// How much of a segment is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Whose records are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's, and those that belong to no tenant.
    Everybodys,
    /// One tenant's, of those that ended after a time in microseconds since 1970.
    Tenants(TenantId, i64),
    /// Nobody's.
    Nobodys,
}

/// A segment as it was when it was listed: what is added later is not read.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub number: u64,
    pub path: PathBuf,
    pub len: u64,
}

/// The segments that are there, from the oldest to the newest. There are none where
/// there is no trail.
pub(super) fn listed(directory: &Path) -> io::Result<Vec<Segment>> {
    let numbers = match segments(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut listed = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = segment_path(directory, number);
        match path.metadata() {
            Ok(metadata) => listed.push(Segment {
                number,
                path,
                len: metadata.len(),
            }),
            // Dropped for its age.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
}

/// The lines of a segment.
pub(super) struct Lines(BufReader<Take<File>>);

impl Lines {
    pub fn open(segment: &Segment) -> io::Result<Lines> {
        let file = File::open(&segment.path)?.take(segment.len);
        Ok(Lines(BufReader::with_capacity(READ_BYTES, file)))
    }

    /// The next line without its line feed, and whether it had one. `None`: there is
    /// no other.
    pub fn next<'a>(&mut self, line: &'a mut Vec<u8>) -> io::Result<Option<(&'a [u8], bool)>> {
        line.clear();
        self.0.read_until(b'\n', line)?;
        let is_whole = line.last() == Some(&b'\n');
        if is_whole {
            line.pop();
        }
        let is_over = !is_whole && line.is_empty();
        Ok((!is_over).then_some((line.as_slice(), is_whole)))
    }
}

/// The records of a trail as it was when they were asked for.
pub struct Events {
    /// The tenant whose they are to be, where they are not everybody's.
    tenant: Option<String>,
    /// After when they are to have ended, in microseconds since 1970.
    after_us: i64,
    segments: IntoIter<Segment>,
    lines: Option<Lines>,
    line: Vec<u8>,
}

impl Events {
    /// Those of whole segments that ended before `since_us` are left out, where it is
    /// given.
    pub(super) fn of(directory: &Path, whose: Whose, since_us: Option<i64>) -> io::Result<Events> {
        let mut segments = match whose {
            Whose::Nobodys => Vec::new(),
            Whose::Everybodys | Whose::Tenants(..) => listed(directory)?,
        };
        if let Some(since_us) = since_us {
            let mut earlier = 0;
            while let Some(next) = segments.get(earlier + 1) {
                // No record is written before it has ended.
                let ended = first_line(&next.path)?.map(|line| line.written);
                if ended.is_none_or(|at| at.saturating_add(CLOCK_SLACK_US) >= since_us) {
                    break;
                }
                earlier += 1;
            }
            segments.drain(..earlier);
        }
        let (tenant, after_us) = match whose {
            Whose::Tenants(tenant, after_us) => (Some(tenant.to_string()), after_us),
            Whose::Everybodys | Whose::Nobodys => (None, i64::MIN),
        };
        Ok(Events {
            tenant,
            after_us,
            segments: segments.into_iter(),
            lines: None,
            line: Vec::new(),
        })
    }

    /// The next records, `events_max` at most, and few or none where it takes long to
    /// find some; `None` after the last. A line that is no record is passed over: `jammi
    /// audit verify` tells of it.
    pub fn next(&mut self, events_max: usize) -> io::Result<Option<Vec<Event>>> {
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < events_max && bytes < SEARCHED_BYTES {
            let Some(lines) = &mut self.lines else {
                let Some(segment) = self.segments.next() else {
                    return Ok((!events.is_empty()).then_some(events));
                };
                match Lines::open(&segment) {
                    Ok(lines) => self.lines = Some(lines),
                    // Dropped for its age.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                continue;
            };
            let next = lines.next(&mut self.line)?;
            bytes += next.map_or(0, |(line, _)| line.len());
            match next {
                Some((line, true)) if may_be_of(self.tenant.as_deref(), line) => {
                    let read: Result<Line<Entry>, _> = serde_json::from_slice(line);
                    if let Ok(Line {
                        entry: Entry::Event(event),
                        ..
                    }) = read
                        && (self.tenant.is_none() || event.tenant_id == self.tenant)
                        && event.time > self.after_us
                    {
                        events.push(*event);
                    }
                }
                Some(_) => {}
                None => self.lines = None,
            }
        }
        Ok(Some(events))
    }
}

/// Whether a line may hold a record of `tenant`: cheaper to tell than to read the line.
fn may_be_of(tenant: Option<&str>, line: &[u8]) -> bool {
    match tenant {
        None => true,
        Some(tenant) => std::str::from_utf8(line).is_ok_and(|line| line.contains(tenant)),
    }
}
