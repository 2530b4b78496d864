//! The schema of a file: Parquet, or Arrow IPC as a file or a stream.
//!
//! What the file is says its first bytes, not its name.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::failure::{Failure, Outcome};

const PARQUET: &[u8] = b"PAR1";
const ARROW_FILE: &[u8] = b"ARRO";
/// What a message of a stream starts with.
const ARROW_STREAM: &[u8] = &[0xff; 4];

/// The columns of the rows in `path`.
pub fn read(path: &Path) -> Outcome<SchemaRef> {
    let unreadable = |why: &dyn Display| {
        Failure::Usage(format!(
            "the schema of {} cannot be read: {why}",
            path.display()
        ))
    };
    let (file, head) = open(path).map_err(|error| unreadable(&error))?;
    match head.as_slice() {
        PARQUET => ParquetRecordBatchReaderBuilder::try_new(file)
            .map(|builder| SchemaRef::clone(builder.schema()))
            .map_err(|error| unreadable(&error)),
        ARROW_FILE => FileReader::try_new(BufReader::new(file), None)
            .map(|reader| reader.schema())
            .map_err(|error| unreadable(&error)),
        ARROW_STREAM => StreamReader::try_new(BufReader::new(file), None)
            .map(|reader| reader.schema())
            .map_err(|error| unreadable(&error)),
        _ => Err(unreadable(
            &"it is neither Parquet nor Arrow: name such a file, or give --columns",
        )),
    }
}

/// The file, from its start, and its first four bytes.
fn open(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    (&file).take(4).read_to_end(&mut head)?;
    file.rewind()?;
    Ok((file, head))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::ipc::writer::{FileWriter, StreamWriter};
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn the_schema_of_every_kind_of_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("title", DataType::Utf8, true),
        ]));
        let file = |name: &str| File::create(dir.path().join(name)).unwrap();
        let mut parquet = ArrowWriter::try_new(file("parquet"), schema.clone(), None).unwrap();
        parquet.finish().unwrap();
        let mut arrow = FileWriter::try_new(file("arrow"), &schema).unwrap();
        arrow.finish().unwrap();
        let mut stream = StreamWriter::try_new(file("stream"), &schema).unwrap();
        stream.finish().unwrap();
        for name in ["parquet", "arrow", "stream"] {
            let read = read(&dir.path().join(name)).unwrap();
            assert_eq!(read.fields(), schema.fields(), "{name}");
            // Of a file that is cut off, an error and no panic.
            let whole = fs::read(dir.path().join(name)).unwrap();
            file("cut").write_all(&whole[..whole.len() / 2]).unwrap();
            let _ = super::read(&dir.path().join("cut"));
        }
        file("text").write_all(b"id,title\n").unwrap();
        file("short").write_all(b"PA").unwrap();
        for (name, says) in [
            ("text", "neither Parquet nor Arrow"),
            ("short", "neither Parquet nor Arrow"),
            ("missing", "No such file"),
            ("", "directory"),
        ] {
            let failure = read(&dir.path().join(name)).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.message().unwrap().contains(says), "{failure:?}");
        }
    }
}
