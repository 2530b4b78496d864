//! UUIDs as text, and texts as UUIDs.
//!
//! Arrow has no conversion between the 16 bytes of a UUID and its text, so that a
//! cast between the two is planned as one of the functions here. A text is a UUID
//! in the one form that is written: 32 digits with four hyphens, of either case.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use uuid::Uuid;

use super::fault::carried;
use super::types::uuid_field;
use crate::error::Error;

/// The bytes of a UUID.
pub(super) const UUID_BYTES: i32 = 16;
/// The characters of a UUID's text.
const TEXT_CHARS: usize = 36;
/// How much of a text that is no UUID an error shows.
const SHOWN_CHARS_MAX: usize = 64;

/// The bytes of a text.
pub(super) fn parsed(text: &str) -> Result<[u8; UUID_BYTES as usize], Error> {
    // The crate takes braces, `urn:uuid:` and a text without hyphens too.
    let uuid = match text.len() {
        TEXT_CHARS => Uuid::try_parse(text).ok(),
        _ => None,
    };
    uuid.map(Uuid::into_bytes).ok_or_else(|| {
        let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < text.len() {
            shown.push_str("...");
        }
        Error::InvalidArgument(format!(
            "'{shown}' is no UUID: write it as in '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a'"
        ))
    })
}

/// `texts` as UUIDs. With `or_null`, what is none is NULL.
pub(super) fn array_of(texts: &ArrayRef, or_null: bool) -> Result<ArrayRef, Error> {
    let defect = |error| Error::internal("texts cannot be read as UUIDs", error);
    let texts = cast(texts, &DataType::Utf8).map_err(defect)?;
    let texts = texts.as_string::<i32>();
    let mut uuids = FixedSizeBinaryBuilder::with_capacity(texts.len(), UUID_BYTES);
    for text in texts {
        match text.map(parsed) {
            None => uuids.append_null(),
            Some(Err(_)) if or_null => uuids.append_null(),
            Some(uuid) => uuids.append_value(uuid?).map_err(defect)?,
        }
    }
    Ok(Arc::new(uuids.finish()))
}

/// The text `expr` as a UUID. With `or_null`, what is none is NULL.
pub(super) fn of_text(expr: Expr, or_null: bool) -> Result<Expr> {
    match &expr {
        Expr::Literal(value, _) if matches!(value.try_as_str(), Some(Some(_))) => {
            let text = value.try_as_str().flatten().unwrap_or_default();
            let bytes = match parsed(text) {
                Ok(bytes) => Some(bytes.to_vec()),
                Err(_) if or_null => None,
                Err(error) => return Err(carried(error)),
            };
            let metadata = FieldMetadata::from(uuid_field().metadata());
            let value = ScalarValue::FixedSizeBinary(UUID_BYTES, bytes);
            Ok(Expr::Literal(value, Some(metadata)))
        }
        _ => Ok(call(Conversion::ToUuid { or_null }, expr)),
    }
}

/// The UUID `expr` as text of a type.
pub(super) fn to_text(expr: Expr, text: &DataType) -> Expr {
    call(Conversion::ToText(text.clone()), expr)
}

fn call(conversion: Conversion, expr: Expr) -> Expr {
    let function = ScalarUDF::new_from_impl(Convert {
        conversion,
        signature: Signature::any(1, Volatility::Immutable),
    });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![expr]))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Conversion {
    ToUuid { or_null: bool },
    ToText(DataType),
}

/// A conversion as a function, which is called as a cast is and by no name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    conversion: Conversion,
    signature: Signature,
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        match self.conversion {
            Conversion::ToUuid { .. } => "uuid_of_text",
            Conversion::ToText(_) => "text_of_uuid",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match &self.conversion {
            Conversion::ToUuid { .. } => DataType::FixedSizeBinary(UUID_BYTES),
            Conversion::ToText(text) => text.clone(),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(match &self.conversion {
            Conversion::ToUuid { or_null } => uuid_field()
                .as_ref()
                .clone()
                .with_nullable(nullable || *or_null),
            Conversion::ToText(text) => Field::new(self.name(), text.clone(), nullable),
        }))
    }

    /// As of a cast: what is converted.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args
            .first()
            .map(|expr| expr.schema_name().to_string())
            .unwrap_or_default())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = matches!(args.args.first(), Some(ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(values) = arrays.first() else {
            return Err(carried(Error::internal(
                "a UUID cannot be converted",
                "nothing is given",
            )));
        };
        let converted = match &self.conversion {
            Conversion::ToUuid { or_null } => array_of(values, *or_null).map_err(carried)?,
            Conversion::ToText(text) => cast(&texts(values)?, text)?,
        };
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?),
            false => ColumnarValue::Array(converted),
        })
    }
}

fn texts(uuids: &ArrayRef) -> Result<StringArray> {
    let bytes = cast(uuids, &DataType::FixedSizeBinary(UUID_BYTES))?;
    let texts = bytes.as_fixed_size_binary().iter().map(|bytes| {
        let bytes = bytes.map(Uuid::from_slice).transpose();
        Ok(bytes.map_err(other)?.map(|uuid| uuid.to_string()))
    });
    texts.collect()
}

fn other(error: uuid::Error) -> datafusion::common::DataFusionError {
    carried(Error::internal("a UUID cannot be read", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_is_a_uuid_in_either_case() {
        let bytes = parsed("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a").unwrap();
        assert_eq!(bytes[..2], [0x01, 0x8f]);
        assert_eq!(
            parsed("018F5A0E-C4C8-7E10-9C4F-3B6F7C5A8E9A").unwrap(),
            bytes
        );
        for text in [
            "",
            "018f5a0ec4c87e109c4f3b6f7c5a8e9a",
            "{018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a}",
            "urn:uuid:018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
            "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a\n",
            " 018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9",
            "018f5a0ec-4c8-7e10-9c4f-3b6f7c5a8e9a",
            "018g5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains("is no UUID: write it as"), "{error}");
        }
    }
}
