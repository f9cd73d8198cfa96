//! The chunked transfer coding (RFC 9112 §7.1), strictly: CRLF only, no white space around the size.

use super::pass;
use crate::error::{Error, Kind, Result};
use crate::limits;

/// Digits of the largest chunk size below 2^64.
const SIZE_DIGITS: u8 = 16;
/// Digits of a chunk size that is read at once: chunks below 4 GiB.
const PLAIN_DIGITS: usize = 8;
/// Framing bytes a sender may spend beyond a fair share of its content, so that a body of one-byte chunks
/// with long extensions cannot cost its bound many times over.
const OVERHEAD_BYTES: u64 = 64 * 1024;
/// Framing bytes that every chunk may have: the size, both CRLF and a short extension.
const FAIR_BYTES: u64 = 32;

/// Where a walk stands; every state can be left and resumed at any byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// In a chunk's size.
    #[default]
    Size,
    /// In a chunk's extensions.
    Extension,
    /// After the CR of a size line.
    SizeLf,
    /// In a chunk's data.
    Data,
    /// Before the CR that ends the data.
    DataCr,
    /// Before the LF that ends the data.
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    /// In a trailer field's name.
    TrailerName,
    /// In a trailer field's value.
    TrailerValue,
    /// After the CR of a trailer field.
    TrailerLf,
    /// After the CR of the empty line that ends the message.
    EndLf,
    /// The message ended.
    Done,
    /// The grammar was broken.
    Broken,
}

/// A walk over one chunked body.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunked {
    state: State,
    /// Size digits read of the current line.
    digits: u8,
    /// The chunk's size while in its line, then what is left of its data.
    left: u64,
    /// Bytes of the current size line, or of the trailer section.
    line: usize,
    /// Framing bytes beyond the fair share.
    overhead: u64,
}

impl Chunked {
    pub(super) fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Walks over `input`; gives how many of its bytes belong to the message.
    pub(super) fn feed<'b>(&mut self, input: &'b [u8], content: &mut impl FnMut(&'b [u8])) -> Result<usize> {
        let mut rest = input;
        while self.state != State::Done && !rest.is_empty() {
            let step = match self.state {
                State::Data => Ok(self.data(rest, content)),
                State::DataCr if rest.starts_with(b"\r\n") => self.next_size(rest),
                State::Extension | State::TrailerValue => self.text(rest),
                _ => self.byte(rest),
            };
            let used = step.inspect_err(|_| self.state = State::Broken)?;
            rest = rest.get(used..).unwrap_or(&[]);
        }
        Ok(input.len() - rest.len())
    }

    fn data<'b>(&mut self, rest: &'b [u8], content: &mut impl FnMut(&'b [u8])) -> usize {
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
        self.left -= fits as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        pass(rest, fits, content)
    }

    /// Takes the CRLF that ends a chunk and, where it lies whole in `rest` and is plain, the next size line.
    fn next_size(&mut self, rest: &[u8]) -> Result<usize> {
        (self.line, self.digits, self.state) = (0, 0, State::Size);
        let line = rest.get(2..).unwrap_or(&[]);
        let digits = line.iter().take(PLAIN_DIGITS).take_while(|b| b.is_ascii_hexdigit()).count();
        if digits == 0 || !line.get(digits..).is_some_and(|after| after.starts_with(b"\r\n")) {
            return Ok(2);
        }
        let hex = |b: &u8| u64::from(char::from(*b).to_digit(16).unwrap_or(0));
        self.left = line.iter().take(digits).fold(0, |size, b| (size << 4) | hex(b));
        self.line = digits + 2;
        self.state = self.size_line()?;
        Ok(2 + digits + 2)
    }

    /// Walks over the free text of an extension or of a trailer value, up to its CR.
    fn text(&mut self, rest: &[u8]) -> Result<usize> {
        let cr = memchr::memchr(b'\r', rest);
        let text = cr.map_or(rest, |at| rest.get(..at).unwrap_or(rest));
        if text.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err(broken("a control character in a chunk extension or trailer field"));
        }
        let used = text.len() + usize::from(cr.is_some());
        self.grow(used)?;
        if cr.is_some() {
            let value = self.state == State::TrailerValue;
            self.state = if value { State::TrailerLf } else { State::SizeLf };
        }
        Ok(used)
    }

    /// Takes one byte of the framing.
    fn byte(&mut self, rest: &[u8]) -> Result<usize> {
        let Some(&byte) = rest.first() else { return Ok(0) };
        self.grow(1)?;
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, _) => self.size_digit(byte)?,
            (State::SizeLf, b'\n') => self.size_line()?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line = 0;
                self.digits = 0;
                State::Size
            }
            (State::DataCr | State::DataLf, _) => {
                return Err(broken("a chunk's data does not end with CRLF"));
            }
            (State::Trailer, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::Trailer | State::TrailerName, _) if is_token(byte) => State::TrailerName,
            (State::Trailer | State::TrailerName, _) => return Err(broken("malformed trailer field")),
            _ => return Err(broken("a line of the chunked coding does not end with CRLF")),
        };
        Ok(1)
    }

    fn size_digit(&mut self, byte: u8) -> Result<State> {
        let Some(digit) = char::from(byte).to_digit(16) else { return Err(broken("malformed chunk size")) };
        if self.digits == SIZE_DIGITS {
            return Err(broken("a chunk size has more than 16 digits"));
        }
        self.digits += 1;
        self.left = (self.left << 4) | u64::from(digit);
        Ok(State::Size)
    }

    /// Ends a size line: data follows, or the trailer section after the last chunk.
    fn size_line(&mut self) -> Result<State> {
        let fair = FAIR_BYTES.saturating_add(self.left);
        self.overhead = self.overhead.saturating_add(self.line as u64).saturating_sub(fair);
        if self.overhead > OVERHEAD_BYTES {
            return Err(broken("the chunk framing outgrows the content"));
        }
        self.line = 0;
        Ok(if self.left == 0 { State::Trailer } else { State::Data })
    }

    /// Counts framing bytes against the bound of the line or section that they are in.
    fn grow(&mut self, by: usize) -> Result<()> {
        let trailers = matches!(
            self.state,
            State::Trailer | State::TrailerName | State::TrailerValue | State::TrailerLf | State::EndLf
        );
        let max = if trailers { limits::TRAILER_BYTES } else { limits::CHUNK_LINE_BYTES };
        self.line = self.line.saturating_add(by);
        if self.line <= max {
            return Ok(());
        }
        let detail = if trailers { "the trailer section is too large" } else { "a chunk line is too large" };
        Err(Error::new(Kind::TooLarge { got: self.line as u64, max: max as u64 }, detail))
    }
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn broken(detail: &'static str) -> Error {
    Error::bad_request(detail)
}
