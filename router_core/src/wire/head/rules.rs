//! What a head's fields mean for framing, persistence and routing; every doubt is an error.

use super::members;
use crate::error::{Error, Result};
use crate::wire::authority;
use crate::wire::body::Framing;

/// What the fields that frame and route a message say, taken in one pass.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each one is the presence of a field of its own")]
pub(super) struct Seen {
    length: Option<u64>,
    chunked: bool,
    has_host: bool,
    close: bool,
    persist: bool,
    pub(super) expect_continue: bool,
}

impl Seen {
    /// Reads the framing fields. Refuses a `Content-Length` that is repeated, even alike, or not 1*DIGIT below
    /// 2^64; a `Transfer-Encoding` that is repeated or not exactly `chunked`; both together (RFC 9112 §6.1
    /// allows to reject it, and smuggling needs it); and a `Host` that is repeated or malformed (§3.2).
    pub(super) fn scan(fields: &[httparse::Header<'_>]) -> Result<Self> {
        let mut seen = Self::default();
        for field in fields {
            // The lengths sort out nearly every other field before a comparison.
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => seen.take_host(field.value)?,
                6 if field.name.eq_ignore_ascii_case("expect") => {
                    seen.expect_continue |=
                        members(field.value).any(|m| m.eq_ignore_ascii_case(b"100-continue"));
                }
                10 if field.name.eq_ignore_ascii_case("connection") => seen.take_connection(field.value),
                14 if field.name.eq_ignore_ascii_case("content-length") => seen.take_length(field.value)?,
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    seen.take_coding(field.value)?;
                }
                _ => {}
            }
        }
        if seen.chunked && seen.length.is_some() {
            return Err(Error::bad_request("both Content-Length and Transfer-Encoding are there"));
        }
        Ok(seen)
    }

    fn take_host(&mut self, value: &[u8]) -> Result<()> {
        if std::mem::replace(&mut self.has_host, true) {
            return Err(Error::bad_request("Host is repeated"));
        }
        if authority::well_formed(value) { Ok(()) } else { Err(Error::bad_request("malformed Host")) }
    }

    fn take_connection(&mut self, value: &[u8]) {
        for member in members(value) {
            self.close |= member.eq_ignore_ascii_case(b"close");
            self.persist |= member.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn take_length(&mut self, value: &[u8]) -> Result<()> {
        if self.length.is_some() {
            return Err(Error::bad_request("Content-Length is repeated"));
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = value.iter().try_fold(0_u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b & 0xf)));
        match length {
            Some(_) if digits => self.length = length,
            _ => return Err(Error::bad_request("Content-Length is not a whole number below 2^64")),
        }
        Ok(())
    }

    fn take_coding(&mut self, value: &[u8]) -> Result<()> {
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Error::bad_request("Transfer-Encoding is repeated"));
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        Err(Error::bad_request("Transfer-Encoding is not exactly 'chunked'"))
    }

    /// Checks that HTTP/1.1 requests name their host (RFC 9112 §3.2). Old clients leave it out of a CONNECT, whose target
    /// is the host.
    pub(super) fn host(&self, method: &str, http10: bool) -> Result<()> {
        if self.has_host || http10 || method == "CONNECT" {
            return Ok(());
        }
        Err(Error::bad_request("Host is missing"))
    }

    /// Whether the connection persists (RFC 9112 §9.3).
    pub(super) fn keep_alive(&self, http10: bool) -> bool {
        !self.close && (!http10 || self.persist)
    }

    /// The framing of a request (RFC 9112 §6.3).
    pub(super) fn request_framing(&self, method: &str, http10: bool) -> Result<Framing> {
        let framing = self.framing(http10)?.unwrap_or(Framing::Empty);
        if method == "CONNECT" && !matches!(framing, Framing::Empty | Framing::Length(0)) {
            return Err(Error::bad_request("a CONNECT request has a body"));
        }
        Ok(framing)
    }

    /// The framing of a response to `method` (RFC 9112 §6.3). A 1xx or 204 that announces a body is refused
    /// (RFC 9110 §8.6, RFC 9112 §6.1 forbid it): some recipients would read one.
    pub(super) fn response_framing(&self, method: &str, status: u16, http10: bool) -> Result<Framing> {
        let framing = self.framing(http10)?;
        let never = matches!(status, 100..=199 | 204);
        if never && !matches!(framing, None | Some(Framing::Length(0))) {
            return Err(Error::bad_request("a response without a body announces one"));
        }
        let tunnel = method == "CONNECT" && matches!(status, 200..=299);
        if never || status == 304 || method == "HEAD" || tunnel {
            return Ok(Framing::Empty);
        }
        Ok(framing.unwrap_or(Framing::UntilClose))
    }

    fn framing(&self, http10: bool) -> Result<Option<Framing>> {
        if self.chunked && http10 {
            return Err(Error::bad_request("Transfer-Encoding in an HTTP/1.0 message"));
        }
        Ok(if self.chunked { Some(Framing::Chunked) } else { self.length.map(Framing::Length) })
    }
}

/// Checks the request target's form for its method (RFC 9112 §3.2). A CONNECT may leave out the port, as old clients do.
pub(super) fn target(method: &str, target: &str) -> Result<()> {
    let bytes = target.as_bytes();
    let form = match bytes.first() {
        _ if method == "CONNECT" => authority::well_formed(bytes),
        Some(b'/') => true,
        Some(b'*') => method == "OPTIONS" && bytes.len() == 1,
        _ => authority::well_formed_url(bytes),
    };
    if form && authority::visible(bytes) {
        Ok(())
    } else {
        Err(Error::bad_request("malformed request target"))
    }
}
