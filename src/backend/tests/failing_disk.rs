//! A disk that fails at one step of what a process does to its databases: a
//! library (`disk.c`) between the process and the operating system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, built.
pub struct FailingDisk {
    library: PathBuf,
}

impl FailingDisk {
    /// Builds the library in `dir`.
    pub fn build(dir: &Path) -> Self {
        let (source, library) = (dir.join("disk.c"), dir.join("disk.so"));
        fs::write(&source, include_str!("disk.c")).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .status()
            .expect("the C compiler that builds SQLite is there");
        assert!(built.success());
        FailingDisk { library }
    }

    /// Puts the disk below what `command` starts. `fault` is `kill`, `power`,
    /// `enospc`, `eio`, or `past` or `future` for a clock that jumps, and happens at
    /// the step of that number; none happens at step 0. The number of all steps goes to the file `count`.
    pub fn under(&self, command: &mut Command, fault: &str, step: usize, count: &Path) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("DISK_FAULT", fault)
            .env("DISK_STEP", step.to_string())
            .env("DISK_COUNT", count);
    }
}
