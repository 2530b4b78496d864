//! `current_setting`, for statements of one scope.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use super::{CURRENT_SETTING, TENANT_SETTING, is_tenant_setting, unrecognized};
use crate::engine::fault::carried;
use crate::error::{Error, Result};
use crate::tenant::{Scope, TenantId};

/// The function that reads settings, for statements of `scope`. It is made for each
/// statement, since what it answers is the scope's.
pub(in crate::engine) fn function(name: &str, scope: &Scope) -> Option<Arc<ScalarUDF>> {
    if name != CURRENT_SETTING {
        return None;
    }
    let signatures = vec![
        TypeSignature::Exact(vec![DataType::Utf8]),
        TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
    ];
    Some(Arc::new(ScalarUDF::new_from_impl(CurrentSetting {
        tenant: scope.tenant(),
        signature: Signature::one_of(signatures, Volatility::Stable),
    })))
}

/// `current_setting(name)`, and `current_setting(name, missing_ok)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    tenant: Option<TenantId>,
    signature: Signature,
}

impl CurrentSetting {
    fn value(&self, name: &str, missing_ok: bool) -> Result<Option<String>> {
        let known = is_tenant_setting(name);
        match self.tenant {
            Some(tenant) if known => Ok(Some(tenant.to_string())),
            _ if missing_ok => Ok(None),
            _ if known => Err(Error::FailedPrecondition(format!(
                "no tenant is bound, so {TENANT_SETTING} has no value: SET it first, or ask by \
                 {CURRENT_SETTING}('{TENANT_SETTING}', true)"
            ))),
            _ => Err(Error::InvalidArgument(format!(
                "{}: {TENANT_SETTING} is the one that there is",
                unrecognized(name)
            ))),
        }
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        CURRENT_SETTING
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let is_array = |value: &ColumnarValue| matches!(value, ColumnarValue::Array(_));
        let is_constant = !call.args.iter().any(is_array);
        let arguments = ColumnarValue::values_to_arrays(&call.args)?;
        let names = arguments[0].as_string::<i32>();
        let missing_ok = arguments.get(1).map(|argument| argument.as_boolean());
        let values: Vec<Option<String>> = names
            .iter()
            .enumerate()
            .map(|(row, name)| match (name, missing_ok) {
                (None, _) => Ok(None),
                (_, Some(missing_ok)) if missing_ok.is_null(row) => Ok(None),
                (Some(name), missing_ok) => self.value(
                    name,
                    missing_ok.is_some_and(|missing_ok| missing_ok.value(row)),
                ),
            })
            .collect::<Result<_>>()
            .map_err(carried)?;
        let values: ArrayRef = Arc::new(StringArray::from(values));
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
            false => ColumnarValue::Array(values),
        })
    }
}
