//! The common form of a request body, taken apart in one pass that decodes nothing.
//!
//! A body that is refused, or has keys with escapes, or is odd otherwise, is left to [`super::decode::parse`];
//! what is taken apart here gives what that gives.

use super::decode::{Found, KEYS, may_be_text};
use super::lists::List;
use crate::wire::scan;
use crate::wire::skip::{self, space};

/// The values of `names`, the first of [`KEYS`], in the object `body`; `None` when it is to be parsed.
pub(super) fn find<'b>(body: &'b str, names: &[&'static str]) -> Option<Found<'b>> {
    let mut found = Found::default();
    let mut seen = [false; KEYS.len()];
    let mut rest = space(space(body.as_bytes()).strip_prefix(b"{")?);
    if let Some(after) = rest.strip_prefix(b"}") {
        return space(after).is_empty().then_some(found);
    }
    loop {
        let (key, value) = member(rest)?;
        found.members += 1;
        let after = match names.iter().position(|name| name.as_bytes().eq_ignore_ascii_case(key)) {
            None => skip::value(value)?,
            Some(slot) => {
                if std::mem::replace(seen.get_mut(slot)?, true) || names.get(slot)?.as_bytes() != key {
                    return None;
                }
                take(&mut found, slot, body, value)?
            }
        };
        let (byte, after) = space(after).split_first()?;
        match byte {
            b',' => rest = space(after),
            b'}' => return space(after).is_empty().then_some(found),
            _ => return None,
        }
    }
}

/// The key at the start of `bytes`, if it is ASCII without escapes, and what begins with its value.
fn member(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = bytes.strip_prefix(b"\"")?;
    let (key, after) = text.split_at_checked(scan::plain_len(text))?;
    Some((key, space(space(after.strip_prefix(b"\"")?).strip_prefix(b":")?)))
}

/// Takes the value for the key `slot`, which begins `bytes`, the end of `body`; gives what follows.
fn take<'b>(found: &mut Found<'b>, slot: usize, body: &'b str, bytes: &'b [u8]) -> Option<&'b [u8]> {
    if let Some(value) = found.values.get_mut(slot) {
        let (taken, after) = value_at(body, bytes)?;
        *value = Some(taken);
        return Some(after);
    }
    let name = KEYS.get(slot)?;
    let (list, after) = elements(body, bytes, may_be_text(name))?;
    found.take(name, list);
    Some(after)
}

/// The value that begins `bytes`, the end of `body`, as written, and what follows it.
fn value_at<'b>(body: &'b str, bytes: &'b [u8]) -> Option<(&'b str, &'b [u8])> {
    let after = skip::value(bytes)?;
    Some((body.get(body.len() - bytes.len()..body.len() - after.len())?, after))
}

/// The list that begins `bytes`, or null, or a text where there `may_be` one, and what follows.
fn elements<'b>(body: &'b str, bytes: &'b [u8], may_be: bool) -> Option<(List<'b>, &'b [u8])> {
    let mut list = List { present: true, ..List::default() };
    let Some(inner) = bytes.strip_prefix(b"[") else {
        let (value, after) = value_at(body, bytes)?;
        list.null = value == "null";
        // A text is decoded where it is parsed, so that its escapes must be right, too.
        let is_text = may_be && value.starts_with('"') && !value.contains('\\');
        return (list.null || is_text).then_some((list, after));
    };
    let mut rest = space(inner);
    if let Some(after) = rest.strip_prefix(b"]") {
        return Some((list, after));
    }
    loop {
        let (element, after) = value_at(body, rest)?;
        list.elements.push(element);
        let (byte, after) = space(after).split_first()?;
        match byte {
            b',' => rest = space(after),
            b']' => return Some((list, after)),
            _ => return None,
        }
    }
}
