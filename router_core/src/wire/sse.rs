//! Server-sent events as bytes (WHATWG HTML §9.2): where events end, across any split of the stream.
//!
//! A line ends with LF, CR or CRLF, an event with a blank line. A CR that ends a blank line at the end of
//! the bytes seen so far does not end the event yet: an LF that belongs to it may follow, and an event of
//! ours must not come between the two. The next byte decides; at the stream's end see [`Splitter::last`].

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr2, memrchr2};

use crate::limits;

/// Buffers above this are given back once their event is done: an idle stream holds little.
const KEPT_BYTES: usize = 16 * 1024;

/// Splits a content stream into whole events; an unfinished event is carried over to the next feed.
#[derive(Debug, Default)]
pub struct Splitter {
    carry: Vec<u8>,
    /// The carried event that the last feed completed.
    ended: Vec<u8>,
    at: At,
    /// Whether the unfinished event outgrew the bound.
    lost: bool,
    /// What was held of the event that outgrew the bound in the last feed.
    spilled: Vec<u8>,
}

/// Where the stream stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between two events.
    #[default]
    Boundary,
    /// Within a line.
    Line,
    /// After a line of an event that ended with LF.
    Lf,
    /// After a line of an event that ended with CR; an LF may belong to it.
    Cr,
    /// After a blank line that ended with CR; an LF may belong to it.
    BlankCr,
}

/// One feed, split at its last event boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// The event that began in earlier feeds and ends in this one, in one piece; empty if there is none, or
    /// if it outgrew [`limits::EVENT_BYTES`] in an earlier feed.
    pub carried: &'a [u8],
    /// How many bytes of this feed belong to `carried`; 0 when it ended with a CR at the end of the last feed.
    pub carried_used: usize,
    /// Whole events that lie entirely in this feed, one after another.
    pub whole: &'a [u8],
    /// The unfinished event at the end of this feed (only this feed's part of it).
    pub rest: &'a [u8],
    /// Whether the unfinished event outgrew the bound and is no longer held: it will not be seen whole.
    pub overflow: bool,
    /// What earlier feeds had left of that event, given back in the feed that overflows.
    pub spilled: &'a [u8],
}

impl Splitter {
    /// A splitter at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Splits `content` at its event boundaries: `content[..carried_used]`, `whole` and `rest` are all of it.
    ///
    /// A feed that starts and ends between events costs one look at its last bytes.
    pub fn feed<'a>(&'a mut self, content: &'a [u8]) -> Split<'a> {
        recycle(&mut self.ended);
        recycle(&mut self.spilled);
        let mut carried_used = 0;
        if self.at != At::Boundary {
            match first_end(self.at, content) {
                Ok(end) => {
                    carried_used = end;
                    self.complete(content.get(..end).unwrap_or(&[]));
                }
                Err(at) => {
                    self.at = at;
                    self.hold(content);
                    let (overflow, spilled) = (self.lost, self.spilled.as_slice());
                    return Split {
                        carried: &[],
                        carried_used: 0,
                        whole: &[],
                        rest: content,
                        overflow,
                        spilled,
                    };
                }
            }
        }
        let fresh = content.get(carried_used..).unwrap_or(&[]);
        let (whole, rest) = fresh.split_at_checked(last_end(fresh)).unwrap_or_default();
        self.at = tail(rest);
        self.hold(rest);
        Split { carried: &self.ended, carried_used, whole, rest, overflow: self.lost, spilled: &self.spilled }
    }

    /// Whether the stream stands between two events, so that an event of ours may be put in.
    pub fn at_boundary(&self) -> bool {
        self.at == At::Boundary
    }

    /// Whether the stream is inside an event that outgrew the bound, part of which has been let go.
    pub fn is_torn(&self) -> bool {
        self.lost
    }

    /// The bytes of the unfinished event that are held.
    pub fn pending(&self) -> &[u8] {
        &self.carry
    }

    /// To be asked at the stream's end: the last event, when its blank line ended with a lone CR. Any other
    /// unfinished event is none (WHATWG HTML §9.2.6: it is discarded), and this is empty.
    pub fn last(&self) -> &[u8] {
        if self.at == At::BlankCr { &self.carry } else { &[] }
    }

    /// Moves the carried event and its end in this feed to `ended`, unless it is too large.
    fn complete(&mut self, end: &[u8]) {
        std::mem::swap(&mut self.carry, &mut self.ended);
        recycle(&mut self.carry);
        if std::mem::take(&mut self.lost) {
            recycle(&mut self.ended);
        } else {
            self.ended.extend_from_slice(end);
        }
    }

    fn hold(&mut self, part: &[u8]) {
        if self.carry.len().saturating_add(part.len()) > limits::EVENT_BYTES {
            self.spilled = std::mem::take(&mut self.carry);
            self.lost = true;
        }
        if !self.lost {
            self.carry.extend_from_slice(part);
        }
    }
}

fn recycle(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES {
        *buffer = Vec::new();
    }
}

fn is_eol(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// The end of the event that the stream is in, as an offset in `bytes`; else where the stream then stands.
fn first_end(mut at: At, bytes: &[u8]) -> Result<usize, At> {
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let passed = bytes.len() - rest.len();
        (at, rest) = match (at, byte) {
            (At::BlankCr | At::Lf, b'\n') => return Ok(passed + 1),
            (At::BlankCr | At::Boundary, _) => return Ok(passed),
            (At::Cr, b'\n') => (At::Lf, after),
            (At::Cr | At::Lf, b'\r') => (At::BlankCr, after),
            (At::Cr | At::Lf | At::Line, _) => {
                let Some(eol) = memchr2(b'\n', b'\r', rest) else { return Err(At::Line) };
                let ended = if rest.get(eol) == Some(&b'\r') { At::Cr } else { At::Lf };
                (ended, rest.get(eol + 1..).unwrap_or(&[]))
            }
        };
    }
    Err(at)
}

/// The last event boundary in `bytes`, which start at a boundary; 0 if there is no other.
fn last_end(bytes: &[u8]) -> usize {
    let mut window = bytes;
    while let Some(i) = memrchr2(b'\n', b'\r', window) {
        let blank = match window.get(i) {
            Some(b'\n') => match before(bytes, i, 1) {
                b'\r' => is_eol(before(bytes, i, 2)),
                byte => byte == b'\n',
            },
            _ => bytes.get(i + 1).is_some_and(|next| *next != b'\n') && is_eol(before(bytes, i, 1)),
        };
        if blank {
            return i + 1;
        }
        window = window.get(..i).unwrap_or(&[]);
    }
    0
}

/// Where a stream stands after `rest`, which starts at a boundary and holds no other.
fn tail(rest: &[u8]) -> At {
    match rest.last() {
        None => At::Boundary,
        Some(b'\n') => At::Lf,
        Some(b'\r') if is_eol(before(rest, rest.len() - 1, 1)) => At::BlankCr,
        Some(b'\r') => At::Cr,
        Some(_) => At::Line,
    }
}

/// The byte `n` before `at`. Before a boundary it is as if a line had ended.
fn before(bytes: &[u8], at: usize, n: usize) -> u8 {
    at.checked_sub(n).and_then(|i| bytes.get(i)).copied().unwrap_or(b'\n')
}

/// The events of a run of whole events, each with its closing blank line (and further ones, if any), as
/// ranges' slices. Together they are the whole run: blank lines at its start are a block of their own.
pub fn events(whole: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = whole;
    std::iter::from_fn(move || {
        let (block, after) = rest.split_at_checked(block_len(rest))?;
        rest = after;
        (!block.is_empty()).then_some(block)
    })
}

/// The events of a run of whole events that hold the offsets `hits` (rising, none of a line end), as [`events`]
/// tells them apart: each once, as its range. The events between them are not looked at.
pub fn around(whole: &[u8], hits: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<usize>> {
    let mut passed = 0;
    hits.filter_map(move |hit| {
        if hit < passed {
            return None;
        }
        // The byte at the hit is looked at, too: it tells a CR that ends a line from one before an LF.
        let before = whole.get(passed..=hit)?;
        let start = passed + last_end(before);
        passed = start + block_len(whole.get(start..)?);
        Some(start..passed)
    })
}

fn block_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eol) = memchr2(b'\n', b'\r', bytes.get(at..).unwrap_or(&[])) {
        let start = at + eol;
        let run = bytes.get(start..).unwrap_or(&[]).iter().take_while(|b| is_eol(**b)).count();
        at = start + run;
        // More than one line end in a row: the second one ends a blank line.
        let single = run == 1 || (run == 2 && bytes.get(start..at) == Some(b"\r\n"));
        if !single || start == 0 {
            return at;
        }
    }
    bytes.len()
}

/// An event's fields.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// `event:`, the last one.
    pub name: Option<&'a [u8]>,
    /// `data:` lines joined with LF; borrowed when there is only one.
    pub data: Cow<'a, [u8]>,
}

/// Parses one event block (with or without its closing blank line). A byte order mark before it is
/// skipped: at the start of a stream it is none of the first field's name.
pub fn event(block: &[u8]) -> Event<'_> {
    let mut event = Event::default();
    let mut has_data = false;
    for line in lines(block.strip_prefix(b"\xef\xbb\xbf").unwrap_or(block)) {
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (line.get(..colon).unwrap_or(&[]), line.get(colon + 1..).unwrap_or(&[])),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => event.name = Some(value),
            b"data" if !std::mem::replace(&mut has_data, true) => event.data = Cow::Borrowed(value),
            b"data" => {
                let data = event.data.to_mut();
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            _ => {}
        }
    }
    event
}

fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end)?;
        rest = after.strip_prefix(b"\r\n").or_else(|| after.get(1..)).unwrap_or(&[]);
        Some(line)
    })
}

/// Counts the events in a run of whole events, without parsing them; comments count, stray blank lines do not.
pub fn count(whole: &[u8]) -> u64 {
    events(whole).filter(|block| !block.first().copied().is_some_and(is_eol)).count() as u64
}
