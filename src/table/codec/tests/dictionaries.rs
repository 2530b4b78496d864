//! Dictionaries: the values come back under the declared key type, whatever
//! keys they were written with.

use std::sync::Arc;

use arrow::array::types::{Int8Type, Int32Type, UInt8Type};
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};

use super::{check_equal, read, table, types_of, write_bulk};

/// Symptom: a column with `Int8` keys could not be read once its rows held more
/// than 128 values, which batches with fewer each had written. Cause: an array
/// has one dictionary. Cure: the rows come back as more than one batch, cut at
/// the same row in every column.
#[test]
fn more_values_than_keys_come_back_in_several_batches() {
    let connection = table(3);
    let names: Vec<String> = (0..1000).map(|row| format!("name {}", row % 400)).collect();
    let mut arrays: Vec<Vec<ArrayRef>> = Vec::new();
    for chunk in names.chunks(100) {
        let narrow: DictionaryArray<Int8Type> =
            chunk.iter().map(|name| Some(name.as_str())).collect();
        let items: DictionaryArray<UInt8Type> =
            chunk.iter().map(|name| Some(name.as_str())).collect();
        let item = Arc::new(Field::new("item", items.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(2, 50));
        let lists = ListArray::new(item, offsets, Arc::new(items), None);
        let plain = StringArray::from_iter_values(chunk);
        // Twice as many rows as lists: each list stands for two.
        let halves = UInt32Array::from_iter_values((0..100).map(|row| row / 2));
        let lists = arrow::compute::take(&lists, &halves, None).unwrap();
        arrays.push(vec![lists, Arc::new(plain), Arc::new(narrow)]);
    }
    let mut insert = connection
        .prepare("INSERT INTO t VALUES (?1, ?2, ?3, ?4)")
        .unwrap();
    for (index, arrays) in arrays.iter().enumerate() {
        let encoder = super::RowEncoder::new(arrays).unwrap();
        encoder
            .insert_rows(&mut insert, 1, index as i64 * 100, 2)
            .unwrap();
    }
    let batches = read(&connection, &types_of(&arrays[0]));
    assert!(batches.len() >= 8, "{} batches", batches.len());
    assert_eq!(batches.iter().map(|batch| batch.rows).sum::<usize>(), 1000);
    let mut row = 0;
    for batch in &batches {
        let [lists, plain, narrow] = batch.columns.as_slice() else {
            panic!("three columns were written");
        };
        let text = DataType::Utf8;
        let narrow = arrow::compute::cast(narrow, &text).unwrap();
        assert_eq!(&narrow, plain);
        for index in 0..batch.rows {
            assert_eq!(plain.as_string::<i32>().value(index), names[row]);
            let list = lists.as_list::<i32>().value(index);
            let list = arrow::compute::cast(&list, &text).unwrap();
            let first = row - row % 2;
            let expected = [Some(names[first].as_str()), Some(names[first + 1].as_str())];
            assert!(list.as_string::<i32>().iter().eq(expected));
            row += 1;
        }
    }
}

/// A key may point to a NULL, and then the value is NULL.
#[test]
fn nulls_among_the_values_are_nulls() {
    let values = Arc::new(StringArray::from(vec![Some("a"), None]));
    let keys = Int32Array::from(vec![Some(0), Some(1), None, Some(0)]);
    let written = DictionaryArray::<Int32Type>::new(keys, values);
    let connection = table(1);
    write_bulk(&connection, &[Arc::new(written.clone())]);
    let batches = read(&connection, &[written.data_type().clone()]);
    let found = batches[0].columns[0].as_dictionary::<Int32Type>();
    let found: Vec<_> = found
        .downcast_dict::<StringArray>()
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(found, [Some("a"), None, None, Some("a")]);
}

/// All keys of a type are used before a second batch is begun.
#[test]
fn as_many_values_as_keys_are_one_batch() {
    let values = Arc::new(Int64Array::from_iter_values(0..128));
    let written = DictionaryArray::<Int8Type>::new((0..=127).collect::<Vec<i8>>().into(), values);
    let written = [Arc::new(written) as ArrayRef];
    let connection = table(1);
    write_bulk(&connection, &written);
    let batches = read(&connection, &types_of(&written));
    assert_eq!(batches.len(), 1);
    check_equal(&batches, &written);
}

/// No row, and rows of nothing but NULL, need no value.
#[test]
fn a_dictionary_may_be_empty() {
    let data_type = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    for rows in [0, 3] {
        let written = [new_null_array(&data_type, rows)];
        let connection = table(1);
        write_bulk(&connection, &written);
        check_equal(&read(&connection, &types_of(&written)), &written);
    }
}
