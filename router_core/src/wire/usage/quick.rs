//! A `usage` object in the form that providers write it, read in one short pass.
//!
//! What is not of that form (escapes, fractions, negative numbers, arrays, deep nesting, an object that is not
//! whole) is left to [`Report::parse`]; what is, gives what that gives.

use super::report::{Numbers, Report};
use crate::wire::scan;
use crate::wire::skip::space;

/// Digits that fit a `u64` whatever they are.
const DIGITS: usize = 19;

/// The report of the object at the start of `bytes` and the object's length; `None` when it is to be parsed.
pub(super) fn read(bytes: &[u8]) -> Option<(Option<Report>, usize)> {
    let mut numbers = Numbers::default();
    let rest = object(bytes, |name, value| {
        let slot = match name {
            b"prompt_tokens" => &mut numbers.prompt,
            b"input_tokens" => &mut numbers.input,
            b"completion_tokens" => &mut numbers.completion,
            b"output_tokens" => &mut numbers.output,
            b"total_tokens" => &mut numbers.total,
            b"cache_read_input_tokens" => &mut numbers.cache_read,
            b"cache_creation_input_tokens" => &mut numbers.cache_write,
            b"prompt_tokens_details" => return detail(value, b"cached_tokens", &mut numbers.prompt_cached),
            b"input_tokens_details" => return detail(value, b"cached_tokens", &mut numbers.input_cached),
            b"completion_tokens_details" => {
                return detail(value, b"reasoning_tokens", &mut numbers.completion_reasoning);
            }
            b"output_tokens_details" => {
                return detail(value, b"reasoning_tokens", &mut numbers.output_reasoning);
            }
            _ => return detail(value, b"", &mut None),
        };
        *slot = None;
        if value.first() == Some(&b'{') { detail(value, b"", &mut None) } else { scalar(value, slot) }
    })?;
    Some((numbers.report(), bytes.len() - rest.len()))
}

/// Any value; the number `name` of it goes to `slot`, none if there is no such. Gives what follows.
fn detail<'b>(value: &'b [u8], name: &'static [u8], slot: &mut Option<u64>) -> Option<&'b [u8]> {
    *slot = None;
    if value.first() != Some(&b'{') {
        return scalar(value, &mut None);
    }
    object(value, |key, value| {
        let mut number = None;
        let rest = scalar(value, &mut number)?;
        if key == name {
            *slot = number;
        }
        Some(rest)
    })
}

/// An object, each of whose members `member` gets as its name and what begins with its value, to give back what
/// follows the value. Gives what follows the object.
#[inline]
fn object<'b>(
    bytes: &'b [u8],
    mut member: impl FnMut(&'b [u8], &'b [u8]) -> Option<&'b [u8]>,
) -> Option<&'b [u8]> {
    let mut rest = space(bytes.strip_prefix(b"{")?);
    if let Some(after) = rest.strip_prefix(b"}") {
        return Some(after);
    }
    loop {
        let text = rest.strip_prefix(b"\"")?;
        let (name, after) = text.split_at_checked(scan::plain_len(text))?;
        let value = space(space(after.strip_prefix(b"\"")?).strip_prefix(b":")?);
        let (byte, after) = space(member(name, value)?).split_first()?;
        match byte {
            b',' => rest = space(after),
            b'}' => return Some(after),
            _ => return None,
        }
    }
}

/// A number, which goes to `slot`, or a string or literal. Gives what follows.
#[inline]
fn scalar<'b>(value: &'b [u8], slot: &mut Option<u64>) -> Option<&'b [u8]> {
    match value.first()? {
        b'0'..=b'9' => {
            let (mut number, mut rest) = (0_u64, value);
            while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
                number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                rest = after;
            }
            let digits = value.len() - rest.len();
            if digits > DIGITS || (digits > 1 && value.first() == Some(&b'0')) {
                return None;
            }
            *slot = Some(number);
            Some(rest)
        }
        b'"' => {
            let text = value.get(1..)?;
            text.get(scan::plain_len(text)..)?.strip_prefix(b"\"")
        }
        _ => {
            let literals: [&[u8]; 3] = [b"null", b"true", b"false"];
            literals.iter().find_map(|literal| value.strip_prefix(*literal))
        }
    }
}
