//! SQLite's order of what is stored is Arrow's order of the values.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::kernels::cmp;
use arrow::compute::take;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;
use proptest::prelude::*;
use rusqlite::types::Value;

use super::super::{Ordering, encode_bounds, encode_scalar, ordering};
use super::arrays::{Random, any_type, plain_types, sliced};
use super::{table, write_bulk};

type Compare = fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError>;

/// What Arrow's comparison answers of rows of `array`. It does not know how many
/// values there are that have no byte, which are all equal: for those, `of_equal`.
fn compared(
    array: &ArrayRef,
    (left, right): (&[u32], &[u32]),
    compare: Compare,
    of_equal: bool,
) -> BooleanArray {
    if array.data_type() != &DataType::FixedSizeBinary(0) {
        let side = |rows: &[u32]| take(array, &UInt32Array::from(rows.to_vec()), None).unwrap();
        return compare(&side(left), &side(right)).unwrap();
    }
    let is_value = |row: &u32| array.is_valid(*row as usize);
    let rows = left.iter().zip(right);
    rows.map(|(left, right)| (is_value(left) && is_value(right)).then_some(of_equal))
        .collect()
}

/// What each comparison of row with row says.
fn check_total(array: &ArrayRef) {
    assert_eq!(ordering(array.data_type()), Ordering::Total);
    let connection = table(1);
    connection.execute("CREATE INDEX i ON t (c0)", []).unwrap();
    write_bulk(&connection, std::slice::from_ref(array));

    let mut statement = connection
        .prepare("SELECT a._row, b._row, a.c0 = b.c0, a.c0 < b.c0, a.c0 <= b.c0 FROM t a, t b")
        .unwrap();
    let rows: Vec<(u32, u32, [Option<bool>; 3])> = statement
        .query_map([], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                [row.get(2)?, row.get(3)?, row.get(4)?],
            ))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let left: Vec<u32> = rows.iter().map(|row| row.0).collect();
    let right: Vec<u32> = rows.iter().map(|row| row.1).collect();
    let sides = (left.as_slice(), right.as_slice());
    let expected = [
        compared(array, sides, cmp::eq, true),
        compared(array, sides, cmp::lt, false),
        compared(array, sides, cmp::lt_eq, true),
    ];
    for (index, row) in rows.iter().enumerate() {
        for (found, expected) in row.2.iter().zip(&expected) {
            let expected = expected.is_valid(index).then(|| expected.value(index));
            assert_eq!(*found, expected, "{} {row:?}", array.data_type());
        }
    }

    let sorted: Vec<u32> = connection
        .prepare("SELECT _row FROM t INDEXED BY i WHERE c0 IS NOT NULL ORDER BY c0")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(sorted.len(), array.len() - array.logical_null_count());
    if let Some(last) = sorted.len().checked_sub(1) {
        let rising = compared(array, (&sorted[..last], &sorted[1..]), cmp::lt_eq, true);
        assert_eq!(rising.true_count(), last);
    }
}

#[test]
fn plain_types_are_ordered() {
    let mut random = Random(11);
    for data_type in plain_types()
        .into_iter()
        .chain([DataType::FixedSizeBinary(0)])
    {
        check_total(&sliced(&mut random, &data_type, 120));
        // One value, which is often no NULL.
        for _again in 0..5 {
            check_total(&sliced(&mut random, &data_type, 1));
        }
    }
}

/// NULL sorts first in SQLite; whoever pushes ORDER BY down has to know.
#[test]
fn null_sorts_first() {
    let connection = table(1);
    write_bulk(
        &connection,
        &[Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))],
    );
    let first: Value = connection
        .query_row("SELECT c0 FROM t ORDER BY c0", [], |row| row.get(0))
        .unwrap();
    assert_eq!(first, Value::Null);
}

/// SQL's comparison with a float: Arrow's, of values whose zeros have no sign.
/// DataFusion compares so.
#[test]
fn bounds_hold_the_zeros_of_floats_equal() {
    macro_rules! check {
        ($t:ty, $data_type:expr) => {{
            let mut random = Random(13);
            let array = sliced(&mut random, &$data_type, 100);
            let connection = table(1);
            write_bulk(&connection, std::slice::from_ref(&array));
            let zero = <$t as arrow::datatypes::ArrowPrimitiveType>::Native::default();
            let unsigned = |array: &ArrayRef| -> PrimitiveArray<$t> {
                array
                    .as_primitive::<$t>()
                    .unary(|value| if value == zero { zero } else { value })
            };
            let values = unsigned(&array);
            let mut zeros = 0;
            for row in 0..array.len() {
                let Some((low, high)) = encode_bounds(array.as_ref(), row).unwrap() else {
                    assert!(array.is_null(row));
                    continue;
                };
                zeros += usize::from(low != high);
                let bound = Scalar::new(values.slice(row, 1));
                for (predicate, expected) in [
                    ("c0 BETWEEN ?1 AND ?2", cmp::eq(&values, &bound)),
                    ("c0 < ?1 AND ?2 = ?2", cmp::lt(&values, &bound)),
                    ("?1 = ?1 AND c0 <= ?2", cmp::lt_eq(&values, &bound)),
                    ("?1 = ?1 AND c0 > ?2", cmp::gt(&values, &bound)),
                    ("c0 >= ?1 AND ?2 = ?2", cmp::gt_eq(&values, &bound)),
                ] {
                    let query = format!("SELECT _row FROM t WHERE {predicate} ORDER BY _row");
                    let found: Vec<i64> = connection
                        .prepare(&query)
                        .unwrap()
                        .query_map([&low, &high], |row| row.get(0))
                        .unwrap()
                        .collect::<Result<_, _>>()
                        .unwrap();
                    let expected = expected.unwrap();
                    let expected = (0..array.len())
                        .filter(|row| expected.is_valid(*row) && expected.value(*row))
                        .map(|row| row as i64);
                    assert!(expected.eq(found), "{predicate}");
                }
            }
            assert!(zeros > 0, "there are zeros among the values");
        }};
    }
    check!(Float16Type, DataType::Float16);
    check!(Float32Type, DataType::Float32);
    check!(Float64Type, DataType::Float64);
}

/// A bound of any other type is the value itself, and NULL has none.
#[test]
fn bounds_are_the_value_itself() {
    let array = UInt64Array::from(vec![Some(u64::MAX), None]);
    let stored = Value::Integer(i64::MAX);
    assert_eq!(encode_scalar(&array, 0).unwrap(), stored);
    assert_eq!(
        encode_bounds(&array, 0).unwrap(),
        Some((stored.clone(), stored))
    );
    assert_eq!(encode_bounds(&array, 1).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any type keeps what its `Ordering` promises.
    #[test]
    fn orderings_hold(data_type in any_type(), seed in any::<u64>(), rows in 0..20_usize) {
        let array = sliced(&mut Random(seed), &data_type, rows);
        match ordering(&data_type) {
            Ordering::Total => check_total(&array),
            Ordering::Equality => {
                for (left, right) in (0..rows).flat_map(|left| (0..rows).map(move |right| (left, right))) {
                    let stored = encode_scalar(&array, left) == encode_scalar(&array, right);
                    prop_assert_eq!(stored, array.slice(left, 1) == array.slice(right, 1));
                }
            }
            Ordering::None => {}
        }
    }
}
