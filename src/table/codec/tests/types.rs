//! Which types a column may have.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit, UnionFields, UnionMode};
use proptest::prelude::*;

use super::super::{ColumnDecoder, LEVELS_MAX, Ordering, RowEncoder, check_type, ordering};
use super::arrays::{Random, any_type, key_types, map, plain_types, sliced};

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn dictionary(key: DataType, value: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(value))
}

#[test]
fn plain_types_and_dictionaries_of_them_are_accepted() {
    for data_type in plain_types() {
        assert_eq!(check_type(&data_type), Ok(()));
        for key in key_types() {
            assert_eq!(check_type(&dictionary(key, data_type.clone())), Ok(()));
        }
    }
}

fn check_refused(data_type: &DataType, text: &str) {
    assert_eq!(check_type(data_type).unwrap_err().to_string(), text);
    assert_eq!(ordering(data_type), Ordering::None);
    assert!(ColumnDecoder::new(data_type, 0).is_err());
}

#[test]
fn others_are_refused_by_name_with_the_mend() {
    check_refused(
        &list(DataType::Null),
        "type Null cannot be stored in a table: declare the column with the type of its values",
    );
    let union = DataType::Union(UnionFields::empty(), UnionMode::Sparse);
    check_refused(
        &union,
        "type Union(Sparse) cannot be stored in a table: \
         use a Struct with a nullable field for each alternative",
    );
    let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
    let values = Arc::new(Field::new("values", DataType::Utf8, true));
    let runs = DataType::RunEndEncoded(ends, values);
    let text = check_type(&runs).unwrap_err().to_string();
    assert!(
        text.ends_with("declare the column with the type of its values"),
        "{text}"
    );
    check_refused(
        &DataType::Time32(TimeUnit::Nanosecond),
        "type Time32(ns) cannot be stored in a table: \
         use Time64 for microseconds and nanoseconds",
    );
    check_refused(
        &DataType::FixedSizeBinary(2 << 20),
        "type FixedSizeBinary(2097152) cannot be stored in a table: \
         a fixed size may take at most 1 MiB, use Binary",
    );
    for data_type in [
        DataType::FixedSizeBinary(-1),
        DataType::Decimal128(39, 0),
        DataType::Decimal32(0, 0),
        DataType::Time64(TimeUnit::Second),
        DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Int8, true)), -1),
        DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Int64, true)), 1 << 20),
        dictionary(DataType::Utf8, DataType::Utf8),
        dictionary(DataType::Int8, list(DataType::Utf8)),
        dictionary(DataType::Int8, dictionary(DataType::Int8, DataType::Utf8)),
        DataType::Map(
            Arc::new(Field::new("entries", DataType::Utf8, false)),
            false,
        ),
        DataType::Struct(Fields::from(vec![Field::new("f", DataType::Null, true)])),
    ] {
        assert!(check_type(&data_type).is_err(), "{data_type}");
    }
    let DataType::Map(entries, _) = map(DataType::Utf8, DataType::Utf8, true) else {
        panic!("it is a map");
    };
    let loose = Arc::new(entries.as_ref().clone().with_nullable(true));
    assert!(check_type(&DataType::Map(loose, false)).is_err());
}

#[test]
fn nesting_has_a_bound() {
    let nested = |levels| (1..levels).fold(DataType::Int8, |inner, _| list(inner));
    let deepest = nested(LEVELS_MAX);
    assert_eq!(check_type(&deepest), Ok(()));
    let arrays: [ArrayRef; 1] = [sliced(&mut Random(1), &deepest, 8)];
    let encoder = RowEncoder::new(&arrays).unwrap();
    let mut decoder = ColumnDecoder::new(&deepest, 8).unwrap();
    for row in 0..8 {
        decoder.append(encoder.value(row, 0)).unwrap();
    }
    assert_eq!(&decoder.finish().unwrap()[0], &arrays[0]);

    let text = check_type(&nested(LEVELS_MAX + 1)).unwrap_err().to_string();
    assert!(
        text.starts_with("a type of more than 32 levels cannot"),
        "{text}"
    );
    assert!(check_type(&nested(10_000)).is_err());
}

#[test]
fn orderings_are_as_said() {
    assert_eq!(ordering(&DataType::Float64), Ordering::Total);
    assert_eq!(ordering(&list(DataType::Int8)), Ordering::Equality);
    assert_eq!(
        ordering(&dictionary(DataType::Int8, DataType::Utf8)),
        Ordering::Total
    );
    assert_eq!(
        ordering(&dictionary(DataType::Int8, DataType::Float64)),
        Ordering::None
    );
    assert_eq!(ordering(&DataType::Null), Ordering::None);
}

proptest! {
    /// What is accepted, everything else takes too.
    #[test]
    fn every_part_accepts_the_same(data_type in any_type()) {
        prop_assert_eq!(check_type(&data_type), Ok(()));
        let arrays = [arrow::array::new_empty_array(&data_type)];
        prop_assert!(RowEncoder::new(&arrays).is_ok());
        let decoded = ColumnDecoder::new(&data_type, 0).unwrap().finish().unwrap();
        prop_assert_eq!(decoded[0].data_type(), &data_type);
    }
}
