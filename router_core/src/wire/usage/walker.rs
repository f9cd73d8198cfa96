//! Finds the top-level `usage` of a JSON answer of any size, split anywhere, in constant memory.

use memchr::{memchr, memchr2};

use super::quick;
use super::report::Report;
use crate::limits;
use crate::wire::scan;

/// Longest spelling of the key that is looked at: `usage` with each letter escaped, and the quotes.
const KEY_BYTES: usize = 32;
/// Bytes in which structure is looked for one by one before whole blocks are passed over.
const NEAR_BYTES: usize = 16;

/// A walk over one JSON text. It follows strings and nesting only: on text that is not JSON it may find
/// nothing or something, but ends, and never fails.
#[derive(Debug, Default)]
pub(super) struct Walker {
    at: At,
    /// Open objects and arrays.
    depth: usize,
    /// The key being read at depth 1, with its quotes, where it is split or has escapes; longer ones are cut off.
    key: Vec<u8>,
    /// Whether the last key at depth 1 is `usage`.
    usage: bool,
    /// The `usage` object being read: what earlier feeds had of it.
    capture: Option<Vec<u8>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the top-level value.
    #[default]
    Start,
    /// Before a key of the top-level object, or its end.
    Member,
    /// In a key of the top-level object; whether an escape is open.
    Key(bool),
    /// Between such a key and its colon.
    Colon,
    /// Before such a key's value.
    Value,
    /// In a value, outside strings.
    Inside,
    /// In a string of a value; whether an escape is open.
    Text(bool),
    /// After the top-level value, or in one that is no object.
    Over,
}

impl Walker {
    /// Walks over the next bytes. `found` gets what each top-level `usage` object says, or `None` for a `usage`
    /// that says nothing, is no object or above [`limits::USAGE_BYTES`].
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(Option<Report>)) {
        let mut rest = bytes;
        while !rest.is_empty() && self.at != At::Over {
            let used = match self.at {
                At::Text(_) | At::Inside => self.inside(rest),
                _ => self.byte(rest, &mut found),
            };
            let (run, after) = rest.split_at_checked(used.max(1)).unwrap_or((rest, &[]));
            rest = after;
            if self.capture.is_some() {
                self.keep(run, &mut found);
            }
        }
    }

    /// Adds `run` to the `usage` being read; its end has been reached when no container but the top one is open.
    fn keep(&mut self, run: &[u8], found: &mut impl FnMut(Option<Report>)) {
        let Some(capture) = &mut self.capture else { return };
        if capture.len().saturating_add(run.len()) > limits::USAGE_BYTES {
            self.capture = None;
            return found(None);
        }
        if self.depth > 1 {
            return capture.extend_from_slice(run);
        }
        let report = if capture.is_empty() {
            Report::read(run)
        } else {
            capture.extend_from_slice(run);
            Report::read(capture)
        };
        self.capture = None;
        found(report);
    }

    /// Takes the next byte, or a whole key, of the top-level object's own structure.
    fn byte(&mut self, rest: &[u8], found: &mut impl FnMut(Option<Report>)) -> usize {
        let Some((&byte, after)) = rest.split_first() else { return 1 };
        self.at = match (self.at, byte) {
            (At::Start | At::Member | At::Colon | At::Value, b' ' | b'\t' | b'\r' | b'\n') => self.at,
            (At::Start, b'{') => {
                self.depth = 1;
                At::Member
            }
            (At::Member, b'"') => {
                if let Some(used) = self.whole_key(after) {
                    return used + 1;
                }
                self.key.clear();
                self.key.push(byte);
                At::Key(false)
            }
            (At::Member, b',') => At::Member,
            (At::Key(escaped), _) => {
                if self.key.len() < KEY_BYTES {
                    self.key.push(byte);
                }
                if byte == b'"' && !escaped {
                    self.usage = is_usage(&self.key);
                    At::Colon
                } else {
                    At::Key(byte == b'\\' && !escaped)
                }
            }
            (At::Colon, b':') => At::Value,
            (At::Value, _) => return self.value(rest, found),
            _ => At::Over,
        };
        1
    }

    /// Takes a key without escapes that ends in `rest`, which starts behind its quote, and a colon right after it.
    fn whole_key(&mut self, rest: &[u8]) -> Option<usize> {
        let end = memchr2(b'"', b'\\', rest)?;
        let (key, after) = rest.split_at_checked(end)?;
        let after = after.strip_prefix(b"\"")?;
        self.usage = key == b"usage";
        let colon = after.first() == Some(&b':');
        self.at = if colon { At::Value } else { At::Colon };
        Some(end + 1 + usize::from(colon))
    }

    /// Enters a top-level member's value, at the start of `rest`.
    fn value(&mut self, rest: &[u8], found: &mut impl FnMut(Option<Report>)) -> usize {
        self.at = At::Inside;
        if self.usage {
            if rest.first() != Some(&b'{') {
                found(None);
            } else if let Some((report, len)) =
                quick::read(rest).filter(|(_, len)| *len <= limits::USAGE_BYTES)
            {
                found(report);
                return len;
            } else {
                self.capture = Some(Vec::new());
            }
        }
        // On to the end: a `usage` that lies whole in this feed is one run.
        self.inside(rest)
    }

    /// Walks within a value: to the end of the member, of a `usage`, or of `rest`.
    fn inside(&mut self, rest: &[u8]) -> usize {
        let (mut passed, mut plain) = (0, 0);
        if let At::Text(escaped) = self.at {
            passed = self.text(rest, escaped);
        }
        while let Some(&byte) = rest.get(passed) {
            passed += 1;
            match CLASS.get(usize::from(byte)) {
                Some(Class::Comma) if self.depth == 1 => {
                    self.at = At::Member;
                    return passed;
                }
                Some(Class::Plain | Class::Comma) | None => {
                    plain += 1;
                    if plain == NEAR_BYTES && self.depth > 1 {
                        plain = 0;
                        passed += plain_len(rest.get(passed..).unwrap_or(&[]));
                    }
                    continue;
                }
                Some(Class::Quote) => {
                    let text = rest.get(passed..).unwrap_or(&[]);
                    passed += match plain_text(text) {
                        Some(len) => len + 1,
                        None => self.text(text, false),
                    };
                }
                Some(Class::Open) => self.depth = self.depth.saturating_add(1),
                Some(Class::Close) => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth <= 1 && (self.depth == 0 || self.capture.is_some()) {
                        self.at = if self.depth == 0 { At::Over } else { At::Inside };
                        return passed;
                    }
                }
            }
            plain = 0;
        }
        rest.len()
    }

    /// Walks to the end of a string: a quote after an even number of backslashes.
    fn text(&mut self, rest: &[u8], escaped: bool) -> usize {
        let mut start = 0;
        while let Some(quote) = scan::quote(rest.get(start..).unwrap_or(&[])) {
            let at = start + quote;
            start = at + 1;
            if !is_escaped(rest, at, escaped) {
                self.at = At::Inside;
                return start;
            }
        }
        self.at = At::Text(is_escaped(rest, rest.len(), escaped));
        rest.len()
    }
}

/// Whether an odd number of backslashes stands before `at`; `escaped` says so of the start of `bytes`.
fn is_escaped(bytes: &[u8], at: usize, escaped: bool) -> bool {
    let run = bytes.get(..at).unwrap_or(&[]).iter().rev().take_while(|b| **b == b'\\').count();
    (run % 2 == 1) != (run == at && escaped)
}

/// How long the text of a string is that ends in `bytes`, where its end is plain: its last byte is no backslash.
#[inline]
fn plain_text(bytes: &[u8]) -> Option<usize> {
    let end = scan::quote(bytes)?;
    (end > 0 && bytes.get(end - 1) != Some(&b'\\')).then_some(end)
}

/// Whether a key, with its quotes, is `usage`.
fn is_usage(key: &[u8]) -> bool {
    let escaped = || memchr(b'\\', key).is_some();
    key == b"\"usage\"" || escaped() && serde_json::from_slice::<String>(key).is_ok_and(|key| key == "usage")
}

/// What a byte is outside strings.
#[derive(Clone, Copy)]
enum Class {
    Plain,
    Quote,
    Open,
    Close,
    Comma,
}

static CLASS: [Class; 256] = {
    let mut class = [Class::Plain; 256];
    let kinds = [
        (b'"', Class::Quote),
        (b'{', Class::Open),
        (b'[', Class::Open),
        (b'}', Class::Close),
        (b']', Class::Close),
        (b',', Class::Comma),
    ];
    let mut rest = kinds.as_slice();
    while let Some(((byte, kind), after)) = rest.split_first() {
        #[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
        {
            class[*byte as usize] = *kind;
        }
        rest = after;
    }
    class
};

/// How many bytes without a string or a container are at the start of `bytes`, in whole blocks, which are tested
/// at once in vector registers, as in an array of numbers; commas are none here.
fn plain_len(bytes: &[u8]) -> usize {
    // `[` and `]` differ from `{` and `}` in one bit.
    let special = |b: u8| b == b'"' || b | 0x20 == b'{' || b | 0x20 == b'}';
    let (blocks, _) = bytes.as_chunks::<32>();
    blocks.iter().take_while(|block| !block.iter().fold(false, |hit, b| hit | special(*b))).count() * 32
}
