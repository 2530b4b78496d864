//! What is written is read back, to the bit.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::DataType;
use proptest::prelude::*;

use super::super::{Storage, encode_scalar, storage};
use super::arrays::{Random, any_type, plain_types, sliced};
use super::{check_equal, read, table, types_of, write_bulk, write_single};

/// Writes the arrays on both paths and reads them back.
fn check(arrays: &[ArrayRef]) {
    for write in [write_bulk, write_single] {
        let connection = table(arrays.len());
        write(&connection, arrays);
        for (column, array) in arrays.iter().enumerate() {
            let expected = storage(array.data_type()).unwrap();
            let query =
                format!("SELECT count(*) FROM t WHERE typeof(c{column}) NOT IN ('null', ?1)");
            let others: i64 = connection
                .query_row(&query, [expected.as_str()], |row| row.get(0))
                .unwrap();
            assert_eq!(others, 0, "{} is stored as {expected}", array.data_type());
        }
        check_equal(&read(&connection, &types_of(arrays)), arrays);
    }
}

/// The other tests lean on this: arrays are equal only if their bits are.
#[test]
fn equality_of_arrays_is_of_their_bits() {
    let array = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    assert_ne!(&array(0.0), &array(-0.0));
    let nan = f64::from_bits(0x7FF0_0000_0000_0001);
    assert_ne!(&array(f64::NAN), &array(nan));
    assert_eq!(&array(nan), &array(nan));
}

#[test]
fn plain_types_survive() {
    let mut random = Random(7);
    for data_type in plain_types() {
        check(&[sliced(&mut random, &data_type, 400)]);
    }
}

#[test]
fn no_rows_and_no_columns_are_read_as_such() {
    let types = [DataType::Int64, DataType::Utf8];
    let batches = read(&table(2), &types);
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].columns[1].data_type(), &DataType::Utf8);
    assert_eq!(batches[0].rows, 0);

    let connection = table(1);
    write_bulk(&connection, &[Arc::new(Int64Array::from(vec![1, 2, 3]))]);
    let batches = read(&connection, &[]);
    assert_eq!((batches[0].rows, batches[0].columns.len()), (3, 0));
}

/// An empty list, a NULL list and a list of a NULL are three things.
#[test]
fn nothing_in_a_list_is_told_apart() {
    let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([
        Some(vec![]),
        None,
        Some(vec![None]),
        Some(vec![Some(0)]),
    ]);
    let stored: Vec<_> = (0..4)
        .map(|row| encode_scalar(&lists, row).unwrap())
        .collect();
    for (index, value) in stored.iter().enumerate() {
        assert!(!stored[..index].contains(value));
    }
    check(&[Arc::new(lists)]);
}

/// A column of short strings does not keep the bytes that its views repeat.
#[test]
fn short_views_hold_no_buffer() {
    let texts = Arc::new(StringViewArray::from_iter_values(["a", "bc", "def"])) as ArrayRef;
    let connection = table(1);
    write_bulk(&connection, std::slice::from_ref(&texts));
    let batches = read(&connection, &[DataType::Utf8View]);
    let read = batches[0].columns[0].as_string_view();
    assert!(read.data_buffers().iter().all(|buffer| buffer.is_empty()));
}

#[test]
fn unsigned_halves_and_floats_are_integers() {
    assert_eq!(storage(&DataType::UInt64), Ok(Storage::Integer));
    assert_eq!(storage(&DataType::Float16), Ok(Storage::Integer));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Arrays of any types, nested to any depth, with NULLs at every level.
    #[test]
    fn any_types_survive(
        types in prop::collection::vec(any_type(), 1..4),
        seed in any::<u64>(),
        rows in 0..24_usize,
    ) {
        let mut random = Random(seed);
        let arrays: Vec<ArrayRef> =
            types.iter().map(|data_type| sliced(&mut random, data_type, rows)).collect();
        check(&arrays);
    }
}
