//! Compiles `proto/` with protox, so that no `protoc` is needed, and says when
//! the console has to be embedded anew.

use std::env;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    // The directory is there without a built console too, and files that are
    // added to it are seen by nothing else.
    println!("cargo::rerun-if-changed=console/dist");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        // The comments become the documentation of the generated code.
        .include_source_info(true)
        .include_imports(true)
        .open_files([
            "proto/jammi/v1/session/session.proto",
            "proto/jammi/v1/catalog/catalog.proto",
            "proto/jammi/v1/operator/operator.proto",
            "proto/jammi/v1/tenants/tenants.proto",
        ])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(
        out.join("jammi_descriptor.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    // Its code is arrow-flight's; only reflection needs it.
    let mut flight = protox::Compiler::new(["proto"])?;
    flight
        .include_source_info(false)
        .include_imports(true)
        .open_files([
            "proto/arrow/flight/protocol/flight.proto",
            "proto/arrow/flight/protocol/sql/flight_sql.proto",
        ])?;
    std::fs::write(
        out.join("flight_descriptor.bin"),
        flight.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure()
        // Shown by nothing, so that no log has one.
        .skip_debug([".jammi.v1.operator.Secret"])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
