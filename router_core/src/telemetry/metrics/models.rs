//! The bounded table of model labels.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::limits::{MODEL_BYTES, MODEL_LABELS};

/// A model's label: an index into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelLabel(u16);

impl ModelLabel {
    /// The label `other`.
    pub const OTHER: Self = Self(0);

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Open addressing over twice as many places as labels: a lookup reads a place or two and takes no lock.
const PLACES: usize = (2 * MODEL_LABELS).next_power_of_two();

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    label: ModelLabel,
}

/// Names to labels. A name once taken in keeps its label.
#[derive(Debug)]
pub(super) struct Models {
    places: Box<[OnceLock<Entry>]>,
    /// Escaped names by label; `other` first.
    names: Mutex<Vec<Box<str>>>,
}

impl Models {
    pub(super) fn new() -> Self {
        let places = (0..PLACES).map(|_| OnceLock::new()).collect();
        Self { places, names: Mutex::new(vec!["other".into()]) }
    }

    pub(super) fn label(&self, name: &str) -> ModelLabel {
        let start = spread(name);
        for offset in 0..PLACES {
            let place = self.places.get((start + offset) % PLACES);
            match place.map(OnceLock::get) {
                Some(Some(entry)) if &*entry.name == name => return entry.label,
                Some(Some(_)) => {}
                Some(None) => return self.take_in(name),
                None => return ModelLabel::OTHER,
            }
        }
        ModelLabel::OTHER
    }

    /// The escaped names by label.
    pub(super) fn names(&self) -> Vec<Box<str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_in(&self, name: &str) -> ModelLabel {
        // Distinct names must give distinct label values, so that no series appears twice: a name that does not
        // fit is `other`, not cut to fit.
        let fits = !name.is_empty() && name.len() <= MODEL_BYTES && !name.contains(char::is_control);
        if !fits || name == "other" {
            return ModelLabel::OTHER;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let start = spread(name);
        for offset in 0..PLACES {
            let Some(place) = self.places.get((start + offset) % PLACES) else { break };
            match place.get() {
                // Another thread was first.
                Some(entry) if &*entry.name == name => return entry.label,
                Some(_) => {}
                None => {
                    if names.len() > MODEL_LABELS {
                        break;
                    }
                    let Ok(label) = u16::try_from(names.len()).map(ModelLabel) else { break };
                    if place.set(Entry { name: name.into(), label }).is_err() {
                        break;
                    }
                    names.push(escape(name).into());
                    return label;
                }
            }
        }
        ModelLabel::OTHER
    }
}

/// A label value as the text format wants it: `\`, `"` and line ends escaped.
pub(super) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn spread(name: &str) -> usize {
    // FNV-1a: names are short and few.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from((hash ^ (hash >> 32)) & 0xffff).unwrap_or(0)
}
