//! `tenant_id = $current OR tenant_id IS NULL`, and the same for tenants above who
//! share, in the shapes in which it is
//! needed: as a logical expression that the analyzer injects, as a physical one
//! that readers prune with, as the share of rows between two bounds, and as the
//! mask that the guard applies.
//!
//! A text column may spell a UUID in either case. A value that is no UUID
//! belongs to no lane and is seen by nobody.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, lit};

use crate::error::{Error, Result};
use crate::tenant::{Scope, TenantId};

/// How a tenant column spells a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantEncoding {
    /// The hyphenated UUID as text, in either case: Utf8, LargeUtf8, Utf8View,
    /// or a dictionary of these.
    Text,
    /// The 16 bytes of the UUID: Binary, LargeBinary, BinaryView or
    /// FixedSizeBinary(16), or a dictionary of these.
    Bytes,
}

impl TenantEncoding {
    /// How a column of `data_type` spells tenants, or `None` for a type that
    /// cannot.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(TenantEncoding::Text),
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(16) => Some(TenantEncoding::Bytes),
            DataType::Dictionary(_, values) => match values.as_ref() {
                DataType::Dictionary(..) => None,
                values => TenantEncoding::of(values),
            },
            _ => None,
        }
    }
}

/// Which rows of a batch a caller may see.
#[derive(Clone, Debug, PartialEq)]
pub enum LaneMask {
    /// Every row.
    All,
    /// No row.
    None,
    /// The rows that are `true`; no entry is NULL.
    Some(BooleanArray),
}

/// How many of some rows a caller may see, as far as bounds of their tenants
/// tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneShare {
    /// Every row.
    All,
    /// No row.
    None,
    /// Some, all or none.
    Unknown,
}

/// The rows of the lanes that a scope reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LanePredicate {
    tenants: Readable,
    data_type: DataType,
    encoding: TenantEncoding,
}

/// How many values the optimizer compares with one by one: of more it makes a list, and
/// the predicate is to be as it leaves it.
const COMPARED_MAX: usize = 3;

/// The tenants of the lanes that a scope reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Readable {
    None,
    One(TenantId),
    Several(Arc<[TenantId]>),
}

impl Readable {
    fn of(scope: &Scope) -> Self {
        match (scope.tenant(), scope.above()) {
            (None, _) => Readable::None,
            (Some(own), []) => Readable::One(own),
            (Some(_), _) => Readable::Several(scope.tenants().collect()),
        }
    }

    fn as_slice(&self) -> &[TenantId] {
        match self {
            Readable::None => &[],
            Readable::One(own) => std::slice::from_ref(own),
            Readable::Several(tenants) => tenants,
        }
    }
}

impl LanePredicate {
    /// The predicate of `scope` over a tenant column of `data_type`.
    pub fn new(scope: &Scope, data_type: &DataType) -> Result<Self> {
        let encoding = TenantEncoding::of(data_type).ok_or_else(|| {
            Error::InvalidArgument(format!(
                "a tenant column of type {data_type} cannot hold a tenant: \
                 use text, or binary of 16 bytes"
            ))
        })?;
        Ok(LanePredicate {
            tenants: Readable::of(scope),
            data_type: data_type.clone(),
            encoding,
        })
    }

    /// The same rows of a column of `data_type`, where that spells tenants alike.
    pub fn over(&self, data_type: &DataType) -> Option<LanePredicate> {
        let alike = TenantEncoding::of(data_type) == Some(self.encoding);
        alike.then(|| LanePredicate {
            data_type: data_type.clone(),
            ..self.clone()
        })
    }

    /// How many of the rows the caller may see whose tenants lie, bytewise,
    /// between `least` and `greatest` and may be NULL if `has_nulls`.
    pub fn share(&self, least: &[u8], greatest: &[u8], has_nulls: bool) -> LaneShare {
        let (mut inside, mut is_all) = (has_nulls, false);
        let mut meets = |own: &[u8]| {
            inside |= least <= own && own <= greatest;
            is_all |= least == own && own == greatest;
        };
        for tenant in self.tenants.as_slice() {
            match self.encoding {
                TenantEncoding::Bytes => meets(tenant.as_bytes()),
                TenantEncoding::Text => {
                    let lower = tenant.to_string();
                    meets(lower.as_bytes());
                    meets(lower.to_ascii_uppercase().as_bytes());
                }
            }
        }
        match (is_all, inside) {
            (true, _) => LaneShare::All,
            (false, true) => LaneShare::Unknown,
            (false, false) => LaneShare::None,
        }
    }

    /// The predicate as a logical expression over `column`.
    pub fn logical(&self, column: Column) -> Expr {
        let column = Expr::Column(column);
        let values = self.own_values();
        let own = match values.len() > COMPARED_MAX {
            true => {
                let values = values.into_iter().map(lit).collect();
                Some(column.clone().in_list(values, false))
            }
            false => values
                .into_iter()
                .map(|value| column.clone().eq(lit(value)))
                .reduce(Expr::or),
        };
        own.into_iter()
            .fold(column.clone().is_null(), |shared, own| own.or(shared))
    }

    /// The spellings of the tenants whose rows the caller reads, in the column's type.
    fn own_values(&self) -> Vec<ScalarValue> {
        let tenants = self.tenants.as_slice().iter();
        tenants.flat_map(|tenant| self.spellings(*tenant)).collect()
    }

    fn spellings(&self, tenant: TenantId) -> Vec<ScalarValue> {
        match self.encoding {
            TenantEncoding::Text => {
                let lower = tenant.to_string();
                let upper = lower.to_ascii_uppercase();
                // A tenant without letters has one spelling, and the optimizer would
                // make one of two.
                let upper = (upper != lower).then_some(upper);
                [Some(lower), upper]
                    .into_iter()
                    .flatten()
                    .map(|text| typed(&self.data_type, &Spelling::Text(text)))
                    .collect()
            }
            TenantEncoding::Bytes => {
                vec![typed(
                    &self.data_type,
                    &Spelling::Bytes(tenant.as_bytes().to_vec()),
                )]
            }
        }
    }

    /// Whether a row with this tenant value, NULL being `None`, may be seen.
    pub fn admits(&self, value: Option<&[u8]>) -> bool {
        let Some(bytes) = value else {
            return true;
        };
        let mut tenants = self.tenants.as_slice().iter();
        match self.encoding {
            TenantEncoding::Bytes => tenants.any(|tenant| bytes == tenant.as_bytes()),
            TenantEncoding::Text => tenants.any(|tenant| {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                let text = tenant.encode(&mut text);
                bytes.eq_ignore_ascii_case(text.as_bytes())
            }),
        }
    }

    /// The rows of `column` that may be seen.
    pub fn mask(&self, column: &ArrayRef) -> Result<LaneMask> {
        if column.null_count() == column.len() {
            return Ok(LaneMask::All);
        }
        if self.tenants.as_slice().is_empty() && column.logical_null_count() == 0 {
            return Ok(LaneMask::None);
        }
        match column.data_type() {
            DataType::Utf8 => Ok(self.mask_of(column.as_string::<i32>().iter().map(text))),
            DataType::LargeUtf8 => Ok(self.mask_of(column.as_string::<i64>().iter().map(text))),
            DataType::Utf8View => Ok(self.mask_of(column.as_string_view().iter().map(text))),
            DataType::Binary => Ok(self.mask_of(column.as_binary::<i32>().iter())),
            DataType::LargeBinary => Ok(self.mask_of(column.as_binary::<i64>().iter())),
            DataType::BinaryView => Ok(self.mask_of(column.as_binary_view().iter())),
            DataType::FixedSizeBinary(16) => Ok(self.mask_of(column.as_fixed_size_binary().iter())),
            DataType::Dictionary(..) => self.mask_of_dictionary(column),
            other => Err(Error::DataLoss(format!(
                "a tenant column arrived as {other}: refresh the source"
            ))),
        }
    }

    fn mask_of<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>) -> LaneMask {
        let mut own = [0; uuid::fmt::Hyphenated::LENGTH];
        let own: Option<&[u8]> = match (&self.tenants, self.encoding) {
            (Readable::None, _) => None,
            (Readable::One(tenant), TenantEncoding::Bytes) => Some(tenant.as_bytes()),
            (Readable::One(tenant), TenantEncoding::Text) => {
                Some(tenant.encode(&mut own).as_bytes())
            }
            (Readable::Several(_), _) => return self.mask_of_several(values),
        };
        let ignore_case = self.encoding == TenantEncoding::Text;
        let mut mask = BooleanBufferBuilder::new(values.size_hint().0);
        let mut seen = 0;
        for value in values {
            let admitted = match (value, own) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(value), Some(own)) => {
                    value == own || (ignore_case && value.eq_ignore_ascii_case(own))
                }
            };
            seen += usize::from(admitted);
            mask.append(admitted);
        }
        summarized(mask, seen)
    }

    /// As [`Self::mask_of`], where there are tenants above.
    fn mask_of_several<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>) -> LaneMask {
        let mut mask = BooleanBufferBuilder::new(values.size_hint().0);
        let mut seen = 0;
        for value in values {
            let admitted = self.admits(value);
            seen += usize::from(admitted);
            mask.append(admitted);
        }
        summarized(mask, seen)
    }

    /// Looks at each distinct value once.
    fn mask_of_dictionary(&self, column: &ArrayRef) -> Result<LaneMask> {
        let dictionary = column.as_any_dictionary();
        let values = self.mask(dictionary.values())?;
        let keys = dictionary.keys();
        if values == LaneMask::All {
            return Ok(LaneMask::All);
        }
        if values == LaneMask::None && keys.null_count() == 0 {
            return Ok(LaneMask::None);
        }
        let values = match values {
            LaneMask::Some(values) => values,
            LaneMask::All => BooleanArray::from(vec![true; dictionary.values().len()]),
            LaneMask::None => BooleanArray::from(vec![false; dictionary.values().len()]),
        };
        let fault = |error| Error::internal("a dictionary of tenants cannot be read", error);
        let keys = cast(keys, &DataType::UInt64).map_err(fault)?;
        let keys: &UInt64Array = keys.as_primitive();
        let taken = take(&values, keys, None).map_err(fault)?;
        let mut mask = BooleanBufferBuilder::new(keys.len());
        let mut seen = 0;
        for admitted in taken.as_boolean() {
            // A NULL key is a NULL tenant: a shared row.
            let admitted = admitted.unwrap_or(true);
            seen += usize::from(admitted);
            mask.append(admitted);
        }
        Ok(summarized(mask, seen))
    }
}

fn text(value: Option<&str>) -> Option<&[u8]> {
    value.map(str::as_bytes)
}

fn summarized(mut mask: BooleanBufferBuilder, seen: usize) -> LaneMask {
    if seen == mask.len() {
        LaneMask::All
    } else if seen == 0 {
        LaneMask::None
    } else {
        LaneMask::Some(BooleanArray::new(mask.finish(), None))
    }
}

enum Spelling {
    Text(String),
    Bytes(Vec<u8>),
}

/// `spelling` as a value of `data_type`, which [`TenantEncoding::of`] admitted.
fn typed(data_type: &DataType, spelling: &Spelling) -> ScalarValue {
    match (data_type, spelling) {
        (DataType::Dictionary(key, value), spelling) => {
            ScalarValue::Dictionary(key.clone(), Box::new(typed(value, spelling)))
        }
        (DataType::LargeUtf8, Spelling::Text(text)) => ScalarValue::LargeUtf8(Some(text.clone())),
        (DataType::Utf8View, Spelling::Text(text)) => ScalarValue::Utf8View(Some(text.clone())),
        (_, Spelling::Text(text)) => ScalarValue::Utf8(Some(text.clone())),
        (DataType::LargeBinary, Spelling::Bytes(bytes)) => {
            ScalarValue::LargeBinary(Some(bytes.clone()))
        }
        (DataType::BinaryView, Spelling::Bytes(bytes)) => {
            ScalarValue::BinaryView(Some(bytes.clone()))
        }
        (DataType::FixedSizeBinary(size), Spelling::Bytes(bytes)) => {
            ScalarValue::FixedSizeBinary(*size, Some(bytes.clone()))
        }
        (_, Spelling::Bytes(bytes)) => ScalarValue::Binary(Some(bytes.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;
    use std::sync::Arc;

    use arrow::array::{BinaryArray, StringArray};

    use super::*;
    use crate::tenant::Principal;

    const A: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
    const B: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

    fn scopes() -> (Scope, Scope) {
        let principal = Principal::trusted_network();
        let tenant = TenantId::from_str(A).unwrap();
        (
            Scope::tenant_bound(principal.clone(), tenant),
            Scope::global(principal),
        )
    }

    fn check(column: ArrayRef, as_a: LaneMask, unbound: LaneMask) {
        let (a, global) = scopes();
        for (scope, expected) in [(a, as_a), (global, unbound)] {
            let predicate = LanePredicate::new(&scope, column.data_type()).unwrap();
            assert_eq!(
                predicate.mask(&column).unwrap(),
                expected,
                "{:?} {:?}",
                column.data_type(),
                scope.tenant()
            );
        }
    }

    fn some(mask: &[bool]) -> LaneMask {
        LaneMask::Some(BooleanArray::from(mask.to_vec()))
    }

    #[test]
    fn every_spelling_of_a_tenant_column_is_masked_alike() {
        let upper = A.to_ascii_uppercase();
        let simple = A.replace('-', "");
        let text: ArrayRef = Arc::new(StringArray::from(vec![
            Some(A),
            Some(B),
            None,
            Some(&upper),
            Some(&simple),
            Some(""),
        ]));
        let as_a = some(&[true, false, true, true, false, false]);
        let unbound = some(&[false, false, true, false, false, false]);
        for data_type in [
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
            DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::LargeUtf8)),
        ] {
            let column = cast(&text, &data_type).unwrap();
            check(column, as_a.clone(), unbound.clone());
        }
        let a = TenantId::from_str(A).unwrap();
        let b = TenantId::from_str(B).unwrap();
        let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![
            Some(a.as_bytes()),
            Some(b.as_bytes()),
            None,
        ]));
        for data_type in [
            DataType::Binary,
            DataType::LargeBinary,
            DataType::BinaryView,
            DataType::FixedSizeBinary(16),
        ] {
            let column = cast(&bytes, &data_type).unwrap();
            check(
                column,
                some(&[true, false, true]),
                some(&[false, false, true]),
            );
        }
    }

    #[test]
    fn tenants_above_are_admitted_and_no_others() {
        let [own, near, far, other] = ["a", "b", "c", "d"].map(|last| {
            TenantId::from_str(&format!("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9{last}")).unwrap()
        });
        let scope = Scope::tenant_below(Principal::trusted_network(), own, [near, far]);
        let texts = [own, near, far, other].map(|tenant| Some(tenant.to_string()));
        let upper = Some(far.to_string().to_ascii_uppercase());
        let text: ArrayRef = Arc::new(StringArray::from_iter(
            texts.into_iter().chain([upper, None]),
        ));
        let expected = some(&[true, true, true, false, true, true]);
        for data_type in [
            DataType::Utf8,
            DataType::Utf8View,
            DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
        ] {
            let predicate = LanePredicate::new(&scope, &data_type).unwrap();
            let column = cast(&text, &data_type).unwrap();
            assert_eq!(predicate.mask(&column).unwrap(), expected, "{data_type}");
        }
        let bytes = [own, near, far, other].map(|tenant| *tenant.as_bytes());
        let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(bytes));
        let predicate = LanePredicate::new(&scope, &DataType::Binary).unwrap();
        let expected = some(&[true, true, true, false]);
        assert_eq!(predicate.mask(&column).unwrap(), expected);
        let share = |bytes: &TenantId| {
            let bytes = bytes.as_bytes();
            predicate.share(bytes, bytes, false)
        };
        assert_eq!(share(&far), LaneShare::All);
        assert_eq!(share(&other), LaneShare::None);
    }

    #[test]
    fn bounds_tell_the_share_of_rows() {
        use LaneShare::*;
        let (a, global) = scopes();
        let upper = A.to_ascii_uppercase();
        let bytes = DataType::FixedSizeBinary(16);
        let own = *TenantId::from_str(A).unwrap().as_bytes();
        let (before, after) = ([0; 16], [0xff; 16]);
        for (data_type, least, greatest, nulls, as_a, unbound) in [
            (DataType::Utf8, A.as_bytes(), A.as_bytes(), false, All, None),
            (
                DataType::Utf8,
                A.as_bytes(),
                A.as_bytes(),
                true,
                All,
                Unknown,
            ),
            (
                DataType::Utf8,
                upper.as_bytes(),
                upper.as_bytes(),
                false,
                All,
                None,
            ),
            (
                DataType::Utf8,
                upper.as_bytes(),
                A.as_bytes(),
                false,
                Unknown,
                None,
            ),
            (
                DataType::Utf8,
                A.as_bytes(),
                B.as_bytes(),
                false,
                Unknown,
                None,
            ),
            (
                DataType::Utf8,
                B.as_bytes(),
                B.as_bytes(),
                false,
                None,
                None,
            ),
            (
                DataType::Utf8,
                B.as_bytes(),
                B.as_bytes(),
                true,
                Unknown,
                Unknown,
            ),
            // A bound that was cut short is still one.
            (
                DataType::Utf8,
                b"018f5a0e",
                b"018f5a0f",
                false,
                Unknown,
                None,
            ),
            (bytes.clone(), &own, &own, false, All, None),
            (bytes.clone(), &before, &after, false, Unknown, None),
            (bytes.clone(), &before, &before, false, None, None),
        ] {
            for (scope, expected) in [(&a, as_a), (&global, unbound)] {
                let predicate = LanePredicate::new(scope, &data_type).unwrap();
                let share = predicate.share(least, greatest, nulls);
                assert_eq!(share, expected, "{least:?} {greatest:?} {nulls}");
            }
        }
    }

    #[test]
    fn a_predicate_moves_to_types_that_spell_alike() {
        let predicate = LanePredicate::new(&scopes().0, &DataType::Utf8View).unwrap();
        for (data_type, moves) in [
            (DataType::Utf8, true),
            (DataType::LargeUtf8, true),
            (DataType::Binary, false),
            (DataType::Int64, false),
        ] {
            let expected = moves.then(|| LanePredicate::new(&scopes().0, &data_type).unwrap());
            assert_eq!(predicate.over(&data_type), expected, "{data_type}");
        }
    }

    #[test]
    fn uniform_batches_are_recognised() {
        let column = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        check(
            column(vec![Some(A), Some(A)]),
            LaneMask::All,
            LaneMask::None,
        );
        check(
            column(vec![Some(B), Some(B)]),
            LaneMask::None,
            LaneMask::None,
        );
        check(column(vec![None, None]), LaneMask::All, LaneMask::All);
    }

    #[test]
    fn types_that_cannot_hold_a_tenant_are_refused() {
        let (a, _) = scopes();
        for data_type in [
            DataType::Int64,
            DataType::FixedSizeBinary(8),
            DataType::Boolean,
            DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Int64)),
        ] {
            assert!(LanePredicate::new(&a, &data_type).is_err(), "{data_type}");
        }
    }
}
