//! The codec against a real SQLite table.

mod arrays;
mod damage;
mod dictionaries;
mod order;
mod round_trip;
mod types;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use rusqlite::Connection;

use super::{BatchDecoder, Decoded, RowEncoder, encode_scalar};

/// A table of as many columns, without an affinity, as lanes have them.
fn table(columns: usize) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    let names: String = (0..columns).map(|column| format!(", c{column}")).collect();
    connection
        .execute(
            &format!("CREATE TABLE t (_row INTEGER PRIMARY KEY{names})"),
            [],
        )
        .unwrap();
    connection
}

/// Writes the arrays by [`RowEncoder::insert_rows`].
fn write_bulk(connection: &Connection, arrays: &[ArrayRef]) {
    let parameters: String = (0..arrays.len())
        .map(|column| format!(", ?{}", column + 2))
        .collect();
    let mut statement = connection
        .prepare(&format!("INSERT INTO t VALUES (?1{parameters})"))
        .unwrap();
    let encoder = RowEncoder::new(arrays).unwrap();
    encoder.insert_rows(&mut statement, 1, 0, 2).unwrap();
}

/// Writes the arrays a row, and a value, at a time.
fn write_single(connection: &Connection, arrays: &[ArrayRef]) {
    for row in 0..arrays[0].len() {
        let number = row as i64;
        connection
            .execute("INSERT INTO t (_row) VALUES (?1)", [number])
            .unwrap();
        for (column, array) in arrays.iter().enumerate() {
            let value = encode_scalar(array.as_ref(), row).unwrap();
            let update = format!("UPDATE t SET c{column} = ?2 WHERE _row = ?1");
            connection.execute(&update, (number, value)).unwrap();
        }
    }
}

/// Reads the table as columns of these types.
fn read(connection: &Connection, types: &[DataType]) -> Vec<Decoded> {
    let mut decoder = BatchDecoder::new(types, 16).unwrap();
    let mut statement = connection.prepare("SELECT * FROM t ORDER BY _row").unwrap();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().unwrap() {
        decoder.append(row, 1).unwrap();
    }
    decoder.finish().unwrap()
}

fn types_of(arrays: &[ArrayRef]) -> Vec<DataType> {
    arrays
        .iter()
        .map(|array| array.data_type().clone())
        .collect()
}

/// Says that the batches are the arrays, cut into pieces.
fn check_equal(batches: &[Decoded], arrays: &[ArrayRef]) {
    let mut start = 0;
    for batch in batches {
        for (found, written) in batch.columns.iter().zip(arrays) {
            assert_eq!(found.data_type(), written.data_type());
            assert_eq!(found.len(), batch.rows);
            found.to_data().validate_full().unwrap();
            assert_eq!(found, &written.slice(start, batch.rows));
        }
        start += batch.rows;
    }
    assert_eq!(start, arrays[0].len());
}
