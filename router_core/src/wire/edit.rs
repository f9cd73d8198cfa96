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

    /// The edited body in one buffer.
    pub fn applied(&self, body: &[u8]) -> Vec<u8> {
        let mut edited = Vec::with_capacity(self.len_of(body));
        self.pieces(body).for_each(|piece| edited.extend_from_slice(piece));
        edited
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_the_order_of_insertions_at_one_place() {
        let mut edits = Edits::new();
        edits.replace(3..4, "X");
        edits.replace(1..1, "a");
        edits.replace(1..1, "b");
        edits.replace(1..2, "");
        assert_eq!(edits.applied(b"01234"), b"0ab2X4");
        assert!(!edits.is_empty() && Edits::new().is_empty());
    }

    proptest! {
        #[test]
        fn gives_what_edits_from_the_back_give(
            body in prop::collection::vec(any::<u8>(), 0..30),
            cuts in prop::collection::btree_set(0_usize..30, 0..8),
            with in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let cuts: Vec<usize> = cuts.into_iter().filter(|c| *c <= body.len()).collect();
            let (mut edits, mut expected) = (Edits::new(), body.clone());
            for pair in cuts.chunks_exact(2).rev() {
                edits.replace(pair[0]..pair[1], with.clone());
                expected.splice(pair[0]..pair[1], with.iter().copied());
            }
            prop_assert_eq!(edits.len_of(&body), expected.len());
            prop_assert_eq!(edits.applied(&body), expected);
        }
    }
}
