//! Arrays of any type, with the values that are likely to go wrong.

use std::sync::Arc;

use arrow::array::types::ArrowPrimitiveType;
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};
use proptest::prelude::*;
use proptest::sample::select;

/// A source of arbitrary numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Every type that is not made of others.
pub fn plain_types() -> Vec<DataType> {
    use DataType::*;
    let units = [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ];
    let mut types = vec![
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Decimal32(9, 2),
        Decimal64(18, -3),
        Decimal128(38, 10),
        Decimal256(76, 0),
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        FixedSizeBinary(0),
        FixedSizeBinary(1),
        FixedSizeBinary(16),
        Date32,
        Date64,
        Time32(units[0]),
        Time32(units[1]),
        Time64(units[2]),
        Time64(units[3]),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
    ];
    for unit in units {
        types.push(Timestamp(unit, None));
        types.push(Timestamp(unit, Some("+02:00".into())));
        types.push(Timestamp(unit, Some("Europe/Paris".into())));
        types.push(Duration(unit));
    }
    types
}

/// Every type of dictionary keys.
pub fn key_types() -> Vec<DataType> {
    use DataType::*;
    vec![Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64]
}

/// Any type that a column may have.
pub fn any_type() -> impl Strategy<Value = DataType> {
    let dictionary = (select(key_types()), select(plain_types()))
        .prop_map(|(key, value)| DataType::Dictionary(Box::new(key), Box::new(value)));
    let leaf = prop_oneof![4 => select(plain_types()), 1 => dictionary];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let item = (inner.clone(), any::<bool>())
            .prop_map(|(item, nullable)| Arc::new(Field::new("item", item, nullable)));
        let fields = prop::collection::vec((inner.clone(), any::<bool>()), 0..11).prop_map(named);
        let entries = (inner.clone(), inner, any::<bool>());
        prop_oneof![
            item.clone().prop_map(DataType::List),
            item.clone().prop_map(DataType::LargeList),
            item.clone().prop_map(DataType::ListView),
            item.clone().prop_map(DataType::LargeListView),
            (item, 0..4).prop_map(|(item, size)| DataType::FixedSizeList(item, size)),
            fields.prop_map(DataType::Struct),
            entries.prop_map(|(key, value, nullable)| map(key, value, nullable)),
        ]
    })
}

fn named(fields: Vec<(DataType, bool)>) -> Fields {
    let fields = fields.into_iter().enumerate();
    fields
        .map(|(index, (field, nullable))| Field::new(format!("f{index}"), field, nullable))
        .collect()
}

/// A map type.
pub fn map(key: DataType, value: DataType, nullable: bool) -> DataType {
    let fields = vec![
        Field::new("key", key, false),
        Field::new("value", value, nullable),
    ];
    let entries = Field::new("entries", DataType::Struct(fields.into()), false);
    DataType::Map(Arc::new(entries), false)
}

/// An array of the type, cut out of a longer one.
pub fn sliced(random: &mut Random, data_type: &DataType, len: usize) -> ArrayRef {
    let (before, after) = (random.below(3), random.below(3));
    array(random, data_type, before + len + after, true).slice(before, len)
}

/// An array of the type, with NULLs if it may have some.
pub fn array(random: &mut Random, data_type: &DataType, len: usize, nullable: bool) -> ArrayRef {
    let nulls = nulls(random, len, nullable);
    macro_rules! primitive {
        ($t:ty) => {{
            let width = size_of::<<$t as ArrowPrimitiveType>::Native>();
            let bytes: Vec<u8> = (0..len).flat_map(|_| number(random, width)).collect();
            let values = ScalarBuffer::new(Buffer::from_slice_ref(&bytes), 0, len);
            let array = PrimitiveArray::<$t>::new(values, nulls);
            Arc::new(array.with_data_type(data_type.clone()))
        }};
    }
    let texts = |random: &mut Random| -> Vec<Option<String>> {
        let valid = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        (0..len)
            .map(|row| valid(row).then(|| text(random)))
            .collect()
    };
    let blobs = |random: &mut Random| -> Vec<Option<Vec<u8>>> {
        let valid = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        (0..len)
            .map(|row| valid(row).then(|| blob(random)))
            .collect()
    };
    downcast_primitive! {
        data_type => (primitive),
        DataType::Boolean => {
            let values = BooleanBuffer::collect_bool(len, |_| random.one_in(2));
            Arc::new(BooleanArray::new(values, nulls))
        }
        DataType::Utf8 => Arc::new(StringArray::from(texts(random))),
        DataType::LargeUtf8 => Arc::new(LargeStringArray::from(texts(random))),
        DataType::Utf8View => Arc::new(StringViewArray::from_iter(texts(random))),
        DataType::Binary => Arc::new(BinaryArray::from_iter(blobs(random))),
        DataType::LargeBinary => Arc::new(LargeBinaryArray::from_iter(blobs(random))),
        DataType::BinaryView => Arc::new(BinaryViewArray::from_iter(blobs(random))),
        DataType::FixedSizeBinary(size) => {
            let bytes: Vec<u8> = (0..len).flat_map(|_| number(random, *size as usize)).collect();
            Arc::new(FixedSizeBinaryArray::try_new_with_len(*size, bytes.into(), nulls, len).unwrap())
        }
        DataType::Dictionary(key, value) => dictionary(random, key, value, nulls, len),
        data_type => nested(random, data_type, nulls, len),
    }
}

fn nulls(random: &mut Random, len: usize, nullable: bool) -> Option<NullBuffer> {
    let every = [0, 1, 2, 7][random.below(4)];
    (nullable && every > 0).then(|| NullBuffer::from_iter((0..len).map(|_| !random.one_in(every))))
}

/// The bytes of a number: those at the ends of what it can be, those of special
/// floats (the same patterns, mostly), or any.
fn number(random: &mut Random, width: usize) -> Vec<u8> {
    let pattern = |low: u8, high: [u8; 2]| {
        let mut bytes = vec![low; width];
        let start = width.saturating_sub(2);
        bytes[start..].copy_from_slice(&high[2 - (width - start)..]);
        bytes
    };
    match random.below(16) {
        0 => pattern(0, [0, 0]),
        1 => pattern(0, [0, 0x80]),
        2 => pattern(0xFF, [0xFF, 0x7F]),
        3 => pattern(0xFF, [0xFF, 0xFF]),
        4 => pattern(0, [0xF0, [0x7F, 0xFF][random.below(2)]]),
        5 => pattern(0, [0x80, [0x7F, 0xFF][random.below(2)]]),
        6 => pattern(0, [0x7C, [0x00, 0x80][random.below(2)]]),
        7 => pattern(0, [0xF8, [0x7F, 0xFF][random.below(2)]]),
        8 => pattern(random.next() as u8, [0xFF, [0x7F, 0xFF][random.below(2)]]),
        9 | 10 => {
            let mut bytes = pattern(0, [0, 0]);
            if let Some(byte) = bytes.first_mut() {
                *byte = random.below(4) as u8;
            }
            bytes
        }
        _ => (0..width).map(|_| random.next() as u8).collect(),
    }
}

fn text(random: &mut Random) -> String {
    const TEXTS: [&str; 12] = [
        "",
        "\0",
        "a",
        "a\0b",
        "a\0",
        "ab",
        "é",
        "\u{FFFF}",
        "\u{10000}",
        "\u{10FFFF}",
        "𝄞😀",
        "a text too long for a view to hold",
    ];
    match random.below(16) {
        index if index < TEXTS.len() => TEXTS[index].to_owned(),
        index => (0..random.below(index * 2))
            .map(|_| char::from_u32(random.next() as u32 % 0x11_0000).unwrap_or('\u{7F}'))
            .collect(),
    }
}

fn blob(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => Vec::new(),
        1 => vec![0],
        2 => vec![0xFF; 3],
        length => (0..random.below(length * 5))
            .map(|_| random.next() as u8)
            .collect(),
    }
}

fn dictionary(
    random: &mut Random,
    key: &DataType,
    value: &DataType,
    nulls: Option<NullBuffer>,
    len: usize,
) -> ArrayRef {
    let distinct = 1 + random.below(9);
    let values = array(random, value, distinct, false);
    macro_rules! dictionary {
        ($t:ty) => {{
            let keys = (0..len).map(|_| random.below(values.len()) as _).collect();
            let keys = PrimitiveArray::<$t>::new(keys, nulls);
            Arc::new(DictionaryArray::new(keys, values))
        }};
    }
    downcast_integer! {
        key => (dictionary),
        _ => unreachable!("keys are integers"),
    }
}

fn nested(
    random: &mut Random,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
    len: usize,
) -> ArrayRef {
    match data_type {
        DataType::List(item) => {
            let (offsets, items) = lists::<i32>(random, item, len);
            Arc::new(ListArray::new(item.clone(), offsets, items, nulls))
        }
        DataType::LargeList(item) => {
            let (offsets, items) = lists::<i64>(random, item, len);
            Arc::new(LargeListArray::new(item.clone(), offsets, items, nulls))
        }
        DataType::ListView(item) => {
            let (offsets, sizes, items) = views::<i32>(random, item, len);
            Arc::new(ListViewArray::new(
                item.clone(),
                offsets,
                sizes,
                items,
                nulls,
            ))
        }
        DataType::LargeListView(item) => {
            let (offsets, sizes, items) = views::<i64>(random, item, len);
            Arc::new(LargeListViewArray::new(
                item.clone(),
                offsets,
                sizes,
                items,
                nulls,
            ))
        }
        DataType::FixedSizeList(item, size) => {
            let items = array(
                random,
                item.data_type(),
                len * *size as usize,
                item.is_nullable(),
            );
            let item = item.clone();
            Arc::new(
                FixedSizeListArray::try_new_with_length(item, *size, items, nulls, len).unwrap(),
            )
        }
        DataType::Struct(fields) => {
            let columns = fields
                .iter()
                .map(|field| array(random, field.data_type(), len, field.is_nullable()))
                .collect();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, len).unwrap())
        }
        DataType::Map(entries, ordered) => {
            let (offsets, items) = lists::<i32>(random, entries, len);
            let items = items.as_struct().clone();
            Arc::new(MapArray::new(
                entries.clone(),
                offsets,
                items,
                nulls,
                *ordered,
            ))
        }
        data_type => unreachable!("{data_type}"),
    }
}

/// Lists of a few items. What a NULL hides may have items too.
fn lists<O: OffsetSizeTrait>(
    random: &mut Random,
    item: &FieldRef,
    len: usize,
) -> (OffsetBuffer<O>, ArrayRef) {
    let offsets = OffsetBuffer::<O>::from_lengths((0..len).map(|_| random.below(4)));
    let items = offsets[len].as_usize() + random.below(2);
    (
        offsets,
        array(random, item.data_type(), items, item.is_nullable()),
    )
}

/// Lists of a few items that overlap and come in any order.
fn views<O: OffsetSizeTrait>(
    random: &mut Random,
    item: &FieldRef,
    len: usize,
) -> (ScalarBuffer<O>, ScalarBuffer<O>, ArrayRef) {
    let count = 4 + random.below(4);
    let items = array(random, item.data_type(), count, item.is_nullable());
    let starts: Vec<usize> = (0..len).map(|_| random.below(items.len())).collect();
    let sizes = starts
        .iter()
        .map(|start| O::usize_as(random.below(items.len() - start + 1)));
    let sizes = sizes.collect();
    (starts.into_iter().map(O::usize_as).collect(), sizes, items)
}
