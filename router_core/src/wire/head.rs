//! Strict HTTP/1.1 heads (RFC 9110, RFC 9112): what is ambiguous is refused, never forwarded.
//!
//! httparse finds the parts; the rules it is lenient about (bare LF, repeated empty lines, the meaning of
//! the framing fields) are checked here, because two lenient parsers in a row are a request smuggler's tool.

mod rules;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;

use httparse::Status;
use memchr::memmem;

use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::wire::body::Framing;

/// How much of an unfinished long head is parsed: see [`attempt`].
const EARLY_BYTES: usize = 1024;

/// One header field, borrowed from the read buffer. The value has no surrounding white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as sent.
    pub name: &'b str,
    /// The value as sent.
    pub value: &'b [u8],
}

/// A head's fields in wire order, in a fixed array so that parsing allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'b> {
    head: &'b [u8],
    slots: [Slot; limits::HEAD_FIELDS],
    len: usize,
}

/// Where a field stands in the head. Offsets of 16 bits reach through [`limits::HEAD_BYTES`] and keep a
/// parsed head below 1 KiB: it is moved several times per message.
#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    name: u16,
    name_len: u16,
    value: u16,
    value_len: u16,
}

const _: () = assert!(limits::HEAD_BYTES <= 1 << 16);

impl<'b> Fields<'b> {
    /// The fields in wire order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'b>> + '_ {
        self.spans().map(|(name, value)| Field { name: std::str::from_utf8(name).unwrap_or(""), value })
    }

    /// The first value of `name` (any case).
    pub fn value(&self, name: &str) -> Option<&'b [u8]> {
        self.values(name).next()
    }

    /// Whether the comma-separated list field `name` holds `token` (both any case), in any of its lines.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| members(value).any(|m| m.eq_ignore_ascii_case(token.as_bytes())))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.spans().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    fn spans(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        let head = self.head;
        let part = move |start: u16, len: u16| {
            let start = usize::from(start);
            head.get(start..start + usize::from(len)).unwrap_or(&[])
        };
        let slots = self.slots.get(..self.len).unwrap_or(&[]).iter();
        slots.map(move |s| (part(s.name, s.name_len), part(s.value, s.value_len)))
    }

    /// The fields that were parsed from `head`, each line of which has to end with CRLF.
    fn of(head: &'b [u8], parsed: &[httparse::Header<'b>]) -> Result<Self> {
        let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let offset = |part: &[u8]| part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        let mut slots = [Slot::default(); limits::HEAD_FIELDS];
        for (slot, header) in slots.iter_mut().zip(parsed) {
            let name = offset(header.name.as_bytes());
            // httparse took an LF before the name, and would have taken a CR before it as nothing else.
            if name.checked_sub(2).and_then(|at| head.get(at)) != Some(&b'\r') {
                return Err(bare());
            }
            *slot = Slot {
                name: short(name),
                name_len: short(header.name.len()),
                value: short(offset(header.value)),
                value_len: short(header.value.len()),
            };
        }
        if !head.ends_with(b"\r\n\r\n") {
            return Err(bare());
        }
        Ok(Self { head, slots, len: parsed.len() })
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
/// CONNECT (there the port and `Host` may be missing) or `*` for OPTIONS (§3.2), of visible ASCII without `#` and `\`.
/// Hosts are those that [`crate::wire::authority`] reads.
/// Fails with `TooLarge` above [`limits::HEAD_BYTES`], else with `BadRequest` and the rule that was broken.
pub fn request(bytes: &[u8]) -> Result<Option<RequestHead<'_>>> {
    let Some(skipped) = leading_line(bytes)? else { return Ok(None) };
    let bytes = window(bytes.get(skipped..).unwrap_or(&[]));
    let mut slots = [const { MaybeUninit::uninit() }; limits::HEAD_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let end = match head.parse_with_uninit_headers(attempt(bytes), &mut slots).map_err(grammar)? {
        Status::Complete(end) => end,
        Status::Partial => return unfinished(bytes).map(|()| None),
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(grammar(httparse::Error::Token));
    };
    let fields = Fields::of(bytes.get(..end).unwrap_or(&[]), head.headers)?;
    rules::target(method, target)?;
    let seen = rules::Seen::scan(head.headers)?;
    let http10 = minor == 0;
    seen.host(method, http10)?;
    Ok(Some(RequestHead {
        method,
        target,
        http10,
        fields,
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
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(Error::bad_request("an empty line stands before the status line"));
    }
    let bytes = window(bytes);
    let mut slots = [const { MaybeUninit::uninit() }; limits::HEAD_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut head, attempt(bytes), &mut slots);
    let end = match parsed.map_err(grammar)? {
        Status::Complete(end) => end,
        Status::Partial => return unfinished(bytes).map(|()| None),
    };
    let (Some(status @ 100..), Some(minor)) = (head.code, head.version) else {
        return Err(Error::bad_request("the status code is below 100"));
    };
    let fields = Fields::of(bytes.get(..end).unwrap_or(&[]), head.headers)?;
    let seen = rules::Seen::scan(head.headers)?;
    let http10 = minor == 0;
    let framing = seen.response_framing(method, status, http10)?;
    let keep_alive = framing != Framing::UntilClose && seen.keep_alive(http10);
    Ok(Some(ResponseHead { status, fields, framing, keep_alive, len: end }))
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

/// As much of `bytes` as a head may have, and one byte more.
fn window(bytes: &[u8]) -> &[u8] {
    bytes.get(..=limits::HEAD_BYTES).unwrap_or(bytes)
}

/// The part of `window` that is worth parsing: all of it when a head may end there; else only its start, enough
/// to refuse at once what is not HTTP, so that a head that comes byte by byte is not parsed whole each time.
fn attempt(window: &[u8]) -> &[u8] {
    match window.get(..EARLY_BYTES) {
        Some(early) if memmem::find(window, b"\r\n\r\n").is_none() => early,
        _ => window.get(..limits::HEAD_BYTES).unwrap_or(window),
    }
}

/// Checks a head whose end is not there yet: it may still end within the bounds, and no line of it ends
/// without CR.
fn unfinished(window: &[u8]) -> Result<()> {
    let mut line = 0;
    for (lines, at) in memchr::memchr_iter(b'\n', window).enumerate() {
        if at == line || window.get(at - 1) != Some(&b'\r') {
            return Err(bare());
        }
        if lines > limits::HEAD_FIELDS {
            return Err(grammar(httparse::Error::TooManyHeaders));
        }
        line = at + 1;
    }
    if window.len() < limits::HEAD_BYTES {
        return Ok(());
    }
    let (got, max) = (window.len() as u64, limits::HEAD_BYTES as u64);
    Err(Error::new(Kind::TooLarge { got, max }, "the message head is too large"))
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
