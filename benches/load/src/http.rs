//! As much of HTTP/1.1 as both ends of a benchmark need: where a head ends, what a header says, where a body ends.
//!
//! It trusts its peers to be well-formed and is no model for a proxy that must not.

use std::ops::Range;

use crate::args::Fallible;

/// Bytes of the head including its empty line, once it is complete.
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Where the value of a header lies in `head`, without the spaces around it.
pub fn header(head: &[u8], name: &str) -> Option<Range<usize>> {
    let mut start = 0;
    while let Some(len) = memchr::memchr(b'\n', head.get(start..)?) {
        let line = head.get(start..start + len)?;
        if let Some((key, value)) = line.split_at_checked(name.len())
            && key.eq_ignore_ascii_case(name.as_bytes())
            && value.first() == Some(&b':')
        {
            let begin = start + name.len() + 1;
            let trimmed = value.get(1..)?.trim_ascii();
            let lead = value.len() - 1 - value.get(1..)?.trim_ascii_start().len();
            return Some(begin + lead..begin + lead + trimmed.len());
        }
        start += len + 1;
    }
    None
}

/// The status of a response head; 0 when there is none.
pub fn status(head: &[u8]) -> u16 {
    let digits = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Finds the end of a body, whatever pieces it arrives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// So many bytes to come.
    Length(usize),
    /// Chunks until the empty one.
    Chunked(Chunk),
}

/// Where in the chunked coding the next byte belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// The hexadecimal size read so far.
    Size(usize),
    /// Behind the size, in an extension or before the line's end.
    SizeEnd(usize),
    /// So many bytes of the chunk to come.
    Data(usize),
    /// The line end behind the data.
    DataEnd,
    /// Trailers; true at the start of a line.
    Trailer(bool),
    /// Behind the end.
    Done,
}

impl Body {
    /// How the body behind this head is framed. A head that says nothing has no body (true of requests,
    /// and no upstream here answers up to the connection's end).
    pub fn of(head: &[u8]) -> Fallible<Self> {
        if let Some(length) = header(head, "content-length").and_then(|at| head.get(at)) {
            return Ok(Self::Length(std::str::from_utf8(length)?.parse()?));
        }
        match header(head, "transfer-encoding") {
            Some(_) => Ok(Self::Chunked(Chunk::Size(0))),
            None => Ok(Self::Length(0)),
        }
    }

    /// True once every byte has been fed.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// Feeds the next bytes, hands each piece of payload to `sink` and returns how many bytes belonged to
    /// the body: all of them unless it ended inside.
    pub fn feed(&mut self, bytes: &mut [u8], sink: &mut impl FnMut(&mut [u8])) -> usize {
        match self {
            Self::Length(left) => {
                let len = bytes.len().min(*left);
                *left -= len;
                if let Some(payload) = bytes.get_mut(..len) {
                    sink(payload);
                }
                len
            }
            Self::Chunked(chunk) => chunk.feed(bytes, sink),
        }
    }
}

impl Chunk {
    fn feed(&mut self, bytes: &mut [u8], sink: &mut impl FnMut(&mut [u8])) -> usize {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Self::Data(left) = *self {
                let len = left.min(bytes.len() - at);
                if let Some(payload) = bytes.get_mut(at..at + len) {
                    sink(payload);
                }
                at += len;
                *self = if len == left { Self::DataEnd } else { Self::Data(left - len) };
                continue;
            }
            at += 1;
            *self = self.step(byte);
            if *self == Self::Done {
                break;
            }
        }
        at
    }

    fn step(&self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Size(0) | Self::SizeEnd(0), b'\n') => Self::Trailer(true),
            (&Self::Size(size) | &Self::SizeEnd(size), b'\n') => Self::Data(size),
            (&Self::Size(size), _) => match char::from(byte).to_digit(16) {
                Some(digit) => Self::Size(size << 4 | digit as usize),
                None => Self::SizeEnd(size),
            },
            (Self::DataEnd, b'\n') => Self::Size(0),
            (Self::Trailer(true), b'\n') => Self::Done,
            (Self::Trailer(at_start), _) => Self::Trailer(byte == b'\n' || (*at_start && byte == b'\r')),
            (same, _) => same.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, usize, bool) {
        let mut body = Body::Chunked(Chunk::Size(0));
        let (mut payload, mut consumed) = (Vec::new(), 0);
        for piece in pieces {
            if !body.is_done() {
                consumed += body.feed(&mut piece.to_vec(), &mut |bytes| payload.extend_from_slice(bytes));
            }
        }
        (payload, consumed, body.is_done())
    }

    #[test]
    fn finds_the_end_of_chunks_however_they_are_split() {
        let whole: &[u8] = b"5\r\nhello\r\n1a;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nt: 1\r\n\r\nNEXT";
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
                let (payload, consumed, done) = decode(&pieces);
                assert_eq!(payload, b"helloabcdefghijklmnopqrstuvwxyz");
                assert!(done);
                assert!(consumed >= whole.len() - 4 && consumed <= whole.len());
            }
        }
        assert_eq!(decode(&[whole]).1, whole.len() - 4);
    }

    #[test]
    fn waits_for_the_empty_line_behind_the_last_chunk() {
        assert!(!decode(&[b"0\r\n"]).2);
        assert!(decode(&[b"0\r\n\r\n"]).2);
    }

    #[test]
    fn reads_headers_without_regard_to_case() {
        let head = b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length:  12 \r\n\r\n";
        assert_eq!(&head[header(head, "content-length").unwrap()], b"12");
        assert_eq!(header(head, "content"), None);
        assert_eq!(Body::of(head).unwrap(), Body::Length(12));
        assert_eq!(status(head), 200);
        assert_eq!(head_len(head), Some(head.len()));
    }
}
