//! Whether a trail is as it was written.
//!
//! What is found is told by the place at which the chain does not hold. A trail as it
//! was at an earlier checkpoint holds by itself: who has kept a later checkpoint
//! elsewhere finds that too.

use std::fmt;
use std::io;
use std::path::Path;

use super::chain::{Entry, Line, Place};
use super::key::{Key, PublicKey};
use super::read::{Lines, Segment, listed};
use super::store::read_head;
use crate::error::{Error, Result};

/// How many faults are told; there may be more.
const FAULTS_MAX: usize = 100;

/// What was found in a trail.
#[derive(Debug, Default)]
pub struct Report {
    /// Its segments.
    pub segments: usize,
    /// Its records of statements and requests.
    pub events: u64,
    /// The last checkpoint: to be kept elsewhere.
    pub checkpoint: Option<Place>,
    /// The lines after it, which no signature holds yet.
    pub unsigned: u64,
    /// The bytes of a line at the end that is not whole: one that is being written, or
    /// that a process which was killed left. The next who writes cuts it off.
    pub torn_bytes: u64,
    /// The lines before the first one, which were dropped for their age.
    pub dropped: u64,
    /// What does not hold.
    pub faults: Vec<Fault>,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The segment in which it was found, if it is of one.
    pub segment: Option<u64>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.segment {
            Some(segment) => write!(f, "segment {segment:08}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Reads the trail in `directory` whole. Its signatures are to be those of `public`, or
/// of the key in the directory where none is given; where `kept` is given, the trail
/// has to hold that place.
///
/// # Errors
/// [`Error::NotFound`] where there is no trail, and [`Error::DataLoss`] where its files
/// cannot be read.
pub fn verify(directory: &Path, public: Option<PublicKey>, kept: Option<Place>) -> Result<Report> {
    let unreadable = |error: io::Error| {
        Error::DataLoss(format!(
            "the audit trail in {} cannot be read ({error}): run this as the user of jammi",
            directory.display()
        ))
    };
    let public = match public {
        Some(public) => public,
        None => match Key::open(directory).map_err(unreadable)? {
            Some(key) => key.public(),
            None => {
                return Err(Error::NotFound(format!(
                    "there is no audit key in {}: name the public key with --public-key",
                    directory.display()
                )));
            }
        },
    };
    // Before the segments: what it holds was written to them before.
    let head = read_head(directory).map_err(unreadable)?;
    let segments = listed(directory).map_err(unreadable)?;
    if segments.is_empty() && head.is_none() && kept.is_none() {
        return Err(Error::NotFound(format!(
            "there is no audit trail in {}",
            directory.display()
        )));
    }
    let mut walk = Walk::new(public, segments.len());
    let mut must_have: Vec<(Place, &str)> = Vec::new();
    match &head {
        Some(Some(head)) => {
            let (place, written) = (head.place, head.written);
            if walk
                .public
                .signed_checkpoint(place, written, &head.signature)
            {
                must_have.push((place, "the last checkpoint (`head`)"));
            } else {
                walk.fault("the last checkpoint (`head`) is not signed by the key".into());
            }
        }
        Some(None) => walk.fault("the last checkpoint (`head`) was edited".into()),
        None => {}
    }
    must_have.extend(kept.map(|place| (place, "the checkpoint that was kept")));
    walk.must_have = must_have;
    for segment in &segments {
        walk.segment(segment).map_err(unreadable)?;
    }
    Ok(walk.end(head.is_some()))
}

/// A reader of a whole trail.
struct Walk<'a> {
    public: PublicKey,
    report: Report,
    /// Where the next line has to stand; unknown before the first.
    next: Option<Place>,
    /// Where the first line stands.
    first: Place,
    /// Places that the trail has to hold, and who says so.
    must_have: Vec<(Place, &'a str)>,
    /// Where signed notes say that dropped segments ended.
    ends: Vec<Place>,
    segment: Option<u64>,
}

impl Walk<'_> {
    fn new(public: PublicKey, segments: usize) -> Self {
        Walk {
            public,
            report: Report {
                segments,
                ..Report::default()
            },
            next: None,
            first: Place::START,
            must_have: Vec::new(),
            ends: Vec::new(),
            segment: None,
        }
    }

    fn fault(&mut self, text: String) {
        if self.report.faults.len() < FAULTS_MAX {
            let segment = self.segment;
            self.report.faults.push(Fault { segment, text });
        }
    }

    fn segment(&mut self, segment: &Segment) -> io::Result<()> {
        let before = self.segment.replace(segment.number);
        if let Some(before) = before
            && before + 1 != segment.number
        {
            let missing = (before + 1..segment.number).map(|number| format!("{number:08}"));
            let missing: Vec<String> = missing.take(FAULTS_MAX).collect();
            self.fault(format!(
                "the segments before it are missing: {}",
                missing.join(", ")
            ));
        }
        let torn = self.report.torn_bytes;
        if torn > 0 {
            self.fault(format!(
                "the segment before it ends in {torn} bytes that are no line"
            ));
            self.report.torn_bytes = 0;
        }
        let mut lines = Lines::open(segment)?;
        let mut bytes = Vec::new();
        while let Some((line, is_whole)) = lines.next(&mut bytes)? {
            match is_whole {
                true => self.line(line),
                false => self.report.torn_bytes = line.len() as u64,
            }
        }
        Ok(())
    }

    fn line(&mut self, bytes: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line<Entry>>(bytes) else {
            let at = self.next.unwrap_or(Place::START);
            let position = at.position;
            self.fault(format!(
                "record {position} was edited: it is no record any more"
            ));
            self.go_on(at.after(bytes));
            return;
        };
        let place = line.place();
        match self.next {
            None => {
                self.first = place;
                self.go_on(place);
            }
            Some(next) => self.compare(next, place),
        }
        match &line.entry {
            Entry::Event(_) => self.report.events += 1,
            Entry::Torn { .. } => {}
            Entry::Checkpoint { signature } => {
                match self
                    .public
                    .signed_checkpoint(place, line.written, signature)
                {
                    true => self.report.checkpoint = Some(place),
                    false => self.fault(format!(
                        "checkpoint {} is not signed by the key",
                        place.position
                    )),
                }
            }
            Entry::Retention { dropped, signature } => {
                let public = &self.public;
                match public.signed_retention(dropped, place, line.written, signature) {
                    true => self.ends.extend(dropped.iter().map(|segment| segment.end)),
                    false => self.fault(format!(
                        "the note {} of what was dropped is not signed by the key",
                        place.position
                    )),
                }
            }
        }
        self.go_on(place.after(bytes));
    }

    /// Says how a line does not follow the one before.
    fn compare(&mut self, next: Place, found: Place) {
        let (expected, position) = (next.position, found.position);
        if position > expected {
            let last = position - 1;
            self.fault(match expected == last {
                true => format!("record {expected} is missing"),
                false => format!("records {expected} to {last} are missing"),
            });
        } else if position < expected {
            self.fault(format!(
                "record {position} stands where record {expected} belongs: it was moved or put in"
            ));
        } else if found.previous != next.previous {
            self.fault(match position.checked_sub(1) {
                Some(before) => {
                    format!("record {before} was edited, or record {position} was put in its place")
                }
                None => "record 0 does not begin a chain".to_owned(),
            });
        }
    }

    /// The next line has to stand at `place`.
    fn go_on(&mut self, place: Place) {
        self.next = Some(place);
        let wrong: Vec<&str> = self
            .must_have
            .extract_if(.., |(must, _)| must.position == place.position)
            .filter(|(must, _)| *must != place)
            .map(|(_, who)| who)
            .collect();
        for who in wrong {
            let position = place.position;
            self.fault(format!(
                "what is before record {position} is not what {who} holds"
            ));
        }
    }

    fn end(mut self, has_head: bool) -> Report {
        self.segment = None;
        let end = self.next.unwrap_or(Place::START);
        for (place, who) in std::mem::take(&mut self.must_have) {
            if place == end {
                continue;
            }
            let (from, last) = (end.position, place.position.saturating_sub(1));
            self.fault(match place.position > from {
                true => {
                    format!("records {from} to {last} are missing at the end: {who} holds them")
                }
                false => format!("{who} holds records that are not in the trail"),
            });
        }
        if !has_head && end != Place::START {
            self.fault("the last checkpoint (`head`) is missing".into());
        }
        self.report.dropped = self.first.position;
        if self.first != Place::START && !self.ends.contains(&self.first) {
            self.fault(format!(
                "the {} records before the first are missing, and nothing signed says that they \
                 were dropped for their age",
                self.first.position
            ));
        }
        let signed = self.report.checkpoint.map_or(0, |place| place.position + 1);
        self.report.unsigned = end.position.saturating_sub(signed.max(self.first.position));
        self.report
    }
}
