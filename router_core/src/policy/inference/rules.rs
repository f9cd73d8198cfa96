//! Allow and deny lists of names, compiled into one table: a name costs one pass over its bytes and one
//! probe per distinct pattern length, however many rules there are.

use std::fmt;

/// What a list says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Allow,
    /// A rule speaks against it.
    Deny {
        /// The rule that decided.
        rule: Rule,
    },
}

impl Verdict {
    /// Whether this is [`Verdict::Allow`].
    pub fn allowed(self) -> bool {
        self == Self::Allow
    }
}

/// The place in the policy that decided: `models.deny[3]`, or `models.allow` for a name that no rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The list's JSON path.
    pub list: &'static str,
    /// The element, counted from 0; `None` when the list as a whole decided.
    pub index: Option<u32>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}[{index}]", self.list),
            None => f.write_str(self.list),
        }
    }
}

/// Longest pattern, `*` not counted: as long as the longest model name.
const PATTERN_BYTES: usize = crate::limits::MODEL_BYTES;

/// One side of a pair of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Deny,
    Allow,
}

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    side: Side,
    prefix: bool,
    index: u32,
}

impl Entry {
    /// Denials ignore ASCII case (a provider that does must not be a way around them); permissions do not.
    fn says(&self, name: &[u8], prefix: bool) -> bool {
        let text = self.text.as_bytes();
        self.prefix == prefix
            && match self.side {
                Side::Deny => text.eq_ignore_ascii_case(name),
                Side::Allow => text == name,
            }
    }
}

/// The JSON paths of a pair of lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) allow: &'static str,
    pub(super) deny: &'static str,
}

/// An allow and a deny list, compiled.
#[derive(Debug)]
pub(super) struct Rules {
    names: Names,
    deny_all: Option<u32>,
    allow_listed: bool,
    allow_all: bool,
    entries: Vec<Entry>,
    /// Open addressing: the high half of a hash and an index into `entries`, or `EMPTY`.
    slots: Vec<(u32, u32)>,
    /// Distinct lengths of prefix patterns, ascending.
    lengths: Vec<usize>,
    longest_exact: usize,
}

const EMPTY: u32 = u32::MAX;

/// What is wrong with a rule: the list's path and element, and the text.
pub(super) struct Fault {
    pub(super) rule: Rule,
    pub(super) text: String,
}

impl Rules {
    /// Compiles the lists; `None` is a list that the policy does not have.
    pub(super) fn compile(
        names: Names,
        allow: Option<&[&str]>,
        deny: Option<&[&str]>,
    ) -> Result<Self, Fault> {
        let (allowed, denied) = (allow.unwrap_or_default(), deny.unwrap_or_default());
        let capacity = (2 * (allowed.len() + denied.len())).next_power_of_two();
        let mut rules = Self {
            names,
            deny_all: None,
            allow_listed: allow.is_some(),
            allow_all: false,
            entries: Vec::with_capacity(allowed.len() + denied.len()),
            slots: vec![(0, EMPTY); capacity],
            lengths: Vec::new(),
            longest_exact: 0,
        };
        for (index, pattern) in (0_u32..).zip(denied) {
            rules.add(Side::Deny, index, pattern)?;
        }
        for (index, pattern) in (0_u32..).zip(allowed) {
            rules.add(Side::Allow, index, pattern)?;
        }
        rules.lengths.sort_unstable();
        rules.lengths.dedup();
        rules.refuse_dead_permissions()?;
        Ok(rules)
    }

    /// Whether any name could be denied.
    pub(super) fn restrict(&self) -> bool {
        self.deny_all.is_some() || (self.allow_listed && !self.allow_all) || self.denies()
    }

    /// Decides about a name. Allocates nothing.
    pub(super) fn verdict(&self, name: &str) -> Verdict {
        if let Some(index) = self.deny_all {
            return self.deny(index);
        }
        let mut allowed = !self.allow_listed || self.allow_all;
        if self.entries.is_empty() && allowed {
            return Verdict::Allow;
        }
        let denied = self.matches(name.as_bytes(), true, |entry| match entry.side {
            Side::Deny => Some(entry.index),
            Side::Allow => {
                allowed = true;
                None
            }
        });
        match denied {
            Some(index) => self.deny(index),
            None if allowed => Verdict::Allow,
            None => Verdict::Deny { rule: Rule { list: self.names.allow, index: None } },
        }
    }

    fn deny(&self, index: u32) -> Verdict {
        Verdict::Deny { rule: Rule { list: self.names.deny, index: Some(index) } }
    }

    fn denies(&self) -> bool {
        // Denials are compiled first.
        self.entries.first().is_some_and(|entry| entry.side == Side::Deny)
    }

    /// Calls `found` for each pattern that matches `name` until it gives something; `exact` asks for
    /// exact patterns too.
    fn matches<T>(&self, name: &[u8], exact: bool, mut found: impl FnMut(&Entry) -> Option<T>) -> Option<T> {
        let mut hash = Running::new(name);
        for length in &self.lengths {
            let Some(head) = name.get(..*length) else { break };
            if let Some(value) = self.probe(hash.upto(*length), head, true, &mut found) {
                return Some(value);
            }
        }
        if !exact || name.len() > self.longest_exact {
            return None;
        }
        self.probe(hash.upto(name.len()), name, false, &mut found)
    }

    fn probe<T>(
        &self,
        hash: u64,
        name: &[u8],
        prefix: bool,
        found: &mut impl FnMut(&Entry) -> Option<T>,
    ) -> Option<T> {
        let mask = self.slots.len().wrapping_sub(1);
        let (tag, mut at) = split(hash);
        // The table is at most half full, so a free slot ends every walk.
        loop {
            let (slot_tag, index) = *self.slots.get(at & mask)?;
            if index == EMPTY {
                return None;
            }
            if slot_tag == tag
                && let Some(entry) = self.entries.get(index as usize)
                && entry.says(name, prefix)
                && let Some(value) = found(entry)
            {
                return Some(value);
            }
            at = (at & mask) + 1;
        }
    }

    fn add(&mut self, side: Side, index: u32, pattern: &str) -> Result<(), Fault> {
        let list = match side {
            Side::Deny => self.names.deny,
            Side::Allow => self.names.allow,
        };
        let rule = Rule { list, index: Some(index) };
        let fault = |text: &str| Fault { rule, text: text.to_owned() };
        let (text, prefix) = pattern.strip_suffix('*').map_or((pattern, false), |head| (head, true));
        if let Some(wrong) = malformed(text, prefix) {
            return Err(fault(wrong));
        }
        if prefix && text.is_empty() {
            let twice = match side {
                Side::Deny => self.deny_all.replace(index).is_some(),
                Side::Allow => std::mem::replace(&mut self.allow_all, true),
            };
            return if twice { Err(fault("repeats an earlier rule of this list")) } else { Ok(()) };
        }
        let hash = Running::new(text.as_bytes()).upto(text.len());
        let same = |entry: &Entry| (entry.side == side).then_some(());
        if self.probe(hash, text.as_bytes(), prefix, &mut { same }).is_some() {
            return Err(fault("repeats an earlier rule of this list"));
        }
        self.insert(hash, Entry { text: text.into(), side, prefix, index });
        Ok(())
    }

    fn insert(&mut self, hash: u64, entry: Entry) {
        if entry.prefix {
            self.lengths.push(entry.text.len());
        } else {
            self.longest_exact = self.longest_exact.max(entry.text.len());
        }
        let mask = self.slots.len().wrapping_sub(1);
        let (tag, mut at) = split(hash);
        let number = u32::try_from(self.entries.len()).unwrap_or(EMPTY);
        while let Some(slot) = self.slots.get_mut(at & mask) {
            if slot.1 == EMPTY {
                *slot = (tag, number);
                break;
            }
            at = (at & mask) + 1;
        }
        self.entries.push(entry);
    }

    /// A permission that a denial covers whole says one thing and does another: its author must choose.
    fn refuse_dead_permissions(&self) -> Result<(), Fault> {
        let deny = |index| Rule { list: self.names.deny, index: Some(index) };
        for entry in self.entries.iter().filter(|entry| entry.side == Side::Allow) {
            let covered = self.deny_all.or_else(|| {
                self.matches(entry.text.as_bytes(), !entry.prefix, |other| {
                    (other.side == Side::Deny).then_some(other.index)
                })
            });
            if let Some(index) = covered {
                let rule = Rule { list: self.names.allow, index: Some(entry.index) };
                return Err(Fault { rule, text: format!("can never match: {} denies it", deny(index)) });
            }
        }
        match self.deny_all {
            Some(index) if self.allow_all => Err(Fault {
                rule: Rule { list: self.names.allow, index: None },
                text: format!("\"*\" can never match: {} denies everything", deny(index)),
            }),
            _ => Ok(()),
        }
    }
}

fn malformed(text: &str, prefix: bool) -> Option<&'static str> {
    if text.is_empty() && !prefix {
        return Some("is empty: give a name, a \"prefix*\" or \"*\"");
    }
    if text.contains('*') {
        return Some("has a \"*\" before its end: a pattern is a name, a \"prefix*\" or \"*\"");
    }
    if text.len() > PATTERN_BYTES {
        return Some("is longer than 256 bytes, as no name is");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some("has a space or control character, as no name does");
    }
    None
}

fn split(hash: u64) -> (u32, usize) {
    #[allow(clippy::cast_possible_truncation)] // Both halves are meant.
    let (tag, place) = ((hash >> 32) as u32, hash as u32);
    (tag, place as usize)
}

/// A hash of the ASCII-lowercased bytes of ever longer heads of one name, eight bytes at a step.
/// Rules come from the operator, so the table needs no defence against chosen collisions.
struct Running<'n> {
    name: &'n [u8],
    state: u64,
    at: usize,
}

impl<'n> Running<'n> {
    fn new(name: &'n [u8]) -> Self {
        Self { name, state: 0x243f_6a88_85a3_08d3, at: 0 }
    }

    /// The hash of the first `length` bytes; lengths must not go down from call to call.
    fn upto(&mut self, length: usize) -> u64 {
        while self.at + 8 <= length {
            self.state = mix(self.state, self.word(8));
            self.at += 8;
        }
        let tail = self.word(length - self.at);
        let hash = mix(self.state ^ (length as u64), tail);
        hash ^ (hash >> 32)
    }

    /// The next `count` (at most 8) bytes as one number.
    fn word(&self, count: usize) -> u64 {
        if let Some(eight) = self.name.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let kept = if count >= 8 { u64::MAX } else { (1 << (8 * count)) - 1 };
            return lower(u64::from_le_bytes(*eight) & kept);
        }
        let rest = self.name.get(self.at..self.at + count).unwrap_or_default();
        lower(rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)))
    }
}

fn mix(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Lowercases the ASCII letters among eight bytes, each lane on its own.
fn lower(word: u64) -> u64 {
    const LANES: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (LANES * 0x7f);
    // Adding what is missing to 0x80 carries into a lane's top bit from that letter on.
    let above_z = low_bits + LANES * (0x80 - 0x5b);
    let from_a = low_bits + LANES * (0x80 - 0x41);
    let upper = (from_a ^ above_z) & !word & (LANES * 0x80);
    word | (upper >> 2)
}

#[cfg(test)]
mod tests;
