//! The floors of the house: a room names only rooms below it.

#![expect(clippy::expect_used, reason = "a test stops at the first thing that is not there")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms and their floor, from the ground up. Rooms on one floor do not know each other.
const FLOORS: [(&str, u8); 10] = [
    ("error", 0),
    ("limits", 1),
    ("ids", 2),
    ("settings", 3),
    ("wire", 4),
    ("telemetry", 4),
    ("policy", 5),
    ("net", 5),
    ("gate", 6),
    ("proxy", 7),
];
const TOP: (&str, u8) = ("engine", 8);

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the core's sources are there") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The room of a file: the first part of its path below `src`.
fn room(root: &Path, file: &Path) -> String {
    let below = file.strip_prefix(root).expect("a file below the root");
    let first = below.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a line names as `crate::room`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or(""))
}

#[test]
fn a_room_names_only_rooms_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors: BTreeMap<&str, u8> = FLOORS.into_iter().chain([TOP]).collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let own = room(&root, file);
        if own == "lib" {
            continue;
        }
        let floor = floors.get(own.as_str()).unwrap_or_else(|| panic!("{own} has no floor in this table"));
        let text = std::fs::read_to_string(file).expect("readable source");
        for (number, line) in text.lines().enumerate() {
            for other in named(line).filter(|other| *other != own) {
                if floors.get(other).is_none_or(|other| other >= floor) {
                    wrong.push(format!("{}:{}: {own} names {other}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(files.len() > 30, "the scan found only {} files", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
