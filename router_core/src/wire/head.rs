//! Strict HTTP/1.1 heads (RFC 9110, RFC 9112): what is ambiguous is refused, never forwarded.

use crate::error::Result;
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
    pub fn lists(&self, _name: &str, _token: &str) -> bool {
        false
    }
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
pub fn request(_bytes: &[u8]) -> Result<Option<RequestHead<'_>>> {
    Ok(None)
}

/// Reads a response head to a request of `method`; `None` when more bytes are needed.
pub fn response<'b>(_bytes: &'b [u8], _method: &str) -> Result<Option<ResponseHead<'b>>> {
    Ok(None)
}
