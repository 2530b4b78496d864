//! The methods that the server answers, by path, for labels and log fields.
//!
//! A path that is not in the list is a client's invention and becomes
//! [`UNKNOWN`], so that clients cannot write into the log or multiply metrics.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

use super::proto;

/// The name of every method that the server does not have.
pub(super) const UNKNOWN: &str = "unknown";

static PATHS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let described = [
        proto::FILE_DESCRIPTOR_SET,
        proto::FLIGHT_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    described.into_iter().flat_map(paths).collect()
});

/// The path itself if it is one of the server's methods.
pub(super) fn name_of(path: &str) -> &'static str {
    PATHS.get(path).map_or(UNKNOWN, String::as_str)
}

/// The path of every method that the server answers, as in
/// `/jammi.v1.session.SessionService/SetTenant`.
pub fn method_names() -> Vec<&'static str> {
    PATHS.iter().map(String::as_str).collect()
}

fn paths(descriptors: &[u8]) -> Vec<String> {
    let files = FileDescriptorSet::decode(descriptors)
        .unwrap_or_default()
        .file;
    let mut paths = Vec::new();
    for file in &files {
        for service in &file.service {
            for method in &service.method {
                let (package, service) = (file.package(), service.name());
                paths.push(format!("/{package}.{service}/{}", method.name()));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_of_the_server_have_names() {
        for path in [
            "/jammi.v1.session.SessionService/SetTenant",
            "/jammi.v1.catalog.CatalogService/DropModel",
            "/arrow.flight.protocol.FlightService/DoGet",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(name_of(path), path);
        }
        for path in ["/", "", "/jammi.v1.session.SessionService/x", "/a/b"] {
            assert_eq!(name_of(path), UNKNOWN);
        }
    }
}
