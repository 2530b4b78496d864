//! Stored values that the codec did not write are told, whatever they are.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, TimeUnit};
use proptest::prelude::*;
use rusqlite::types::{Type, Value, ValueRef};

use super::super::{BatchDecoder, ColumnDecoder, Damaged, Fault, RowEncoder, Storage};
use super::super::{Ordering, check_type, encode_scalar, ordering};
use super::arrays::{Random, any_type, plain_types, sliced};

/// Reads one value as the type.
fn decode(data_type: &DataType, value: ValueRef<'_>) -> Result<ArrayRef, Fault> {
    let mut decoder = ColumnDecoder::new(data_type, 1).unwrap();
    decoder.append(value)?;
    Ok(decoder.finish()?.remove(0))
}

fn check(data_type: DataType, value: ValueRef<'_>, fault: Fault) {
    assert_eq!(
        decode(&data_type, value).map(|_| ()),
        Err(fault),
        "{data_type}"
    );
}

#[test]
fn a_value_of_another_kind_is_named() {
    let kind = |found, expected| Fault::Kind { found, expected };
    let text = ValueRef::Text(b"text");
    check(DataType::Int32, text, kind(Type::Text, Storage::Integer));
    check(
        DataType::Float64,
        ValueRef::Real(1.0),
        kind(Type::Real, Storage::Integer),
    );
    check(
        DataType::Boolean,
        ValueRef::Blob(&[1]),
        kind(Type::Blob, Storage::Integer),
    );
    check(
        DataType::Utf8View,
        ValueRef::Integer(1),
        kind(Type::Integer, Storage::Text),
    );
    check(
        DataType::Utf8,
        ValueRef::Blob(b"text"),
        kind(Type::Blob, Storage::Text),
    );
    check(
        DataType::Decimal128(5, 1),
        text,
        kind(Type::Text, Storage::Blob),
    );
    check(
        DataType::FixedSizeBinary(4),
        text,
        kind(Type::Text, Storage::Blob),
    );
    let list = DataType::List(Field::new("item", DataType::Int8, true).into());
    check(
        list,
        ValueRef::Integer(0),
        kind(Type::Integer, Storage::Blob),
    );
    let dictionary = DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into());
    check(
        dictionary,
        ValueRef::Real(0.0),
        kind(Type::Real, Storage::Text),
    );
}

#[test]
fn a_value_that_the_type_does_not_have_is_refused() {
    check(DataType::Boolean, ValueRef::Integer(2), Fault::Range);
    check(DataType::Int8, ValueRef::Integer(128), Fault::Range);
    check(DataType::UInt32, ValueRef::Integer(-1), Fault::Range);
    check(DataType::Float16, ValueRef::Integer(1 << 15), Fault::Range);
    check(DataType::Date32, ValueRef::Integer(1 << 31), Fault::Range);
    check(DataType::Utf8, ValueRef::Text(&[0xC3]), Fault::Utf8);
    check(
        DataType::Utf8View,
        ValueRef::Text(b"\xED\xA0\x80"),
        Fault::Utf8,
    );
    let length = |found, expected| Fault::Length { found, expected };
    check(
        DataType::Decimal256(5, 1),
        ValueRef::Blob(&[0; 16]),
        length(16, 32),
    );
    check(
        DataType::FixedSizeBinary(2),
        ValueRef::Blob(&[0; 3]),
        length(3, 2),
    );
}

/// A character that is cut in two by the end of a value is damage, even if the
/// next value begins with the rest of it.
#[test]
fn two_halves_of_a_character_are_no_text() {
    let mut decoder = ColumnDecoder::new(&DataType::Utf8, 2).unwrap();
    decoder.append(ValueRef::Text(&[0xC3])).unwrap();
    decoder.append(ValueRef::Text(&[0xA9])).unwrap();
    assert_eq!(decoder.finish().map(|_| ()), Err(Fault::Utf8));
}

#[test]
fn a_nested_value_follows_its_form() {
    let list = |item| DataType::List(Field::new("item", item, true).into());
    let bytes = list(DataType::Int8);
    check(bytes.clone(), ValueRef::Blob(&[]), Fault::NestedVersion);
    check(bytes.clone(), ValueRef::Blob(&[2, 0]), Fault::NestedVersion);
    check(bytes.clone(), ValueRef::Blob(&[1]), Fault::NestedForm);
    check(bytes.clone(), ValueRef::Blob(&[1, 2]), Fault::NestedForm);
    check(
        bytes.clone(),
        ValueRef::Blob(&[1, 2, 7, 7]),
        Fault::NestedForm,
    );
    check(
        list(DataType::Boolean),
        ValueRef::Blob(&[1, 2, 2]),
        Fault::NestedForm,
    );
    check(
        list(DataType::Utf8),
        ValueRef::Blob(&[1, 2, 1, 0xFF]),
        Fault::Utf8,
    );
    let counts = [
        1, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    ];
    check(bytes, ValueRef::Blob(&counts), Fault::NestedForm);
    let strict = DataType::List(Field::new("item", DataType::Int8, false).into());
    check(strict, ValueRef::Blob(&[1, 3, 0]), Fault::NestedNull);
}

/// A count is believed only as far as there are bytes to bear it out.
#[test]
fn a_large_count_costs_nothing() {
    for item in plain_types() {
        let item = DataType::LargeList(Field::new("item", item, true).into());
        let pairs = DataType::LargeList(Field::new("item", item.clone(), true).into());
        for data_type in [item, pairs] {
            // 2^61 items, without and with NULLs among them.
            for flag in [0x80, 0x81] {
                let blob = [1, flag, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
                let mut decoder = ColumnDecoder::new(&data_type, 1).unwrap();
                assert_eq!(
                    decoder.append(ValueRef::Blob(&blob)),
                    Err(Fault::NestedForm)
                );
                assert_eq!(decoder.finish().unwrap()[0].len(), 0);
            }
        }
    }
    let list = DataType::List(Field::new("item", DataType::Int8, true).into());
    check(
        list,
        ValueRef::Blob(&[1, 0xFE, 0xFF, 0xFF, 0xFF, 0x7F]),
        Fault::Size,
    );
}

/// The decoder goes on after a row that it refused.
#[test]
fn a_refused_row_leaves_no_trace() {
    let types = [DataType::Int64, DataType::Utf8, DataType::Int8];
    let mut decoder = BatchDecoder::new(&types, 4).unwrap();
    let row = |last| {
        move |column| match column {
            0 => Some(ValueRef::Integer(1)),
            1 => Some(ValueRef::Text(b"text")),
            _ => last,
        }
    };
    decoder
        .append_with(row(Some(ValueRef::Integer(1))))
        .unwrap();
    let fault = Fault::Range;
    let damaged = decoder.append_with(row(Some(ValueRef::Integer(1000))));
    assert_eq!(damaged, Err(Damaged { column: 2, fault }));
    let damaged = decoder.append_with(row(None)).unwrap_err();
    assert_eq!(
        damaged.to_string(),
        "column 2 holds nothing: the row ends before it"
    );
    decoder.append_with(row(Some(ValueRef::Null))).unwrap();
    let batches = decoder.finish().unwrap();
    assert_eq!((batches.len(), batches[0].rows), (1, 2));
    for column in &batches[0].columns {
        assert_eq!(column.len(), 2);
        column.to_data().validate_full().unwrap();
    }
    assert_eq!(decoder.rows(), 0);
}

fn as_ref(value: &Value) -> ValueRef<'_> {
    ValueRef::from(value)
}

/// Changes some bytes of a value.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let index = random.below(bytes.len());
        match (random.below(5), bytes.get_mut(index)) {
            (0, Some(byte)) => *byte ^= 1 << random.below(8),
            (1, Some(byte)) => *byte = random.next() as u8,
            (2, Some(_)) => bytes.truncate(index),
            (3, Some(_)) => drop(bytes.remove(index)),
            _ => bytes.insert(index, random.next() as u8),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Damaged values are refused, or are values of the type; either way what
    /// they took is in proportion to what they are.
    #[test]
    fn damage_never_panics(data_type in any_type(), seed in any::<u64>()) {
        let random = &mut Random(seed);
        let array = sliced(random, &data_type, 4);
        for row in 0..array.len() {
            let value = match encode_scalar(array.as_ref(), row).unwrap() {
                Value::Blob(mut bytes) => {
                    damage(random, &mut bytes);
                    Value::Blob(bytes)
                }
                Value::Text(text) => {
                    let mut bytes = text.into_bytes();
                    damage(random, &mut bytes);
                    let found = decode(&data_type, ValueRef::Text(&bytes));
                    prop_assert_eq!(found.is_ok(), std::str::from_utf8(&bytes).is_ok());
                    continue;
                }
                _ => Value::Integer(random.next() as i64 >> random.below(64)),
            };
            let mut decoder = BatchDecoder::new([&data_type], 1).unwrap();
            if decoder.append_with(|_| Some(as_ref(&value))).is_ok() {
                if let Value::Blob(bytes) = &value {
                    let most = (bytes.len() + 1) * 8 * width(&data_type);
                    prop_assert!(decoder.bytes() <= most, "{} > {most}", decoder.bytes());
                }
                if let Ok(mut batches) = decoder.finish() {
                    let array = batches.remove(0).columns.remove(0);
                    array.to_data().validate_full().unwrap();
                    let again = [array];
                    prop_assert_eq!(RowEncoder::new(&again).unwrap().rows(), 1);
                }
            }
        }
    }

    /// A nested value that ends too early is refused, and those around it come
    /// back as if it had never been there.
    #[test]
    fn a_refused_value_leaves_no_trace(data_type in any_type(), seed in any::<u64>()) {
        let random = &mut Random(seed);
        let array = sliced(random, &data_type, 12);
        let nested = ordering(&data_type) == Ordering::Equality;
        let mut decoder = ColumnDecoder::new(&data_type, 4).unwrap();
        for row in 0..array.len() {
            let value = encode_scalar(array.as_ref(), row).unwrap();
            if let Value::Blob(bytes) = &value && nested {
                let cut = random.below(bytes.len());
                prop_assert!(decoder.append(ValueRef::Blob(&bytes[..cut])).is_err());
            }
            decoder.append(as_ref(&value)).unwrap();
        }
        prop_assert_eq!(&decoder.finish().unwrap()[0], &array);
    }

    /// No value of any kind makes a decoder of any type panic.
    #[test]
    fn no_value_panics(
        data_type in any_type(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        integer in any::<i64>(),
    ) {
        let versioned: Vec<u8> = std::iter::once(1).chain(bytes.iter().copied()).collect();
        for value in [
            ValueRef::Null,
            ValueRef::Integer(integer),
            ValueRef::Real(integer as f64),
            ValueRef::Text(&bytes),
            ValueRef::Blob(&bytes),
            ValueRef::Blob(&versioned),
        ] {
            if let Ok(array) = decode(&data_type, value) {
                prop_assert_eq!(array.len(), 1);
                array.to_data().validate_full().unwrap();
            }
        }
    }
}

/// What one NULL of the type takes at most, with a margin for offsets.
fn width(data_type: &DataType) -> usize {
    check_type(data_type).unwrap();
    match data_type {
        DataType::FixedSizeBinary(size) => 8 + *size as usize,
        DataType::FixedSizeList(item, size) => 8 + *size as usize * width(item.data_type()),
        DataType::Struct(fields) => {
            8 + fields
                .iter()
                .map(|field| width(field.data_type()))
                .sum::<usize>()
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::Map(item, _) => 16 + width(item.data_type()),
        DataType::Dictionary(_, value) => 8 + width(value),
        DataType::Timestamp(TimeUnit::Second, _) => 8,
        _ => 32,
    }
}
