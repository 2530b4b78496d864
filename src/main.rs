//! The `jammi` command: everything is in [`jammi_db::cli`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    jammi_db::cli::main()
}
