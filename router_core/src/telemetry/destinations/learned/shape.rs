//! The shape of a path: what is the same in many requests, and nothing that is one user's or a secret.

/// Segments kept before `**`.
const SEGMENTS: usize = 6;
/// Longest segment kept.
const SEGMENT_BYTES: usize = 64;
/// What comes in a segment's place.
const ANY: &str = "*";
/// What comes in place of all deeper segments.
const DEEPER: &str = "/**";
const SHAPE_BYTES: usize = SEGMENTS * (1 + SEGMENT_BYTES) + DEEPER.len();
/// Longest method kept: `UPDATEREDIRECTREF` is the longest that is registered.
const METHOD_BYTES: usize = 24;

/// Digits of a hexadecimal number that is an id, not a word such as `added`.
const HEX_DIGITS: usize = 8;
/// Length from which a segment with a digit in it is a token, from which one of both cases is, and from which any is
/// that is not made of words.
const TOKEN_BYTES: usize = 16;
const MIXED_TOKEN_BYTES: usize = 20;
const PLAIN_TOKEN_BYTES: usize = 32;

/// A shape, held inline. Segments are as written, percent-encoding included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    bytes: [u8; SHAPE_BYTES],
    len: usize,
}

impl Shape {
    /// The shape of a path, with or without a query.
    pub(super) fn of(path: &str) -> Self {
        let mut shape = Self::default();
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        for (depth, segment) in segments.enumerate() {
            if depth == SEGMENTS {
                shape.push(DEEPER);
                break;
            }
            shape.push("/");
            shape.push(if is_word(segment.as_bytes()) { segment } else { ANY });
        }
        shape
    }

    pub(super) fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }

    fn push(&mut self, text: &str) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + text.len()) {
            place.copy_from_slice(text.as_bytes());
            self.len += text.len();
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self { bytes: [0; SHAPE_BYTES], len: 0 }
    }
}

/// A method as it is kept: upper-case words are, anything else becomes `*`.
pub(super) fn method(text: &str) -> &str {
    let usual = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    if (1..=METHOD_BYTES).contains(&text.len()) && text.bytes().all(usual) { text } else { ANY }
}

/// Whether a segment is part of the shape: neither an id, nor a user's address, nor anything like a secret.
fn is_word(segment: &[u8]) -> bool {
    if segment.len() > SEGMENT_BYTES || !segment.iter().all(u8::is_ascii_graphic) {
        return false;
    }
    let mut room = [0; SEGMENT_BYTES];
    let Some(text) = decoded(segment, &mut room) else { return false };
    let count = |class: fn(&u8) -> bool| text.iter().filter(|byte| class(byte)).count();
    let digits = count(u8::is_ascii_digit);
    let hex = count(u8::is_ascii_hexdigit);
    let dashes = count(|byte| *byte == b'-');
    let joints = count(|byte| b"-_.:,+~ ".contains(byte));
    let number = digits > 0 && digits + joints == text.len();
    let hex_id = hex >= HEX_DIGITS && hex + dashes == text.len() && (dashes == 0 || digits > 0);
    // `@scope` is a word, `user@host` is not; `key=value` and `;key` carry values.
    let address = memchr::memchr(b'@', text).is_some_and(|at| at > 0);
    let value = text.iter().any(|byte| b"=;&*".contains(byte));
    let mixed = count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0;
    let token = text.len() >= TOKEN_BYTES && digits > 0
        || text.len() >= MIXED_TOKEN_BYTES && mixed
        || text.len() >= PLAIN_TOKEN_BYTES && joints == 0;
    !(number || hex_id || address || value || token)
}

/// A segment without its percent-encoding; `None` when that is broken.
fn decoded<'r>(segment: &[u8], room: &'r mut [u8; SEGMENT_BYTES]) -> Option<&'r [u8]> {
    let mut bytes = segment.iter();
    let mut len = 0;
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(*bytes.next()?).to_digit(16);
        let byte = if *byte == b'%' { u8::try_from(digit()? * 16 + digit()?).ok()? } else { *byte };
        *room.get_mut(len)? = byte;
        len += 1;
    }
    room.get(..len)
}
