//! Imports run one way: a room uses only the rooms before it.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms in the order in which they may use each other. Rooms of one row
/// do not.
const LAYERS: &[&[&str]] = &[
    &["tenant"],
    &["policy", "backend"],
    &["auth", "catalog", "audit"],
    &["table", "source"],
    &["tenancy"],
    &["engine"],
    &["session"],
    &["verify"],
    &["server"],
    &["cli"],
];

/// What every room may use.
const BESIDE: &[&str] = &["error", "config", "TenantId", "TenantBinding"];

#[test]
fn every_room_uses_only_rooms_before_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = vec![];
    let mut uses = 0;
    for (layer, rooms) in LAYERS.iter().enumerate() {
        let before: Vec<&str> = LAYERS[..layer].concat();
        for room in *rooms {
            for file in rust_files(&src.join(room)) {
                let text = fs::read_to_string(&file).unwrap();
                for used in used_rooms(&text) {
                    uses += 1;
                    let allowed = used == *room || before.contains(&used) || BESIDE.contains(&used);
                    if !allowed {
                        wrong.push(format!("{} uses {used}", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(uses > 100, "only {uses} uses were found");
}

#[test]
fn every_room_has_a_layer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layered = LAYERS.concat();
    for entry in fs::read_dir(src).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() && name != "config" {
            assert!(layered.contains(&name.as_str()), "src/{name} has no layer");
        }
    }
}

/// The rooms that a file names, as in `use crate::room` or `crate::room::item`.
fn used_rooms(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| {
            line.match_indices("crate::")
                .map(move |(at, _)| &line[at + 7..])
        })
        .map(|rest| {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            &rest[..end]
        })
        .filter(|room| !room.is_empty())
        .collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return vec![];
    };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path)
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                vec![path]
            } else {
                vec![]
            }
        })
        .collect()
}
