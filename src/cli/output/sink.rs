//! Where the bytes of a result go: stdout, or a file that appears whole.
//!
//! A file is written under another name beside the one asked for and renamed
//! when everything is in it and on the disk, so that a failure leaves neither
//! half a file nor a lost old one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::super::failure::{Failure, Outcome};

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 1 << 16;

/// A place for bytes, shared between an encoder that owns its end of it and
/// the output that flushes and commits it.
#[derive(Clone)]
pub struct Sink(Arc<Mutex<Inner>>);

struct Inner {
    place: Place,
    /// The first write that failed, as the user is to hear of it.
    failure: Option<io::Error>,
}

enum Place {
    Stdout(BufWriter<Stdout>),
    File(PendingFile),
    /// A device or a pipe, which has no content to be replaced.
    Device(PathBuf, BufWriter<File>),
    #[cfg(test)]
    Memory(Vec<u8>),
}

impl Sink {
    /// Bytes to stdout.
    pub fn stdout() -> Self {
        let stdout = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
        Sink::new(Place::Stdout(stdout))
    }

    /// Bytes to a file named `path`, once [`Sink::commit`] is called.
    pub fn file(path: &Path) -> Outcome<Self> {
        open(path)
            .map(Sink::new)
            .map_err(|error| Failure::Usage(format!("cannot write {}: {error}", path.display())))
    }

    /// Makes a file appear under its name.
    pub fn commit(&self) -> Outcome {
        let mut inner = self.0.lock();
        let committed = match &mut inner.place {
            Place::File(file) => file.commit(),
            other => other.flush(),
        };
        committed.map_err(|error| Failure::output(inner.place.name(), &error))
    }

    /// The first write that failed.
    pub fn failure(&self) -> Option<Failure> {
        let inner = self.0.lock();
        let error = inner.failure.as_ref()?;
        Some(Failure::output(inner.place.name(), error))
    }

    fn new(place: Place) -> Self {
        Sink(Arc::new(Mutex::new(Inner {
            place,
            failure: None,
        })))
    }

    fn attempt<T>(&self, write: impl FnOnce(&mut Place) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.0.lock();
        let result = write(&mut inner.place);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
            && inner.failure.is_none()
        {
            inner.failure = Some(again(error));
        }
        result
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|place| place.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Place::flush)
    }
}

impl Place {
    /// What error messages call it.
    fn name(&self) -> String {
        match self {
            Place::Stdout(_) => "to stdout".to_owned(),
            Place::File(file) => file.path.display().to_string(),
            Place::Device(path, _) => path.display().to_string(),
            #[cfg(test)]
            Place::Memory(_) => "to memory".to_owned(),
        }
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Place::Stdout(stdout) => stdout.write(bytes),
            Place::File(file) => file.writer.write(bytes),
            Place::Device(_, device) => device.write(bytes),
            #[cfg(test)]
            Place::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Place::Stdout(stdout) => stdout.flush(),
            Place::File(file) => file.writer.flush(),
            Place::Device(_, device) => device.flush(),
            #[cfg(test)]
            Place::Memory(memory) => memory.flush(),
        }
    }
}

/// Opens what `path` names, by what is there now.
fn open(path: &Path) -> io::Result<Place> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        Ok(there) if there.is_file() => {
            // Through a symbolic link, the file that it leads to is replaced.
            let file = PendingFile::create(&fs::canonicalize(path)?)?;
            let writable = file.writer.get_ref();
            writable.set_permissions(there.permissions())?;
            Ok(Place::File(file))
        }
        Ok(_) => {
            let device = OpenOptions::new().write(true).open(path)?;
            let device = BufWriter::with_capacity(BUFFER_BYTES, device);
            Ok(Place::Device(path.to_owned(), device))
        }
        Err(_) => PendingFile::create(path).map(Place::File),
    }
}

/// A file that does not have its name yet. Dropped before, it is removed.
struct PendingFile {
    path: PathBuf,
    pending: PathBuf,
    writer: BufWriter<File>,
    committed: bool,
}

impl PendingFile {
    fn create(path: &Path) -> io::Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not the name of a file",
            ));
        };
        let mut pending = OsString::from(".");
        pending.push(name);
        pending.push(format!(".{}.tmp", Uuid::new_v4().simple()));
        let pending = path.with_file_name(pending);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&pending)?;
        Ok(PendingFile {
            path: path.to_owned(),
            pending,
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            committed: false,
        })
    }

    fn commit(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().sync_all()?;
        fs::rename(&self.pending, &self.path)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.pending);
        }
    }
}

/// An error that says the same: `io::Error` cannot be cloned.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
impl Sink {
    /// Bytes to memory.
    pub fn memory() -> Self {
        Sink::new(Place::Memory(Vec::new()))
    }

    /// The bytes in memory.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.0.lock().place {
            Place::Memory(memory) => memory.clone(),
            _ => panic!("the sink is not in memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");

        let mut sink = Sink::file(&path).unwrap();
        sink.write_all(b"half").unwrap();
        drop(sink);
        assert_eq!(names(dir.path()), [""; 0]);

        fs::write(&path, b"old").unwrap();
        let mut sink = Sink::file(&path).unwrap();
        sink.write_all(b"new").unwrap();
        sink.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        sink.commit().unwrap();
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["rows.csv"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("rows.csv"), dir.path().join("latest"));
        fs::write(&path, b"old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut sink = Sink::file(&link).unwrap();
        sink.write_all(b"new").unwrap();
        sink.commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");

        let mut sink = Sink::file(Path::new("/dev/null")).unwrap();
        sink.write_all(b"new").unwrap();
        sink.commit().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_file_that_cannot_be_made_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("missing").join("x"), dir.path().to_owned()] {
            let failure = Sink::file(&path).err().expect("refused");
            assert_eq!(failure.exit_code(), 2);
            let text = failure.message().unwrap();
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
    }
}
