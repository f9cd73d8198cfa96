//! Walks a message body to its end and yields its content, whatever the transport framing.

use crate::error::Result;

/// How a body is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    Empty,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes (responses only).
    UntilClose,
}

/// What one [`Walker::feed`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that belong to this message; the rest belongs to the next one.
    pub used: usize,
    /// Whether the message ended.
    pub done: bool,
}

/// A resumable walker over one body.
#[derive(Debug, Clone)]
pub struct Walker {
    framing: Framing,
}

impl Walker {
    /// A walker at the start of a body.
    pub fn new(framing: Framing) -> Self {
        Self { framing }
    }

    /// Feeds transport bytes; `content` gets each run of content bytes found in them, in order.
    pub fn feed<'b>(&mut self, _input: &'b [u8], _content: impl FnMut(&'b [u8])) -> Result<Fed> {
        let _ = self.framing;
        Ok(Fed { used: 0, done: false })
    }

    /// Whether the body has ended; an empty body has ended before the first byte.
    pub fn done(&self) -> bool {
        false
    }

    /// Whether the connection's end is a legal end of the body here.
    pub fn may_end(&self) -> bool {
        false
    }
}
