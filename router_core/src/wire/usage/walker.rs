//! Finds the top-level `usage` of a JSON answer of any size, split anywhere, in constant memory.

use crate::limits;

/// Longest spelling of the key that is looked at: `usage` with each letter escaped, and the quotes.
const KEY_BYTES: usize = 32;

/// A walk over one JSON text. It follows strings and nesting only: on text that is not JSON it may find
/// nothing or something, but ends, and never fails.
#[derive(Debug, Default)]
pub(super) struct Walker {
    at: At,
    /// Open objects and arrays.
    depth: usize,
    /// The key being read at depth 1, with its quotes; longer ones are cut off.
    key: Vec<u8>,
    /// The `usage` object being read.
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
    /// Walks over the next bytes. `found` gets each top-level `usage` object whole, or `None` for a
    /// `usage` that is no object or above [`limits::USAGE_BYTES`].
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(Option<&[u8]>)) {
        let mut rest = bytes;
        while !rest.is_empty() && self.at != At::Over {
            let used = match self.at {
                At::Text(escaped) => self.text(rest, escaped),
                At::Inside => self.inside(rest),
                _ => self.byte(rest, &mut found),
            };
            let (run, after) = rest.split_at_checked(used.max(1)).unwrap_or((rest, &[]));
            rest = after;
            self.keep(run, &mut found);
        }
    }

    /// Adds `run` to the `usage` being read; its end has been reached when no container but the top one is open.
    fn keep(&mut self, run: &[u8], found: &mut impl FnMut(Option<&[u8]>)) {
        let Some(capture) = &mut self.capture else { return };
        if capture.len().saturating_add(run.len()) > limits::USAGE_BYTES {
            self.capture = None;
            return found(None);
        }
        capture.extend_from_slice(run);
        if self.depth <= 1 {
            found(self.capture.take().as_deref());
        }
    }

    /// Takes one byte of the top-level object's own structure.
    fn byte(&mut self, rest: &[u8], found: &mut impl FnMut(Option<&[u8]>)) -> usize {
        let Some(&byte) = rest.first() else { return 1 };
        self.at = match (self.at, byte) {
            (At::Start | At::Member | At::Colon | At::Value, b' ' | b'\t' | b'\r' | b'\n') => self.at,
            (At::Start, b'{') => {
                self.depth = 1;
                At::Member
            }
            (At::Member, b'"') => {
                self.key.clear();
                self.key.push(byte);
                At::Key(false)
            }
            (At::Member, b',') => At::Member,
            (At::Key(escaped), _) => {
                if self.key.len() < KEY_BYTES {
                    self.key.push(byte);
                }
                if byte == b'"' && !escaped { At::Colon } else { At::Key(byte == b'\\' && !escaped) }
            }
            (At::Colon, b':') => At::Value,
            (At::Value, _) => return self.value(byte, found),
            _ => At::Over,
        };
        1
    }

    /// Enters a top-level member's value at its first byte.
    fn value(&mut self, first: u8, found: &mut impl FnMut(Option<&[u8]>)) -> usize {
        self.at = At::Inside;
        if self.key_is_usage() {
            if first == b'{' {
                self.capture = Some(Vec::new());
            } else {
                found(None);
            }
        }
        self.structure(first);
        1
    }

    fn key_is_usage(&self) -> bool {
        let escaped = || memchr::memchr(b'\\', &self.key).is_some();
        self.key == b"\"usage\""
            || escaped() && serde_json::from_slice::<String>(&self.key).is_ok_and(|key| key == "usage")
    }

    /// Walks within a value to the next byte of structure and takes it.
    fn inside(&mut self, rest: &[u8]) -> usize {
        let next = if self.depth > 1 { container_end(rest) } else { member_end(rest) };
        let Some((at, byte)) = next.and_then(|at| Some((at, *rest.get(at)?))) else { return rest.len() };
        self.structure(byte);
        at + 1
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'"' => self.at = At::Text(false),
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' => self.at = At::Member,
            _ => {}
        }
        if self.depth == 0 {
            self.at = At::Over;
        }
    }

    /// Walks to the end of a string: a quote after an even number of backslashes.
    fn text(&mut self, rest: &[u8], escaped: bool) -> usize {
        let mut start = 0;
        let odd_before = |end: usize| {
            let run = rest.get(..end).unwrap_or(&[]).iter().rev().take_while(|b| **b == b'\\').count();
            (run % 2 == 1) != (run == end && escaped)
        };
        while let Some(quote) = memchr::memchr(b'"', rest.get(start..).unwrap_or(&[])) {
            let at = start + quote;
            start = at + 1;
            if !odd_before(at) {
                self.at = At::Inside;
                return start;
            }
        }
        self.at = At::Text(odd_before(rest.len()));
        rest.len()
    }
}

/// The first byte of `bytes` that opens or closes a container or a string.
fn container_end(bytes: &[u8]) -> Option<usize> {
    // `[` and `]` differ from `{` and `}` in one bit. Blocks without any of them, as in an array of numbers,
    // are tested at once in vector registers.
    let special = |b: u8| b == b'"' || b | 0x20 == b'{' || b | 0x20 == b'}';
    let (blocks, _) = bytes.as_chunks::<32>();
    let clear =
        blocks.iter().take_while(|block| !block.iter().fold(false, |hit, b| hit | special(*b))).count();
    let passed = clear * 32;
    let at = bytes.get(passed..)?.iter().position(|b| special(*b))?;
    Some(passed + at)
}

/// The same at the top level, where a comma ends a member.
fn member_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| matches!(b, b'"' | b',' | b'{' | b'}' | b'[' | b']'))
}
