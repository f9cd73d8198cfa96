//! What the client of a fetch is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::limits;
use crate::proxy::forward::outbound::Head;
use crate::proxy::server::Memory;

/// Fields of an answer that the agent does not see: credentials, and what concerns the connection (the reference's list).
const HIDDEN: [&str; 7] = [
    "set-cookie",
    "authorization",
    "x-api-key",
    "x-auth-token",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
];

/// What goes back to the client.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// JSON.
    pub text: Vec<u8>,
}

/// The answer to tell.
pub struct Fetched {
    /// Its head.
    pub head: Head,
    /// Its content, up to the bound.
    pub content: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
    /// The last URL and the redirects that led to it, where some were to be followed.
    pub followed: Option<(String, u8)>,
    /// What the content holds of the memory for bodies.
    pub memory: Memory,
}

/// Why there is no answer: the body of an error.
#[derive(Serialize, Default)]
pub struct Told<'a> {
    /// For people.
    pub error: String,
    /// The URL without its query; empty when it could not be read.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub url: &'a str,
    /// The nearest change that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'a str>,
    /// A word for machines: an [`EgressReason`](crate::ids::EgressReason) or an error step.
    pub reason: &'static str,
    /// What the audit has it under.
    pub decision_id: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    status: u16,
    headers: BTreeMap<&'a str, String>,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirects: Option<u8>,
}

/// `{"status","headers","body"}`, and where redirects were to be followed `"url","redirects"`.
pub fn told(fetched: Fetched) -> Reply {
    let Fetched { head, content, truncated, followed, memory } = fetched;
    let headers = shown_fields(&head.fields);
    let body = text(content, truncated);
    let url = followed.as_ref().map(|(url, _)| url.as_str());
    let redirects = followed.as_ref().map(|(_, n)| *n);
    let answer = Answer { status: head.status, headers, body: &body, url, redirects };
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    drop(memory);
    Reply { status: 200, text }
}

/// The fields that the agent sees; those of one name are joined (RFC 9110 §5.3).
fn shown_fields(fields: &[(String, Vec<u8>)]) -> BTreeMap<&str, String> {
    let mut shown: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in fields.iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str())) {
        let value = String::from_utf8_lossy(value);
        match shown.get_mut(name.as_str()) {
            Some(all) => all.extend([", ", &value]),
            None => _ = shown.insert(name, value.into_owned()),
        }
    }
    shown
}

/// Content as text. A character that the bound cuts in two goes, what is no UTF-8 is replaced.
fn text(mut content: Vec<u8>, truncated: bool) -> String {
    if truncated {
        let whole = whole_chars(&content);
        content.truncate(whole);
    }
    let mut text = match String::from_utf8(content) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    };
    if truncated {
        // Writing to a string cannot fail.
        let _ = write!(text, "... [truncated at {} bytes]", limits::FETCH_BODY_BYTES);
    }
    text
}

/// The length without a character that is cut off at the end (RFC 3629 §3: the first byte tells how many belong to it).
fn whole_chars(content: &[u8]) -> usize {
    let tail = content.iter().rev().take(3).enumerate().find(|(_, byte)| **byte & 0xc0 != 0x80);
    let Some((after, first)) = tail else { return content.len() };
    let length = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    if length > after + 1 { content.len() - after - 1 } else { content.len() }
}

#[cfg(test)]
mod tests;
