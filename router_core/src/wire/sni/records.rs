//! The records of a connection's first handshake message (RFC 8446 §5.1).

use std::borrow::Cow;

use crate::error::{Error, Kind, Result};
use crate::limits;

/// The content type of handshake records.
pub(super) const HANDSHAKE: u8 = 0x16;
/// The handshake type of a client hello.
const CLIENT_HELLO: u8 = 1;
/// Most plaintext of one record, with what old stacks add.
const RECORD_BYTES: usize = 16_384 + 256;
/// A record's type, version and length.
const HEADER_BYTES: usize = 5;
/// A handshake message's type and length.
const MESSAGE_HEADER_BYTES: usize = 4;

/// The body of the client hello at the start of `bytes`, borrowed when one record holds it; `None` when bytes are
/// missing. Lengths are judged as soon as they are announced.
pub(super) fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>> {
    let mut walk = Walk::default();
    let mut rest = bytes;
    while walk.missing() > 0 {
        // What a longer hello would be refused for is refused as early as its bytes cannot fit any more.
        if bytes.len() - rest.len() + HEADER_BYTES >= limits::CLIENT_HELLO_BYTES {
            return Err(too_large(bytes.len()));
        }
        let Some(len) = header(rest)? else { return Ok(None) };
        let here = rest.get(HEADER_BYTES..).unwrap_or(&[]);
        let (part, after) = here.split_at_checked(len).unwrap_or((here, &[]));
        walk.record(part, len)?;
        if bytes.len() - rest.len() + HEADER_BYTES + len > limits::CLIENT_HELLO_BYTES {
            return Err(too_large(bytes.len() - rest.len() + HEADER_BYTES + len));
        }
        if part.len() < len {
            return Ok(None);
        }
        rest = after;
    }
    Ok(Some(walk.body(bytes)))
}

/// How far the message has come.
#[derive(Debug, Default)]
struct Walk {
    /// The message's first bytes, as many as there are.
    head: [u8; MESSAGE_HEADER_BYTES],
    /// Bytes of it that the records so far announce.
    announced: usize,
    /// Bytes of its header that are there.
    known: usize,
    /// Records so far.
    records: usize,
}

impl Walk {
    /// Takes a record of `len` bytes, `part` of which are there.
    fn record(&mut self, part: &[u8], len: usize) -> Result<()> {
        for (slot, byte) in self.head.iter_mut().skip(self.known).zip(part) {
            *slot = *byte;
            self.known += 1;
        }
        if self.known > 0 && self.head.first() != Some(&CLIENT_HELLO) {
            return Err(Error::bad_request("the first handshake message is no client hello"));
        }
        self.announced += len;
        self.records += 1;
        let Some(size) = self.size() else { return Ok(()) };
        if size > limits::CLIENT_HELLO_BYTES {
            return Err(too_large(size));
        }
        if self.announced > size {
            return Err(Error::bad_request("bytes follow the client hello within its record"));
        }
        Ok(())
    }

    /// Bytes of the message with its header, once its header is there.
    fn size(&self) -> Option<usize> {
        let [_, a, b, c] = self.head;
        let body = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        (self.known == MESSAGE_HEADER_BYTES).then_some(MESSAGE_HEADER_BYTES + body)
    }

    /// Bytes of the message that no record has announced yet; more than none while its header is not complete.
    fn missing(&self) -> usize {
        self.size().unwrap_or(usize::MAX).saturating_sub(self.announced)
    }

    /// The body of a message whose records are all in `bytes`.
    fn body<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        if self.records == 1 {
            let start = HEADER_BYTES + MESSAGE_HEADER_BYTES;
            return Cow::Borrowed(bytes.get(start..HEADER_BYTES + self.announced).unwrap_or(&[]));
        }
        let mut message = Vec::with_capacity(self.announced);
        let mut rest = bytes;
        while let (Ok(Some(len)), true) = (header(rest), message.len() < self.announced) {
            let part = rest.get(HEADER_BYTES..HEADER_BYTES + len).unwrap_or(&[]);
            message.extend_from_slice(part);
            rest = rest.get(HEADER_BYTES + len..).unwrap_or(&[]);
        }
        message.drain(..MESSAGE_HEADER_BYTES.min(message.len()));
        Cow::Owned(message)
    }
}

/// The length of the record that starts here; `None` when its header is not complete.
fn header(bytes: &[u8]) -> Result<Option<usize>> {
    let at = |i: usize| bytes.get(i).copied();
    match at(0) {
        None | Some(HANDSHAKE) => {}
        Some(0x80..) => {
            return Err(Error::bad_request("an SSLv2 hello, or no TLS: a client must speak TLS 1.2 or 1.3"));
        }
        Some(0x14 | 0x15 | 0x17) => {
            return Err(Error::bad_request("a record of another type comes before the client hello ends"));
        }
        Some(_) => return Err(Error::bad_request("no TLS: the first byte begins no handshake record")),
    }
    if at(1).is_some_and(|major| major != 3) || at(2).is_some_and(|minor| minor > 3) {
        return Err(Error::bad_request("a record's version is not 3.0 to 3.3"));
    }
    let (Some(high), Some(low)) = (at(3), at(4)) else { return Ok(None) };
    match usize::from(high) << 8 | usize::from(low) {
        0 => Err(Error::bad_request("a handshake record is empty")),
        len @ ..=RECORD_BYTES => Ok(Some(len)),
        _ => Err(Error::bad_request("a record is longer than TLS allows")),
    }
}

fn too_large(got: usize) -> Error {
    let (got, max) = (got as u64, limits::CLIENT_HELLO_BYTES as u64);
    Error::new(Kind::TooLarge { got, max }, "the client hello is too large")
}
