//! A tight set of names that finds a name's parents in one pass.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// The text of all names in one run of bytes, each after its length; and a table of where they begin.
pub(super) struct Names {
    text: Vec<u8>,
    table: HashTable<u32>,
    /// Bit n stands when a name with n labels was inserted: depths that none has are not looked up.
    depths: u128,
    seed: u64,
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + self.table.allocation_size()
    }

    /// Inserts a name in normal form; false when there is no room for any more text.
    pub(super) fn insert(&mut self, name: &str) -> bool {
        let (Ok(length), Ok(at)) = (u8::try_from(name.len()), u32::try_from(self.text.len())) else {
            return false;
        };
        let hash = hash(self.seed, name.as_bytes());
        let (text, seed) = (&mut self.text, self.seed);
        if self.table.find(hash, |at| stored(text, *at) == name.as_bytes()).is_some() {
            return true;
        }
        grow(text, name.len() + 1);
        text.push(length);
        text.extend_from_slice(name.as_bytes());
        let rehash = |at: &u32| self::hash(seed, stored(text, *at));
        self.table.insert_unique(hash, at, rehash);
        self.depths |= depth_bit(1 + name.bytes().filter(|byte| *byte == b'.').count());
        true
    }

    /// Whether the name itself is in the set.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(hash(self.seed, name.as_bytes()), name.as_bytes()).is_some()
    }

    /// Takes a name out. Its text stays, unreachable.
    pub(super) fn remove(&mut self, name: &str) {
        let hash = hash(self.seed, name.as_bytes());
        let text = &self.text;
        if let Ok(entry) = self.table.find_entry(hash, |at| stored(text, *at) == name.as_bytes()) {
            entry.remove();
        }
    }

    /// Gives back the room that was kept for more.
    pub(super) fn settle(&mut self) {
        self.text.shrink_to_fit();
        let (text, seed) = (&self.text, self.seed);
        self.table.shrink_to_fit(|at| hash(seed, stored(text, *at)));
    }

    /// All names, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.table.iter().map(|at| std::str::from_utf8(stored(&self.text, *at)).unwrap_or(""))
    }

    /// The shortest name in the set that is `name` or a domain above it.
    pub(super) fn covering(&self, name: &str) -> Option<&str> {
        let at = self.candidates(name).find_map(|(hash, suffix)| self.find(hash, suffix))?;
        std::str::from_utf8(stored(&self.text, at)).ok()
    }

    /// `name` and the domains above it that are worth a lookup, shortest first, each with its hash.
    pub(super) fn candidates<'n>(&self, name: &'n str) -> impl Iterator<Item = (u64, &'n [u8])> {
        let bytes = name.as_bytes();
        let (depths, mut rolling, mut labels) = (self.depths, Rolling::new(self.seed), 0);
        // The dot before the name's first byte is only imagined.
        let dots = (0..=bytes.len()).rev().filter_map(move |at| {
            let byte = at.checked_sub(1).and_then(|before| bytes.get(before)).copied().unwrap_or(b'.');
            let suffix = (byte == b'.').then_some((rolling.finish(), bytes.get(at..).unwrap_or(&[])));
            rolling.take(byte);
            suffix
        });
        dots.filter(move |_| {
            labels += 1;
            depths & depth_bit(labels) != 0
        })
    }

    fn find(&self, hash: u64, name: &[u8]) -> Option<u32> {
        self.table.find(hash, |at| stored(&self.text, *at) == name).copied()
    }
}

impl Default for Names {
    fn default() -> Self {
        // A seed of its own for every set: nobody can write a list whose names all collide.
        let seed = RandomState::new().hash_one(0);
        Self { text: Vec::new(), table: HashTable::new(), depths: 0, seed }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({} in {} bytes)", self.len(), self.bytes())
    }
}

/// A hash that takes a name's bytes from its end, and so passes the hashes of all domains above it.
#[derive(Clone, Copy)]
struct Rolling(u64);

impl Rolling {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn take(&mut self, byte: u8) {
        // FNV-1a's step, with its 64-bit prime.
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    /// The table uses the lowest and the highest bits: every bit of the state must reach both.
    fn finish(self) -> u64 {
        // 2^64 divided by the golden ratio.
        let wide = u128::from(self.0) * 0x9e37_79b9_7f4a_7c15;
        let (low, high) = (wide & u128::from(u64::MAX), wide >> 64);
        u64::try_from(low ^ high).unwrap_or(0)
    }
}

fn hash(seed: u64, name: &[u8]) -> u64 {
    let mut rolling = Rolling::new(seed);
    name.iter().rev().for_each(|byte| rolling.take(*byte));
    rolling.finish()
}

/// The name that is stored at an offset.
fn stored(text: &[u8], at: u32) -> &[u8] {
    let rest = usize::try_from(at).ok().and_then(|at| text.get(at..)).unwrap_or(&[]);
    let Some((length, rest)) = rest.split_first() else { return &[] };
    rest.get(..usize::from(*length)).unwrap_or(&[])
}

/// A name has at most 127 labels.
fn depth_bit(labels: usize) -> u128 {
    u32::try_from(labels).ok().and_then(|labels| 1_u128.checked_shl(labels)).unwrap_or(0)
}

/// Makes room for `more` bytes, by a quarter at a time: doubling would hold twice what is needed.
fn grow(text: &mut Vec<u8>, more: usize) {
    if text.capacity() - text.len() < more {
        text.reserve_exact((text.len() / 4).max(4096).max(more));
    }
}
