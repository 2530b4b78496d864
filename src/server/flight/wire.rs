//! The Arrow types that leave the server.
//!
//! Clients read plain layouts everywhere and the newer ones almost nowhere: the
//! JavaScript and JDBC readers know neither views nor run-end encoding, and a
//! dictionary sent anew with every batch is larger than its values. So results
//! leave with dictionaries, views and run ends spelled out, and the schema that
//! is announced is the schema that is sent. Of a decimal, which JDBC and ODBC ask
//! for its digits, it tells them in the metadata that Flight SQL has for it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

/// The most bytes that one step of [`plain_batch`] may expand to: a batch whose
/// dictionaries or views repeat long values is converted in parts.
pub(crate) const EXPANDED_BYTES_MAX: usize = 64 << 20;

/// The metadata of a column that tells its digits.
const PRECISION: &str = "ARROW:FLIGHT:SQL:PRECISION";
const SCALE: &str = "ARROW:FLIGHT:SQL:SCALE";

/// `schema` as it is sent.
pub(crate) fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    if schema
        .fields()
        .iter()
        .all(|field| is_plain(field) && !is_untold(field))
    {
        return schema.clone();
    }
    let fields: Vec<FieldRef> = schema.fields().iter().map(plain_column).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The schema to send rows of `actual` in, which were announced in `announced`.
///
/// Binding parameters makes a plan know more, as that a column is never null;
/// clients take rows in the announced schema alone. Only where a parameter's type
/// decides a column's is the announced one no use.
pub(super) fn announced_schema(announced: &SchemaRef, actual: &SchemaRef) -> SchemaRef {
    let (announced, actual) = (plain_schema(announced), plain_schema(actual));
    let types = |schema: &SchemaRef| -> Vec<DataType> {
        let fields = schema.fields().iter();
        fields.map(|field| field.data_type().clone()).collect()
    };
    match announced == actual || types(&announced) == types(&actual) {
        true => announced,
        false => actual,
    }
}

/// `batch` in `schema`, which [`plain_schema`] made from the batch's own.
pub(crate) fn plain_batch(
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(
            |(column, field)| match column.data_type() == field.data_type() {
                true => Ok(column.clone()),
                false => cast(column, field.data_type()),
            },
        )
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// An upper bound of the bytes that the columns of `batch` take once their
/// repeated values are spelled out. Columns without repetition count nothing.
pub(crate) fn expanded_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(expanded_column_bytes).sum()
}

/// The bytes that the rows of `batch` take in a message, without what its
/// buffers hold beside them.
pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| column_bytes(column))
        .sum()
}

fn expanded_column_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Dictionary(_, _) => {
            let values = column.as_any_dictionary().values();
            column.len().saturating_mul(longest_value_bytes(values))
        }
        DataType::Utf8View => viewed_bytes(column.as_string_view().views()),
        DataType::BinaryView => viewed_bytes(column.as_binary_view().views()),
        _ => 0,
    }
}

/// A view starts with the length of its value, in 32 bits.
fn viewed_bytes(views: &[u128]) -> usize {
    views.iter().map(|view| *view as u32 as usize).sum()
}

fn longest_view_bytes(views: &[u128]) -> usize {
    let lengths = views.iter().map(|view| *view as u32 as usize);
    lengths.max().unwrap_or(0)
}

fn longest_value_bytes(values: &ArrayRef) -> usize {
    fn longest<O: Copy + TryInto<usize>>(offsets: &[O]) -> usize {
        let at = |offset: O| offset.try_into().unwrap_or(usize::MAX);
        offsets
            .windows(2)
            .map(|pair| at(pair[1]).saturating_sub(at(pair[0])))
            .max()
            .unwrap_or(0)
    }
    match values.data_type() {
        DataType::Utf8 => longest(values.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => longest(values.as_string::<i64>().value_offsets()),
        DataType::Binary => longest(values.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => longest(values.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => longest_view_bytes(values.as_string_view().views()),
        DataType::BinaryView => longest_view_bytes(values.as_binary_view().views()),
        flat => flat
            .primitive_width()
            .unwrap_or_else(|| column_bytes(values)),
    }
}

/// The memory of a slice of a list is that of the slice of its values, which
/// arrow's own measure does not narrow.
fn column_bytes(column: &dyn Array) -> usize {
    fn slice_bytes(values: &dyn Array, start: usize, end: usize) -> usize {
        column_bytes(values.slice(start, end - start).as_ref())
    }
    let nulls = column.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
    let rows = column.len();
    match column.data_type() {
        DataType::List(_) => {
            let (offsets, values) = (
                column.as_list::<i32>().value_offsets(),
                column.as_list::<i32>().values(),
            );
            nulls
                + 4 * (rows + 1)
                + slice_bytes(values, offsets[0] as usize, offsets[rows] as usize)
        }
        DataType::LargeList(_) => {
            let (offsets, values) = (
                column.as_list::<i64>().value_offsets(),
                column.as_list::<i64>().values(),
            );
            nulls
                + 8 * (rows + 1)
                + slice_bytes(values, offsets[0] as usize, offsets[rows] as usize)
        }
        DataType::Map(_, _) => {
            let (offsets, entries) = (column.as_map().value_offsets(), column.as_map().entries());
            nulls
                + 4 * (rows + 1)
                + slice_bytes(entries, offsets[0] as usize, offsets[rows] as usize)
        }
        DataType::FixedSizeList(_, _) => nulls + column_bytes(column.as_fixed_size_list().values()),
        DataType::Struct(_) => {
            let children = column.as_struct().columns().iter();
            nulls + children.map(|child| column_bytes(child)).sum::<usize>()
        }
        _ => column
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| column.get_buffer_memory_size()),
    }
}

fn is_plain(field: &Field) -> bool {
    plain_type(field.data_type()).is_none()
}

fn plain_column(field: &FieldRef) -> FieldRef {
    let field = match plain_type(field.data_type()) {
        // A type that cannot be converted leaves as it is.
        Some(plain) if can_cast_types(field.data_type(), &plain) => {
            Arc::new(field.as_ref().clone().with_data_type(plain))
        }
        _ => field.clone(),
    };
    match decimal_size(field.data_type()) {
        Some((precision, scale)) => {
            let mut metadata = field.metadata().clone();
            metadata.insert(PRECISION.to_owned(), precision.to_string());
            metadata.insert(SCALE.to_owned(), scale.to_string());
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        }
        None => field,
    }
}

/// Whether a column is a decimal whose digits its metadata does not tell.
fn is_untold(field: &Field) -> bool {
    decimal_size(field.data_type()).is_some() && !field.metadata().contains_key(PRECISION)
}

/// The digits of a decimal, and how many of them are behind the point.
fn decimal_size(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// The type that `data_type` is sent as, unless that is itself.
fn plain_type(data_type: &DataType) -> Option<DataType> {
    let within = |field: &FieldRef| {
        let plain = plain_type(field.data_type())?;
        Some(Arc::new(field.as_ref().clone().with_data_type(plain)))
    };
    let or_same = |data_type: &DataType| plain_type(data_type).unwrap_or_else(|| data_type.clone());
    let or_same_field = |field: &FieldRef| within(field).unwrap_or_else(|| field.clone());
    match data_type {
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        DataType::Dictionary(_, values) => Some(or_same(values)),
        DataType::RunEndEncoded(_, values) => Some(or_same(values.data_type())),
        DataType::ListView(field) => Some(DataType::List(or_same_field(field))),
        DataType::LargeListView(field) => Some(DataType::LargeList(or_same_field(field))),
        DataType::List(field) => within(field).map(DataType::List),
        DataType::LargeList(field) => within(field).map(DataType::LargeList),
        DataType::FixedSizeList(field, size) => {
            within(field).map(|field| DataType::FixedSizeList(field, *size))
        }
        DataType::Map(entries, sorted) => {
            within(entries).map(|entries| DataType::Map(entries, *sorted))
        }
        DataType::Struct(fields) if !fields.iter().all(|field| is_plain(field)) => {
            Some(DataType::Struct(fields.iter().map(or_same_field).collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        DictionaryArray, Int32Array, Int64Array, ListArray, StringArray, StringViewArray,
        StructArray,
    };
    use arrow::datatypes::{Int32Type, UInt16Type};

    use super::*;

    fn dictionary(of: &[&str]) -> ArrayRef {
        Arc::new(of.iter().copied().collect::<DictionaryArray<UInt16Type>>())
    }

    #[test]
    fn rows_are_sent_as_they_were_announced() {
        let schema = |name: &str, data_type: DataType, nullable: bool| -> SchemaRef {
            Arc::new(Schema::new(vec![Field::new(name, data_type, nullable)]))
        };
        let announced = schema("?", DataType::Utf8View, true);
        let bound = schema("Utf8(\"a\")", DataType::Utf8, false);
        let sent = announced_schema(&announced, &bound);
        assert_eq!(sent, schema("?", DataType::Utf8, true));
        let untyped = schema("?", DataType::Null, true);
        assert_eq!(announced_schema(&untyped, &bound), bound);
    }

    #[test]
    fn repeated_and_viewed_values_are_spelled_out() {
        let names: ArrayRef = Arc::new(StringViewArray::from(vec![
            "a",
            "a long name that is not inlined",
        ]));
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let inner = Arc::new(Field::new("name", DataType::Utf8View, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(inner, names.clone())]));
        let batch = RecordBatch::try_from_iter([
            ("id", ids.clone()),
            ("name", names),
            ("region", dictionary(&["eu", "us"])),
            ("nested", nested),
        ])
        .unwrap();

        let schema = plain_schema(&batch.schema());
        let plain = plain_batch(&batch, &schema).unwrap();
        let types: Vec<_> = schema
            .fields()
            .iter()
            .map(|f| f.data_type().to_string())
            .collect();
        assert_eq!(types[..3], ["Int64", "Utf8", "Utf8"]);
        assert!(!types[3].contains("View"), "{}", types[3]);
        assert_eq!(
            plain.column(1).as_string::<i32>().value(1),
            "a long name that is not inlined"
        );
        assert_eq!(plain.column(2).as_string::<i32>().value(1), "us");
        assert!(
            Arc::ptr_eq(plain.column(0), &ids),
            "a plain column is not copied"
        );
    }

    #[test]
    fn a_plain_schema_is_kept_as_it_is() {
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        assert!(Arc::ptr_eq(&schema, &plain_schema(&schema)));
    }

    #[test]
    fn the_digits_of_a_decimal_are_told() {
        let decimal = Field::new("price", DataType::Decimal128(20, 4), true);
        let id = Field::new("id", DataType::Int64, true);
        let plain = plain_schema(&Arc::new(Schema::new(vec![id.clone(), decimal])));
        assert_eq!(plain.field(0), &id);
        let told = plain.field(1).metadata();
        assert_eq!(
            (told[PRECISION].as_str(), told[SCALE].as_str()),
            ("20", "4")
        );
        assert!(Arc::ptr_eq(&plain, &plain_schema(&plain)));
    }

    #[test]
    fn sizes_are_those_of_the_slice() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
            (0..1000).map(|_| Some((0..100).map(Some).collect::<Vec<_>>())),
        );
        let all = column_bytes(&lists);
        let one = column_bytes(&lists.slice(500, 1));
        assert!(all > 400_000 && one < 500, "{all} {one}");

        let strings = StringArray::from(vec!["x".repeat(1000); 100]);
        assert!(column_bytes(&strings.slice(3, 1)) < 1100);
        assert_eq!(column_bytes(&Int32Array::from(vec![1, 2])), 8);
    }

    #[test]
    fn expansion_is_foreseen() {
        let long = "x".repeat(1000);
        let values: Vec<&str> = vec![&long; 500];
        let batch = RecordBatch::try_from_iter([("d", dictionary(&values))]).unwrap();
        assert_eq!(expanded_bytes(&batch), 500_000);
        let views: ArrayRef = Arc::new(StringViewArray::from(values));
        let batch = RecordBatch::try_from_iter([("v", views)]).unwrap();
        assert_eq!(expanded_bytes(&batch), 500_000);
    }
}
