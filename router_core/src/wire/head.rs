//! Strict HTTP/1.1 heads (RFC 9110, RFC 9112): what is ambiguous is refused, never forwarded.
//!
//! httparse finds the parts; the rules it is lenient about (bare LF, repeated empty lines, the meaning of
//! the framing fields) are checked here, because two lenient parsers in a row are a request smuggler's tool.

mod rules;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;

use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::wire::body::Framing;

/// One header field, borrowed from the read buffer. The value has no surrounding white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as sent.
    pub name: &'b str,
    /// The value as sent.
    pub value: &'b [u8],
}

impl Field<'_> {
    const NONE: Self = Self { name: "", value: &[] };
}

/// A head's fields in wire order, in a fixed array so that parsing allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'b> {
    slots: [Field<'b>; limits::HEAD_FIELDS],
    len: usize,
}

impl<'b> Fields<'b> {
    /// The fields in wire order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field<'b>> {
        self.slots.get(..self.len).unwrap_or(&[]).iter()
    }

    /// The first value of `name` (any case).
    pub fn value(&self, name: &str) -> Option<&'b [u8]> {
        self.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value)
    }

    /// Whether the comma-separated list field `name` holds `token` (both any case), in any of its lines.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let mut lines = self.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
        lines.any(|f| members(f.value).any(|m| m.eq_ignore_ascii_case(token.as_bytes())))
    }

    fn copied(parsed: &[httparse::Header<'b>]) -> Self {
        let mut slots = [Field::NONE; limits::HEAD_FIELDS];
        for (slot, header) in slots.iter_mut().zip(parsed) {
            *slot = Field { name: header.name, value: header.value };
        }
        Self { slots, len: parsed.len().min(limits::HEAD_FIELDS) }
    }
}

impl<'f, 'b> IntoIterator for &'f Fields<'b> {
    type Item = &'f Field<'b>;
    type IntoIter = std::slice::Iter<'f, Field<'b>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), without white space around them.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// A request head whose framing is certain.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'b> {
    /// The method, as sent.
    pub method: &'b str,
    /// The request target, as sent: origin-form, or absolute-form when a proxy is addressed.
    pub target: &'b str,
    /// Whether the version is HTTP/1.0.
    pub http10: bool,
    /// The header fields.
    pub fields: Fields<'b>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the connection persists after this exchange.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expect_continue: bool,
    /// Bytes of the head, with its final empty line.
    pub len: usize,
}

/// A response head whose framing is certain.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'b> {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The header fields.
    pub fields: Fields<'b>,
    /// How the body is delimited (given the request's method).
    pub framing: Framing,
    /// Whether the upstream keeps the connection.
    pub keep_alive: bool,
    /// Bytes of the head, with its final empty line.
    pub len: usize,
}

/// Reads a request head from the start of `bytes`; `None` when more bytes are needed.
///
/// Accepts HTTP/1.0 and HTTP/1.1. One empty line before the request line is skipped (RFC 9112 §2.2) and
/// counted in `len`. The target is in origin-form, absolute-form (`http`, `https`), authority-form for
/// CONNECT or `*` for OPTIONS (§3.2), of visible ASCII without `#` and `\`.
/// Fails with `TooLarge` above [`limits::HEAD_BYTES`], else with `BadRequest` and the rule that was broken.
pub fn request(bytes: &[u8]) -> Result<Option<RequestHead<'_>>> {
    let Some(skipped) = leading_line(bytes)? else { return Ok(None) };
    let bytes = bytes.get(skipped..).unwrap_or(&[]);
    let mut slots = [const { MaybeUninit::uninit() }; limits::HEAD_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let Some(end) = head_end(bytes)? else {
        let parsed = head.parse_with_uninit_headers(early(bytes), &mut slots);
        return parsed.map(|_| None).map_err(grammar);
    };
    let whole = bytes.get(..end).unwrap_or(&[]);
    let parsed = head.parse_with_uninit_headers(whole, &mut slots);
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(parsed.map_or_else(grammar, |_| bare()));
    };
    complete(parsed, end)?;
    rules::target(method, target)?;
    let seen = rules::Seen::scan(head.headers)?;
    let http10 = minor == 0;
    seen.host(http10)?;
    Ok(Some(RequestHead {
        method,
        target,
        http10,
        fields: Fields::copied(head.headers),
        framing: seen.request_framing(method, http10)?,
        keep_alive: seen.keep_alive(http10),
        expect_continue: seen.expect_continue && !http10,
        len: skipped.saturating_add(end),
    }))
}

/// Reads a response head to a request of `method`; `None` when more bytes are needed.
///
/// Responses to HEAD, 1xx, 204, 304 and a 2xx to CONNECT have no body, whatever their fields say (RFC 9112
/// §6.3); one without framing fields lasts until the connection closes. No empty line may come first.
/// Errors are those of [`request`].
pub fn response<'b>(bytes: &'b [u8], method: &str) -> Result<Option<ResponseHead<'b>>> {
    let mut slots = [const { MaybeUninit::uninit() }; limits::HEAD_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(Error::bad_request("an empty line stands before the status line"));
    }
    let Some(end) = head_end(bytes)? else {
        let parsed = config.parse_response_with_uninit_headers(&mut head, early(bytes), &mut slots);
        return parsed.map(|_| None).map_err(grammar);
    };
    let whole = bytes.get(..end).unwrap_or(&[]);
    let parsed = config.parse_response_with_uninit_headers(&mut head, whole, &mut slots);
    let (Some(status), Some(minor)) = (head.code, head.version) else {
        return Err(parsed.map_or_else(grammar, |_| bare()));
    };
    complete(parsed, end)?;
    if status < 100 {
        return Err(Error::bad_request("the status code is below 100"));
    }
    let seen = rules::Seen::scan(head.headers)?;
    let http10 = minor == 0;
    let framing = seen.response_framing(method, status, http10)?;
    Ok(Some(ResponseHead {
        status,
        fields: Fields::copied(head.headers),
        framing,
        keep_alive: framing != Framing::UntilClose && seen.keep_alive(http10),
        len: end,
    }))
}

/// Bytes of the one empty line that may come before a request line; `None` when that is not known yet.
fn leading_line(bytes: &[u8]) -> Result<Option<usize>> {
    match bytes {
        [] | [b'\r'] | [b'\r', b'\n'] => Ok(None),
        [b'\r', b'\n', b'\r' | b'\n', ..] => {
            Err(Error::bad_request("several empty lines stand before the head"))
        }
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\r' | b'\n', ..] => Err(bare()),
        _ => Ok(Some(0)),
    }
}

/// Where the head ends, after its empty line; `None` when that line is not there yet. Refuses line ends other
/// than CRLF and heads above the bounds, so that repeated calls on a growing head stay cheap.
fn head_end(bytes: &[u8]) -> Result<Option<usize>> {
    let window = bytes.get(..limits::HEAD_BYTES).unwrap_or(bytes);
    let (mut line, mut lines) = (0, 0);
    for at in memchr::memchr_iter(b'\n', window) {
        if at == line || window.get(at - 1) != Some(&b'\r') {
            return Err(bare());
        }
        if at == line + 1 {
            return Ok(Some(at + 1));
        }
        line = at + 1;
        lines += 1;
        if lines > limits::HEAD_FIELDS + 1 {
            return Err(grammar(httparse::Error::TooManyHeaders));
        }
    }
    if window.len() < limits::HEAD_BYTES {
        return Ok(None);
    }
    let (got, max) = (bytes.len() as u64, limits::HEAD_BYTES as u64);
    Err(Error::new(Kind::TooLarge { got, max }, "the message head is too large"))
}

/// The part of an unfinished head that is checked at once: enough to refuse what is not HTTP without waiting
/// for an empty line, and small enough that a head sent byte by byte costs no more than its square of this.
fn early(bytes: &[u8]) -> &[u8] {
    bytes.get(..1024).unwrap_or(bytes)
}

fn complete(parsed: httparse::Result<usize>, end: usize) -> Result<()> {
    match parsed {
        Ok(httparse::Status::Complete(n)) if n == end => Ok(()),
        Ok(_) => Err(bare()),
        Err(e) => Err(grammar(e)),
    }
}

fn bare() -> Error {
    Error::bad_request("a line of the head does not end with CRLF")
}

fn grammar(cause: httparse::Error) -> Error {
    Error::bad_request(match cause {
        httparse::Error::HeaderName => "malformed header name",
        httparse::Error::HeaderValue => "malformed header value",
        httparse::Error::NewLine => "a line of the head does not end with CRLF",
        httparse::Error::Status => "malformed status line",
        httparse::Error::Token => "malformed request line",
        httparse::Error::TooManyHeaders => "too many header fields",
        httparse::Error::Version => "malformed or unknown HTTP version",
    })
}
