//! An Arrow schema as bytes: those that a lane keeps of it, and those that clients
//! send. Both are an IPC schema message, which clients encapsulate.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::convert::{try_schema_from_flatbuffer_bytes, try_schema_from_ipc_buffer};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};

/// The bytes of `schema`.
pub(super) fn encode(schema: &Schema) -> Vec<u8> {
    IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(
            schema,
            &mut DictionaryTracker::new(false),
            &IpcWriteOptions::default(),
        )
        .ipc_message
}

/// The schema that `bytes` hold, or why they hold none.
pub(super) fn decode(bytes: &[u8]) -> Result<Schema, String> {
    sheltered(|| try_schema_from_flatbuffer_bytes(bytes))
}

/// The schema of an encapsulated message, or why it holds none.
pub(crate) fn decode_message(bytes: &[u8]) -> Result<Schema, String> {
    sheltered(|| try_schema_from_ipc_buffer(bytes))
}

/// Arrow's decoder panics on a message that is well formed and says nonsense,
/// which a damaged file or a client may hold.
fn sheltered(decode: impl FnOnce() -> Result<Schema, ArrowError>) -> Result<Schema, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(_panic) => Err("it is not a schema".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, TimeUnit};
    use proptest::prelude::*;

    use super::*;

    fn any_type() -> impl Strategy<Value = DataType> {
        let leaf = prop_oneof![
            Just(DataType::Boolean),
            Just(DataType::Int64),
            Just(DataType::UInt8),
            Just(DataType::Float64),
            Just(DataType::Utf8),
            Just(DataType::Utf8View),
            Just(DataType::LargeBinary),
            Just(DataType::BinaryView),
            Just(DataType::FixedSizeBinary(16)),
            Just(DataType::Date32),
            Just(DataType::Decimal128(38, 10)),
            Just(DataType::Timestamp(
                TimeUnit::Microsecond,
                Some("Europe/Zurich".into())
            )),
            Just(DataType::Dictionary(
                Box::new(DataType::Int32),
                Box::new(DataType::Utf8)
            )),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), any::<bool>())
                    .prop_map(|(of, null)| DataType::List(Arc::new(Field::new("item", of, null)))),
                prop::collection::vec(("[a-z]{1,4}", inner, any::<bool>()), 1..3).prop_map(
                    |fields| DataType::Struct(
                        fields
                            .into_iter()
                            .map(|(name, of, null)| Field::new(name, of, null))
                            .collect()
                    )
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn schemas_come_back(
            fields in prop::collection::vec((".{0,12}", any_type(), any::<bool>()), 0..6),
            metadata in prop::collection::hash_map(".{0,4}", ".{0,4}", 0..3),
        ) {
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(name, of, null)| Field::new(name, of, null).with_metadata(metadata.clone()))
                .collect();
            let schema = Schema::new_with_metadata(fields, metadata);
            let message = encode(&schema);
            let mut encapsulated = vec![0xff; 4];
            encapsulated.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            encapsulated.extend(&message);
            prop_assert_eq!(decode_message(&encapsulated), Ok(schema.clone()));
            prop_assert_eq!(decode(&message), Ok(schema));
        }

        #[test]
        fn damaged_schemas_are_refused_or_read(
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
        ) {
            let schema = Schema::new(vec![Field::new("tenant_id", DataType::Utf8, true)]);
            let mut bytes = encode(&schema);
            let at = at.index(bytes.len());
            bytes[at] = with;
            // Either is right; what must not happen is a panic.
            let _ = decode(&bytes);
            let _ = decode_message(&bytes);
        }
    }
}
