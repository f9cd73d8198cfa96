//! Passes over JSON values without reading them (RFC 8259 §2-7), as strictly as a parser would.
//!
//! What is passed over is valid, given that it is UTF-8. `None` means that it is not, or is nested deeper than
//! is usual: a full parser is to say.

use super::scan;

/// Containers within each other that are passed over.
const DEPTH: usize = 48;

/// What follows the value at the start of `bytes`, which has no space before it.
pub(super) fn value(bytes: &[u8]) -> Option<&[u8]> {
    nested(bytes, DEPTH)
}

/// What follows the string at the start of `bytes`.
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        rest = match rest.get(scan::text_len(rest)..)? {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', after @ ..] => after,
            [b'\\', b'u', a, b, c, d, after @ ..] if [a, b, c, d].iter().all(|d| d.is_ascii_hexdigit()) => {
                after
            }
            _ => return None,
        }
    }
}

/// `bytes` without the space at their start.
#[inline]
pub(super) fn space(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let Some((b' ' | b'\t' | b'\r' | b'\n', after)) = rest.split_first() {
        rest = after;
    }
    rest
}

fn nested(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    match bytes.first()? {
        b'"' => string(bytes),
        b'{' => container(bytes.get(1..)?, b'}', depth.checked_sub(1)?),
        b'[' => container(bytes.get(1..)?, b']', depth.checked_sub(1)?),
        b'-' | b'0'..=b'9' => number(bytes),
        b't' => bytes.strip_prefix(b"true"),
        b'f' => bytes.strip_prefix(b"false"),
        b'n' => bytes.strip_prefix(b"null"),
        _ => None,
    }
}

/// The rest of an object or array, which `end` closes.
fn container(bytes: &[u8], end: u8, depth: usize) -> Option<&[u8]> {
    let mut rest = space(bytes);
    if let Some(after) = rest.strip_prefix(&[end]) {
        return Some(after);
    }
    loop {
        if end == b'}' {
            rest = space(space(string(rest)?).strip_prefix(b":")?);
        }
        let (byte, after) = space(nested(rest, depth)?).split_first()?;
        if *byte == end {
            return Some(after);
        }
        if *byte != b',' {
            return None;
        }
        rest = space(after);
    }
}

fn number(bytes: &[u8]) -> Option<&[u8]> {
    let whole = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let mut rest = match whole.strip_prefix(b"0") {
        Some(rest) if rest.first().is_some_and(u8::is_ascii_digit) => return None,
        Some(rest) => rest,
        None => digits(whole)?,
    };
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = digits(fraction)?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let signed = exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+"));
        rest = digits(signed.unwrap_or(exponent))?;
    }
    Some(rest)
}

/// What follows one digit or more.
fn digits(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    while let Some((b'0'..=b'9', after)) = rest.split_first() {
        rest = after;
    }
    (rest.len() < bytes.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    /// What a parser takes for the first value.
    fn oracle(text: &str) -> Option<usize> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        <&RawValue>::deserialize(&mut deserializer).ok().map(|raw| raw.get().len())
    }

    proptest! {
        #[test]
        fn passes_over_what_a_parser_does(
            text in prop_oneof![
                "[\\[\\]{}\":,0-9eE+.\\\\u -]{0,16}",
                "-?(0|1|00|12)(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?[,x}. ]?",
                "(\\[|\\{\"a\" ?: ?|){0,4}(null|true|false|nul|\"(x{0,40}|\\\\\\\\|\\\\\"|\\\\u00[0-9a-g]{2}|\\\\[a-z/]|\u{e9}|\u{1}|\u{7f}){0,4}\"|1|-){1}( ?,? ?(1|\"b\":2)|){1}( ?[\\]}]){0,4}",
            ],
        ) {
            // Literals that run on are told from the end by what follows; the caller looks at that.
            let text = text.trim_start();
            if let Some(rest) = value(text.as_bytes()) {
                prop_assert!(serde_json::from_str::<&RawValue>(&text[..text.len() - rest.len()]).is_ok());
            }
            if let Some(len) = oracle(text) {
                prop_assert_eq!(value(text.as_bytes()).map(|rest| text.len() - rest.len()), Some(len));
            }
        }
    }

    #[test]
    fn leaves_deep_nesting_to_a_parser() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(value(deep(DEPTH).as_bytes()), Some(&b""[..]));
        assert_eq!(value(deep(DEPTH + 1).as_bytes()), None);
    }
}
