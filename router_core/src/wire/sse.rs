//! Server-sent events as bytes (WHATWG HTML §9.2): where events end, across any split of the stream.

/// Splits a content stream into whole events; an unfinished event is carried over to the next feed.
#[derive(Debug, Default)]
pub struct Splitter {
    carry: Vec<u8>,
}

/// One feed, split at its last event boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// The event that began in earlier feeds and ends in this one, in one piece; empty if there is none.
    pub carried: &'a [u8],
    /// How many bytes of this feed belong to `carried`.
    pub carried_used: usize,
    /// Whole events that lie entirely in this feed, one after another.
    pub whole: &'a [u8],
    /// The unfinished event at the end of this feed (only this feed's part of it).
    pub rest: &'a [u8],
    /// Whether the unfinished event outgrew the bound and is no longer held: it will not be seen whole.
    pub overflow: bool,
}

impl Splitter {
    /// A splitter at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Splits `content` at its event boundaries.
    pub fn feed<'a>(&'a mut self, content: &'a [u8]) -> Split<'a> {
        let _ = &self.carry;
        Split { carried: &[], carried_used: 0, whole: content, rest: &[], overflow: false }
    }

    /// Whether the stream stands between two events, so that an event of ours may be put in.
    pub fn at_boundary(&self) -> bool {
        true
    }

    /// The bytes of the unfinished event that are held.
    pub fn pending(&self) -> &[u8] {
        &self.carry
    }
}

/// The events of a run of whole events, each with its closing blank line, as ranges' slices.
pub fn events(_whole: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::empty()
}

/// An event's fields.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// `event:`, the last one.
    pub name: Option<&'a [u8]>,
    /// `data:` lines joined with LF; borrowed when there is only one.
    pub data: std::borrow::Cow<'a, [u8]>,
}

/// Parses one event block (with or without its closing blank line).
pub fn event(_block: &[u8]) -> Event<'_> {
    Event::default()
}

/// Counts the events in a run of whole events, without parsing them.
pub fn count(_whole: &[u8]) -> u64 {
    0
}
