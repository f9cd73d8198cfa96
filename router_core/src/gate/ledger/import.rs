//! The reference's budget file, read once.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use super::windows::{State, Tally};

/// `{"sandboxes":{"<name>":{…}}}`.
#[derive(Deserialize)]
struct Budgets {
    #[serde(default)]
    sandboxes: HashMap<String, Counts>,
}

/// `day_key` counts days from year 1, `month_key` is `year * 12 + month0`.
#[derive(Deserialize)]
struct Counts {
    day_key: u32,
    daily: u64,
    month_key: u32,
    monthly: u64,
}

/// The counts of `sandbox` in the file at `path`: `None` when there is no file or no such sandbox in it, an error
/// for people when it cannot be read.
pub(super) fn read(path: &Path, sandbox: &str) -> Result<Option<State>, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
    };
    let mut budgets: Budgets =
        serde_json::from_slice(&text).map_err(|e| format!("{} is not a budget file: {e}", path.display()))?;
    Ok(budgets.sandboxes.remove(sandbox).map(|counts| {
        let day = Tally { key: counts.day_key.into(), spent: counts.daily, ..Tally::default() };
        let month = Tally { key: counts.month_key.into(), spent: counts.monthly, ..Tally::default() };
        State::restored([Tally::default(), day, month], 0)
    }))
}
