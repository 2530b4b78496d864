//! What `build.rs` makes of `proto/`: messages, servers and clients.

/// `jammi.v1.session`: binding a session to a tenant.
#[allow(missing_docs)]
pub mod session {
    tonic::include_proto!("jammi.v1.session");
}

/// `jammi.v1.catalog`: sources, models and tables.
#[allow(missing_docs)]
pub mod catalog {
    tonic::include_proto!("jammi.v1.catalog");
}

/// `jammi.v1.tenants`: tenants as the operator has them.
#[allow(missing_docs)]
pub mod tenants {
    tonic::include_proto!("jammi.v1.tenants");
}

/// `jammi.v1.operator`: keys, users, sessions and queries.
#[allow(missing_docs)]
pub mod operator {
    use std::fmt;

    tonic::include_proto!("jammi.v1.operator");

    // Requests and answers are shown where something goes wrong.
    impl fmt::Debug for Secret {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Secret(..)")
        }
    }
}

/// The descriptors of these, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("jammi_descriptor");

/// The descriptors of Flight and of Flight SQL's commands, whose code is
/// arrow-flight's.
pub const FLIGHT_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("flight_descriptor");
