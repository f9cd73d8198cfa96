//! Walks a message body to its end and yields its content, whatever the transport framing.

mod chunked;
#[cfg(test)]
mod tests;

use crate::error::Result;
use chunked::Chunked;

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
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    Left(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Walker {
    /// A walker at the start of a body.
    pub fn new(framing: Framing) -> Self {
        Self {
            at: match framing {
                Framing::Empty => At::Left(0),
                Framing::Length(n) => At::Left(n),
                Framing::Chunked => At::Chunked(Chunked::default()),
                Framing::UntilClose => At::UntilClose,
            },
        }
    }

    /// Feeds transport bytes; `content` gets each run of content bytes found in them, in order.
    ///
    /// The runs are never empty. After the end nothing more is used. Fails with `BadRequest` when the chunked
    /// grammar (RFC 9112 §7.1) is broken and with `TooLarge` when a chunk line or the trailer section
    /// outgrows its bound; after an error every further feed fails. Trailer fields are checked and dropped.
    pub fn feed<'b>(&mut self, input: &'b [u8], mut content: impl FnMut(&'b [u8])) -> Result<Fed> {
        let used = match &mut self.at {
            At::Left(left) => {
                let fits = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= fits as u64;
                pass(input, fits, &mut content)
            }
            At::UntilClose => pass(input, input.len(), &mut content),
            At::Chunked(chunked) => chunked.feed(input, &mut content)?,
        };
        Ok(Fed { used, done: self.done() })
    }

    /// Whether the body has ended; an empty body has ended before the first byte.
    pub fn done(&self) -> bool {
        match &self.at {
            At::Left(left) => *left == 0,
            At::Chunked(chunked) => chunked.done(),
            At::UntilClose => false,
        }
    }

    /// Whether the connection's end is a legal end of the body here.
    pub fn may_end(&self) -> bool {
        matches!(self.at, At::UntilClose) || self.done()
    }
}

/// Hands the first `n` bytes of `input` to `content`; gives `n`.
fn pass<'b>(input: &'b [u8], n: usize, content: &mut impl FnMut(&'b [u8])) -> usize {
    match input.get(..n) {
        Some(run) if !run.is_empty() => content(run),
        _ => {}
    }
    n
}
