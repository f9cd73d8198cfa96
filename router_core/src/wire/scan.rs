//! Eight bytes at a time: where a string of JSON text ends.

use memchr::memchr;

const ONES: u64 = u64::from_le_bytes([1; 8]);
/// Bytes within which most strings end: looked at here, before a search that is made for long ones.
const NEAR_BYTES: usize = 32;

/// The first quote in `bytes`.
#[inline(never)]
pub(super) fn quote(bytes: &[u8]) -> Option<usize> {
    let mut passed = 0;
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<8>()
        && passed < NEAR_BYTES
    {
        let hit = equal(u64::from_le_bytes(*block), b'"') & (ONES << 7);
        if hit != 0 {
            return Some(passed + first(hit));
        }
        passed += 8;
        rest = after;
    }
    memchr(b'"', rest).map(|at| passed + at)
}

/// How many bytes of ASCII other than quotes, backslashes and control characters are at the start of `bytes`.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let (blocks, tail) = bytes.as_chunks::<8>();
    let mut passed = 0;
    for block in blocks {
        let word = u64::from_le_bytes(*block);
        let hit = (equal(word, b'"') | equal(word, b'\\') | below(word, b' ') | word) & (ONES << 7);
        if hit != 0 {
            return passed + first(hit);
        }
        passed += 8;
    }
    passed + tail.iter().take_while(|b| b.is_ascii() && **b >= b' ' && !matches!(b, b'"' | b'\\')).count()
}

/// How many bytes other than quotes, backslashes and control characters are at the start of `bytes`.
pub(super) fn text_len(bytes: &[u8]) -> usize {
    let (near, far) = bytes.split_at_checked(NEAR_BYTES).unwrap_or((bytes, &[]));
    let len = near_text_len(near);
    if len < near.len() {
        return len;
    }
    // Blocks without any of them are tested at once in vector registers.
    #[expect(clippy::needless_bitwise_bool, reason = "lazy operators would test byte by byte")]
    let special = |b: u8| (b == b'"') | (b == b'\\') | (b < b' ');
    let (blocks, _) = far.as_chunks::<32>();
    let clear =
        blocks.iter().take_while(|block| !block.iter().fold(false, |hit, b| hit | special(*b))).count() * 32;
    len + clear + near_text_len(far.get(clear..).unwrap_or(&[]))
}

fn near_text_len(bytes: &[u8]) -> usize {
    let (blocks, tail) = bytes.as_chunks::<8>();
    let mut passed = 0;
    for block in blocks {
        let word = u64::from_le_bytes(*block);
        let hit = (equal(word, b'"') | equal(word, b'\\') | below(word, b' ')) & (ONES << 7);
        if hit != 0 {
            return passed + first(hit);
        }
        passed += 8;
    }
    passed + tail.iter().take_while(|b| **b >= b' ' && !matches!(b, b'"' | b'\\')).count()
}

/// The first byte whose top bit is set in `hit`.
fn first(hit: u64) -> usize {
    (hit.trailing_zeros() / 8) as usize
}

/// Sets the top bit of each byte of `word` that is `byte`.
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Sets the top bit of each byte of `word` that is below `bound` (at most 128). A borrow may set further ones,
/// but only above the first that is right.
fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(bound)) & !word
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_walk_byte_by_byte_finds(
            bytes in prop::collection::vec(
                prop_oneof![40 => Just(b'a'), 1 => any::<u8>(), 1 => Just(b'!'), 1 => Just(b'"'), 1 => Just(b'\\')], 0..200),
        ) {
            prop_assert_eq!(quote(&bytes), bytes.iter().position(|b| *b == b'"'));
            let plain = |b: &&u8| matches!(b, b' '..=0x7f) && !matches!(b, b'"' | b'\\');
            prop_assert_eq!(plain_len(&bytes), bytes.iter().take_while(plain).count());
            let text = |b: &&u8| **b >= b' ' && !matches!(b, b'"' | b'\\');
            prop_assert_eq!(text_len(&bytes), bytes.iter().take_while(text).count());
        }
    }
}
