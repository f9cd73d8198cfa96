//! Request targets at an upstream, built so that no text of a client can leave the API's root.

use super::preset::{Lists, Preset};
use crate::error::{Error, Result};
use crate::ids::Operation;

/// Headers that are about this hop, about the client's own credentials, or ours; lower case.
const DROPPED: [&str; 27] = [
    // Hop by hop and framing (RFC 9110 §7.6.1): the upstream connection has its own.
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Credentials: the client's placeholder must not reach the provider, the provider's own is added.
    "api-key",
    "authorization",
    "cookie",
    "ocp-apim-subscription-key",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
    // Where the client stands is no business of the provider's.
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    // Would let a client pose as another product or reach another method.
    "copilot-integration-id",
    "x-http-method-override",
];

/// Whether a client's header goes on to a provider; `name` in any letter case.
///
/// All do, but for hop-by-hop and framing ones, credentials, and those of ours (`x-kars-…`, `x-handoff-token`).
/// Headers that the client's `Connection` names are the caller's to drop.
pub fn forwards_header(name: &[u8]) -> bool {
    let ours = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    !(ours(b"x-kars-")
        || ours(b"x-handoff-")
        || DROPPED.iter().any(|dropped| dropped.as_bytes().eq_ignore_ascii_case(name)))
}

pub(super) fn build(
    preset: &Preset,
    root: &str,
    operation: Operation,
    rest: &str,
    query: Option<&str>,
) -> Result<String> {
    refuse_climbing(rest)?;
    let query = query.filter(|text| !text.is_empty());
    if query.is_some_and(|text| !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')) {
        return Err(Error::bad_request("the query has a character that a request target cannot have"));
    }
    let root = if preset.at_account.contains(&operation) { "" } else { root };
    let first = rest.split('/').next().unwrap_or_default();
    let list = preset.lists.as_ref().filter(|lists| {
        operation == Operation::Read && lists.segments.iter().any(|segment| segment.as_ref() == first)
    });
    let prefix = list.map_or(&preset.prefix, |lists| &lists.prefix);
    let mut target = String::with_capacity(root.len() + prefix.len() + rest.len() + 64);
    for part in [root, prefix, "/", rest] {
        target.push_str(part);
    }
    append_query(&mut target, list, query);
    Ok(target)
}

fn append_query(target: &mut String, list: Option<&Lists>, query: Option<&str>) {
    let Some(lists) = list else {
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        return;
    };
    target.push('?');
    target.push_str(&lists.query);
    let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let own = name(&lists.query);
    for parameter in query.unwrap_or_default().split('&').filter(|p| !p.is_empty() && name(p) != own) {
        target.push('&');
        target.push_str(parameter);
    }
}

/// Upstreams decode and resolve paths each in its own way, so every form that one of them may read as `..`,
/// as an empty segment or as another separator is refused. An encoded slash is allowed (model names have
/// them) when what it separates is harmless too.
fn refuse_climbing(rest: &str) -> Result<()> {
    let fault = |what: &str| Err(Error::bad_request(format!("the path {what}")));
    let mut decoded = String::with_capacity(rest.len());
    let mut bytes = rest.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
            if !plain {
                return fault("has a character that a request target cannot have");
            }
            decoded.push(char::from(byte));
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return fault("has a % without two hexadecimal digits");
        };
        match char::from_u32(high * 16 + low) {
            Some('.' | '%' | '\\' | '\0'..='\x1f' | '\x7f') | None => {
                return fault("has an encoded dot, percent sign, backslash or control character");
            }
            Some(other) => decoded.push(other),
        }
    }
    let climbs = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default();
        name.is_empty() || name == "." || name == ".."
    };
    if decoded.split('/').any(climbs) {
        return fault("has an empty or dot segment");
    }
    Ok(())
}
