//! The `jammi` command: everything is in [`jammi_db::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    jammi_db::cli::main()
}
