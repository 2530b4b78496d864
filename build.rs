//! Compiles `proto/` with protox, so that no `protoc` is needed.

use std::env;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        // The comments become the documentation of the generated code.
        .include_source_info(true)
        .include_imports(true)
        .open_files([
            "proto/jammi/v1/session/session.proto",
            "proto/jammi/v1/catalog/catalog.proto",
        ])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(
        out.join("jammi_descriptor.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
