//! Functions whose result may be larger than their arguments by any factor:
//! `repeat('x', 2000000000)`, `range(0, 1000000000)`.
//!
//! What a function makes is allocated at once and is not counted by the memory
//! pool, so that its size is bounded before it is called.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::kernels::length::length;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use super::fault::{carried, planning};
use crate::error::Error;

/// The part of the queries' memory that one call may make.
const PART_OF_MEMORY: usize = 4;

/// Bytes of one value of a list, about.
const LIST_ITEM_BYTES: f64 = 8.0;

/// Puts the bound before each of the functions in `state` that need it.
pub(super) fn bound_functions(
    state: &mut SessionState,
    memory_bytes: usize,
) -> crate::error::Result<()> {
    for (name, growth) in [
        ("repeat", Growth::Repeats),
        ("lpad", Growth::Pads),
        ("rpad", Growth::Pads),
        ("array_repeat", Growth::Repeats),
        ("array_resize", Growth::Resizes),
        ("range", Growth::Ranges),
        ("generate_series", Growth::Ranges),
    ] {
        let inner = state.udf(name).map_err(planning)?;
        let bounded = Bounded {
            inner: inner.as_ref().clone(),
            growth,
            bytes_max: memory_bytes / PART_OF_MEMORY,
        };
        let bounded = Arc::new(ScalarUDF::new_from_impl(bounded));
        state.register_udf(bounded).map_err(planning)?;
    }
    Ok(())
}

/// How the size of a function's result follows from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// The first argument, as often as the second says.
    Repeats,
    /// As many characters as the second argument says.
    Pads,
    /// As many values as the second argument says.
    Resizes,
    /// From the first argument to the second by the third, or to the first.
    Ranges,
}

/// A function that is not called for more than it may make.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    growth: Growth,
    bytes_max: usize,
}

impl Bounded {
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let bytes = self.growth.bytes(args)?;
        if bytes <= self.bytes_max as f64 {
            return Ok(());
        }
        Err(carried(Error::ResourceExhausted(format!(
            "{}() would make {bytes:.0} bytes at once and may make {}, a quarter of the setting \
             engine.memory_bytes: ask for less, or raise it",
            self.inner.name(),
            self.bytes_max
        ))))
    }
}

impl Growth {
    /// The bytes of the result, about. Not a number's worth of precision is
    /// needed, and no product overflows.
    fn bytes(self, args: &ScalarFunctionArgs) -> Result<f64> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arg = |at: usize| args.args.get(at);
        let sum = |each: &mut dyn FnMut(usize) -> f64| (0..rows).map(each).sum::<f64>();
        Ok(match self {
            Growth::Repeats => {
                let (sizes, counts) = (Sizes::of(arg(0), rows)?, Counts::of(arg(1), rows)?);
                sum(&mut |row| sizes.at(row) * counts.at(row).max(0.0))
            }
            Growth::Pads => {
                let counts = Counts::of(arg(1), rows)?;
                // A fill may take four bytes a character.
                let character = if arg(2).is_some() { 4.0 } else { 1.0 };
                sum(&mut |row| character * counts.at(row).max(0.0))
            }
            Growth::Resizes => {
                let (sizes, counts) = (Sizes::of(arg(2), rows)?, Counts::of(arg(1), rows)?);
                sum(&mut |row| sizes.at(row).max(LIST_ITEM_BYTES) * counts.at(row).max(0.0))
            }
            Growth::Ranges => {
                let (start, stop) = match arg(1) {
                    None => (Counts::One(0.0), Counts::of(arg(0), rows)?),
                    stop => (Counts::of(arg(0), rows)?, Counts::of(stop, rows)?),
                };
                let step = match arg(2) {
                    None => Counts::One(1.0),
                    step => Counts::of(step, rows)?,
                };
                // A step of zero is refused by the function.
                sum(&mut |row| {
                    let items = (stop.at(row) - start.at(row)) / step.at(row);
                    if items.is_finite() {
                        LIST_ITEM_BYTES * items.max(0.0)
                    } else {
                        0.0
                    }
                })
            }
        })
    }
}

/// A number in each row: a count, a point of time or a length of time, in
/// nanoseconds. NULL is zero.
enum Counts {
    One(f64),
    Each(Vec<f64>),
}

impl Counts {
    fn of(arg: Option<&ColumnarValue>, rows: usize) -> Result<Self> {
        match arg {
            None => Ok(Counts::One(0.0)),
            Some(ColumnarValue::Scalar(value)) => {
                let values = numbers(&*value.to_array()?)?;
                Ok(Counts::One(values.first().copied().unwrap_or(0.0)))
            }
            Some(ColumnarValue::Array(values)) => {
                let mut values = numbers(values)?;
                values.resize(rows, 0.0);
                Ok(Counts::Each(values))
            }
        }
    }

    fn at(&self, row: usize) -> f64 {
        match self {
            Counts::One(value) => *value,
            Counts::Each(values) => values[row],
        }
    }
}

fn numbers(values: &dyn Array) -> Result<Vec<f64>> {
    if let DataType::Interval(_) = values.data_type() {
        let month_day_nano = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
        let values = cast_with_options(values, &month_day_nano, &CastOptions::default())?;
        let values = values.as_primitive::<IntervalMonthDayNanoType>();
        return Ok(values
            .iter()
            .map(|value| {
                let day = 86_400e9;
                value.map_or(0.0, |value| {
                    let days = f64::from(value.months) * 28.0 + f64::from(value.days);
                    days * day + value.nanoseconds as f64
                })
            })
            .collect());
    }
    // Dates and times as seconds first: not every one of them has nanoseconds.
    let (values, unit) = match values.data_type() {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            let seconds = DataType::Timestamp(TimeUnit::Second, None);
            (
                cast_with_options(values, &seconds, &CastOptions::default())?,
                1e9,
            )
        }
        _ => (arrow::array::make_array(values.to_data()), 1.0),
    };
    let values = cast_with_options(&values, &DataType::Int64, &CastOptions::default())?;
    Ok(values
        .as_primitive::<Int64Type>()
        .iter()
        .map(|value| value.map_or(0.0, |value| value as f64 * unit))
        .collect())
}

/// The bytes of a value in each row.
enum Sizes {
    Alike(f64),
    Texts(Vec<f64>),
}

impl Sizes {
    fn of(arg: Option<&ColumnarValue>, rows: usize) -> Result<Self> {
        match arg {
            None => Ok(Sizes::Alike(LIST_ITEM_BYTES)),
            Some(ColumnarValue::Scalar(value)) => {
                let text = value.try_as_str().flatten().map(str::len);
                Ok(Sizes::Alike(text.unwrap_or(value.size()) as f64))
            }
            Some(ColumnarValue::Array(values)) if values.data_type().is_string() => {
                let mut sizes = numbers(&*length(values)?)?;
                sizes.resize(rows, 0.0);
                Ok(Sizes::Texts(sizes))
            }
            Some(ColumnarValue::Array(values)) => {
                let bytes = values.get_array_memory_size() as f64;
                Ok(Sizes::Alike(bytes / values.len().max(1) as f64))
            }
        }
    }

    fn at(&self, row: usize) -> f64 {
        match self {
            Sizes::Alike(size) => *size,
            Sizes::Texts(sizes) => sizes[row],
        }
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args)?;
        self.inner.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
