//! Rewrites by span: a body's untouched bytes stay where they are.

use std::ops::Range;

/// Replacements of byte ranges in a body, kept sorted and disjoint.
#[derive(Debug, Default, Clone)]
pub struct Edits {
    list: Vec<(Range<usize>, Vec<u8>)>,
}

impl Edits {
    /// No edits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces `range` with `with` (an empty range inserts). Ranges must not overlap; two insertions at
    /// one place keep their order.
    pub fn replace(&mut self, range: Range<usize>, with: impl Into<Vec<u8>>) {
        let at = self.list.partition_point(|(r, _)| r.start <= range.start);
        self.list.insert(at, (range, with.into()));
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Length of `body` after the edits.
    pub fn len_of(&self, body: &[u8]) -> usize {
        self.list.iter().fold(body.len(), |n, (r, with)| n + with.len() - r.len())
    }

    /// The edited body as pieces in order.
    pub fn pieces<'a>(&'a self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(0).chain(self.list.iter().map(|(r, _)| r.end));
        let ends = self.list.iter().map(|(r, _)| r.start).chain(std::iter::once(body.len()));
        let inserts = self.list.iter().map(|(_, w)| w.as_slice()).chain(std::iter::once(&[][..]));
        starts
            .zip(ends)
            .zip(inserts)
            .flat_map(|((start, end), with)| [body.get(start..end).unwrap_or(&[]), with])
            .filter(|piece| !piece.is_empty())
    }
}
