//! Number literals that keep every digit.
//!
//! DataFusion reads a literal with a fraction as a double, which keeps 15 digits of
//! any number. Here a literal with more of them stays text until it is known what
//! it is for: a decimal next to decimals and in a decimal column, else the double
//! that is nearest. An integer beyond 64 bits is a decimal in any case.

use std::borrow::Cow;
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field, i256};
use datafusion::common::{Result, ScalarValue, plan_datafusion_err};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Cast;
use datafusion::sql::sqlparser::ast::{self, VisitMut};

/// Digits that a double keeps of any number.
const DOUBLE_DIGITS: usize = 15;
/// Digits of the longest decimals.
const DECIMAL128_DIGITS: usize = 38;
const DECIMAL256_DIGITS: usize = 76;

/// The type that a literal which stays text is cast to, in a statement and as the
/// name of a cast's field. Digits in its arguments: it is a decimal of so many.
const NUMBER: &str = "number literal";

/// Keeps long literals of a statement as text.
pub(super) fn keep_digits(statement: &mut impl VisitMut) {
    // Nothing breaks off.
    let _ = ast::visit_expressions_mut(statement, |expr| {
        match expr {
            ast::Expr::Value(value) => {
                if let ast::Value::Number(text, false) = &value.value
                    && let Some(kept) = kept(text)
                {
                    *expr = kept;
                }
            }
            // Takes a number or a text, and no cast.
            ast::Expr::Interval(interval) => {
                if let ast::Expr::Cast { expr, .. } = interval.value.as_mut() {
                    *interval.value = expr.as_ref().clone();
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
}

/// `text` as a cast to [`NUMBER`], where a literal would lose digits.
fn kept(text: &str) -> Option<ast::Expr> {
    let text = text.replace('_', "");
    if text.parse::<u64>().is_ok() {
        return None;
    }
    let exact = Exact::parse(&text)?;
    let is_integer = text.bytes().all(|byte| byte.is_ascii_digit());
    let arguments = match is_integer {
        true => vec![exact.digits.len().to_string()],
        false if exact.significant() <= DOUBLE_DIGITS => return None,
        false => Vec::new(),
    };
    let name = ast::Ident::with_quote('"', NUMBER);
    Some(ast::Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(ast::Expr::value(ast::Value::SingleQuotedString(text))),
        data_type: ast::DataType::Custom(name.into(), arguments),
        array: false,
        format: None,
    })
}

/// The field of a cast to [`NUMBER`].
pub(super) fn number_field(sql_type: &ast::DataType) -> Option<Field> {
    let ast::DataType::Custom(name, arguments) = sql_type else {
        return None;
    };
    let [ast::ObjectNamePart::Identifier(name)] = name.0.as_slice() else {
        return None;
    };
    if name.value != NUMBER {
        return None;
    }
    let data_type = match arguments
        .first()
        .and_then(|digits| digits.parse::<u8>().ok())
    {
        Some(digits) if usize::from(digits) <= DECIMAL128_DIGITS => DataType::Decimal128(digits, 0),
        Some(digits) => DataType::Decimal256(digits.min(DECIMAL256_DIGITS as u8), 0),
        None => DataType::Float64,
    };
    Some(Field::new(NUMBER, data_type, true))
}

/// The text of a number literal, if `expr` is one with a fraction, an exponent or
/// more than 64 bits.
pub(super) fn literal_text(expr: &Expr) -> Option<Cow<'_, str>> {
    match expr {
        // The shortest text that reads as this double, which for a literal of up
        // to 15 digits is the literal.
        Expr::Literal(ScalarValue::Float64(Some(value)), None) if value.is_finite() => {
            Some(Cow::Owned(format!("{value:e}")))
        }
        Expr::Cast(cast) => kept_text(cast).map(Cow::Borrowed),
        Expr::Negative(inner) => {
            let text = literal_text(inner)?;
            Some(match text.strip_prefix('-') {
                Some(positive) => Cow::Owned(positive.to_owned()),
                None => Cow::Owned(format!("-{text}")),
            })
        }
        _ => None,
    }
}

/// Whether a literal was kept as text.
pub(super) fn is_long(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => kept_text(cast).is_some(),
        Expr::Negative(inner) => is_long(inner),
        _ => false,
    }
}

/// The text of a literal that was kept as such.
pub(super) fn kept_text(cast: &Cast) -> Option<&str> {
    match cast.expr.as_ref() {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) if cast.field.name() == NUMBER => {
            Some(text)
        }
        _ => None,
    }
}

/// The number that `text` is, for a decimal or a float: a decimal of just as many
/// digits, or the nearest float.
pub(super) fn value(text: &str, wanted: &DataType) -> Result<ScalarValue> {
    if wanted.is_decimal()
        && let Some(value) = Exact::parse(text).and_then(|exact| exact.decimal(false))
    {
        return Ok(value);
    }
    let unreadable = |_| plan_datafusion_err!("the number {text} cannot be read");
    Ok(match wanted {
        DataType::Float32 => ScalarValue::Float32(Some(text.parse().map_err(unreadable)?)),
        _ => ScalarValue::Float64(Some(text.parse().map_err(unreadable)?)),
    })
}

/// A number as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exact {
    negative: bool,
    /// Without leading zeros; none at all for zero.
    digits: String,
    /// How many of the digits follow the point.
    scale: usize,
}

impl Exact {
    /// Reads a literal; `None` where it is none, or has more digits than the
    /// longest decimal.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut digits = all.trim_start_matches('0').to_owned();
        let mut scale = i64::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        if digits.is_empty() {
            scale = scale.clamp(0, DECIMAL128_DIGITS as i64);
        }
        if scale < 0 {
            let zeros = usize::try_from(-scale).ok()?;
            if zeros > DECIMAL256_DIGITS {
                return None;
            }
            digits.push_str(&"0".repeat(zeros));
        }
        let scale = usize::try_from(scale.max(0)).ok()?;
        (digits.len().max(scale) <= DECIMAL256_DIGITS).then_some(Exact {
            negative,
            digits,
            scale,
        })
    }

    /// How many digits say something.
    fn significant(&self) -> usize {
        self.digits.trim_end_matches('0').len()
    }

    fn precision(&self) -> usize {
        self.digits.len().max(self.scale).max(1)
    }

    /// As a decimal of just as many digits, or of the longer type with `wide`.
    pub fn decimal(&self, wide: bool) -> Option<ScalarValue> {
        let (precision, scale) = (self.precision() as u8, self.scale as i8);
        let sign = if self.negative { "-" } else { "" };
        let digits = match self.digits.as_str() {
            "" => "0",
            digits => digits,
        };
        let text = format!("{sign}{digits}");
        if self.precision() <= DECIMAL128_DIGITS && !wide {
            let value = text.parse::<i128>().ok()?;
            return Some(ScalarValue::Decimal128(Some(value), precision, scale));
        }
        let value = i256::from_string(&text)?;
        Some(ScalarValue::Decimal256(Some(value), precision, scale))
    }

    /// As a decimal to be compared with those of a type: in that type where it
    /// has it, else in one that the comparison finds a common type for.
    pub fn compared_with(&self, data_type: &DataType) -> Option<ScalarValue> {
        let own = self.decimal(false)?;
        if let Ok(value) = own.cast_to(data_type)
            && value
                .cast_to(&own.data_type())
                .is_ok_and(|back| back == own)
        {
            return Some(value);
        }
        let DataType::Decimal128(precision, scale) = data_type else {
            return Some(own);
        };
        let (precision, scale) = (i64::from(*precision), i64::from(*scale));
        let whole = (self.precision() as i64 - self.scale as i64).max(precision - scale);
        let common = whole + scale.max(self.scale as i64);
        self.decimal(common > DECIMAL128_DIGITS as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_keep_their_digits() {
        for (text, value, precision, scale) in [
            ("0", 0, 1, 0),
            ("-0.00", 0, 2, 2),
            ("1.10", 110, 3, 2),
            ("-.5", -5, 1, 1),
            ("1.", 1, 1, 0),
            ("12.5e2", 1250, 4, 0),
            ("1.25e-3", 125, 5, 5),
            ("0e500", 0, 1, 0),
            ("0007", 7, 1, 0),
            (
                "12345678901234567890.123456789",
                12345678901234567890123456789,
                29,
                9,
            ),
        ] {
            let decimal = Exact::parse(text).unwrap().decimal(false);
            let expected = ScalarValue::Decimal128(Some(value), precision, scale);
            assert_eq!(decimal, Some(expected), "{text}");
        }
        for text in ["", ".", "-", "1e", "1e999", "1e-999", "x", &"9".repeat(77)] {
            assert_eq!(Exact::parse(text), None, "{text}");
        }
        let longest = Exact::parse(&"9".repeat(76))
            .unwrap()
            .decimal(false)
            .unwrap();
        assert_eq!(longest.data_type(), DataType::Decimal256(76, 0));
    }

    #[test]
    fn a_comparison_is_in_the_column_s_type_where_that_has_the_number() {
        let compared = |text: &str, data_type: DataType| {
            let value = Exact::parse(text).unwrap().compared_with(&data_type);
            value.unwrap().data_type()
        };
        let money = DataType::Decimal128(10, 2);
        assert_eq!(compared("1.5", money.clone()), money);
        assert_eq!(compared("1.500", money.clone()), money);
        assert_eq!(compared("1.505", money), DataType::Decimal128(4, 3));
        let whole = DataType::Decimal128(38, 0);
        assert_eq!(compared("0.5", whole), DataType::Decimal256(1, 1));
    }
}
