//! The staging area: a ring of records in a mapped file.
//!
//! Positions count bytes since the ring began and never wrap; a record lies whole at `position % capacity`, and a
//! filler skips the rest of the ring where it would not fit. A record is staged when `HEAD` moves past it, which is
//! stored after all of its bytes, and done when `TAIL` moves past it, after its line was written. The checksum and
//! the sequence number in each record matter only after a power loss, when pages come back in any order.
//!
//! A record's length word tells its form, so that a spool left by an older build is read, and an older build takes ours
//! for unreadable and counts them as lost.

use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use super::Record;
use crate::error::Result;
use crate::telemetry::mapped::{Mapped, mix};

/// Longest an append waits for room: a disk that stands still for longer counts as refusing.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Longest string taken into a record, in bytes; the longest in use is an action with a model name of 256.
pub(super) const TEXT_BYTES: usize = 512;

const PAGE: usize = 4096;
/// Room for staged records: some 2000, which outlasts a sync of the log at 20 000 records per second. Its pages are
/// touched only as far as records pile up.
const CAPACITY: usize = 1024 * 1024;
/// Most bytes that [`Spool::pending`] hands out at a time: the lock is held while they are copied.
const BATCH: usize = 16 * 1024;
/// `kars`, `spol`, and the version of the ring's layout; records have a [`Form`] of their own.
const MAGIC: u64 = u64::from_be_bytes(*b"karsspl1");
const WORD_MAGIC: usize = 0;
const WORD_TAIL: usize = 8;
const WORD_HEAD: usize = 16;
const WORD_SEQ: usize = 24;
/// Length, sequence number and checksum before every record, a word each.
const FRAME: usize = 24;
/// A length that marks a filler.
const FILLER: u64 = u64::MAX;

/// Numbers in a record, each of 8 bytes, before its strings.
const NUMBERS: usize = 9;
/// Strings in a record, each after its length in 2 bytes.
pub(super) const TEXTS: usize = 11;
/// Where in its length word a record's form stands.
const FORM_SHIFT: u32 = 48;
const LENGTH_MASK: u64 = (1 << FORM_SHIFT) - 1;
/// The form that is written.
const FORM: u64 = Form::Egress as u64;

/// Which members a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Seven numbers and nine strings: those of calls.
    Calls = 0,
    /// Two numbers and two strings more: bytes both ways, the address dialled and the reason.
    Egress = 1,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Spool {
    mapped: Mapped,
    head: u64,
    tail: u64,
    /// The next record's number.
    seq: u64,
    /// Whether the writer has been told that there is work.
    pub(super) awake: bool,
    /// Whether the writer has been told to hurry.
    pub(super) hurried: bool,
}

/// A staged record, borrowed from a copy of the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staged<'a> {
    pub(super) seq: u64,
    pub(super) record: Record<'a>,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// Staged; the writer is at work.
    Quietly,
    /// Staged; the writer must be woken.
    Wake,
    /// No room.
    Full,
}

impl Spool {
    /// Opens or makes the ring. Returns with it whether it held one already.
    pub(super) fn open(path: &Path) -> Result<(Self, bool)> {
        let mapped = Mapped::open(path, PAGE + CAPACITY, PAGE)?;
        let mut spool = Self { mapped, head: 0, tail: 0, seq: 0, awake: false, hurried: false };
        let word = |at| spool.read(at);
        let (magic, tail, head, seq) = (word(WORD_MAGIC), word(WORD_TAIL), word(WORD_HEAD), word(WORD_SEQ));
        let sound = magic == MAGIC
            && tail <= head
            && head - tail <= CAPACITY as u64
            && tail % 8 == 0
            && head % 8 == 0;
        if sound {
            (spool.tail, spool.seq) = (tail, seq);
            spool.head = spool.sound_until(head);
        }
        spool.publish(WORD_TAIL, spool.tail);
        spool.publish(WORD_HEAD, spool.head);
        spool.publish(WORD_SEQ, spool.seq);
        spool.publish(WORD_MAGIC, MAGIC);
        Ok((spool, sound))
    }

    /// The next record's number.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Sets the next record's number, when the log tells a later one.
    pub(super) fn raise_seq(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
        self.publish(WORD_SEQ, self.seq);
    }

    /// Whether nothing is staged.
    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Stages a record.
    pub(super) fn stage(&mut self, record: &Record<'_>) -> Placed {
        let (numbers, texts) = parts(record);
        let payload = NUMBERS * 8 + texts.iter().map(|text| 2 + text.len()).sum::<usize>();
        let need = FRAME + payload.next_multiple_of(8);
        let offset = place(self.head);
        let skip = if CAPACITY - offset < need { CAPACITY - offset } else { 0 };
        let used = usize::try_from(self.head - self.tail).unwrap_or(CAPACITY);
        if CAPACITY - used < skip + need {
            return Placed::Full;
        }
        if skip > 0 {
            self.put(offset, &FILLER.to_le_bytes());
        }
        let start = if skip > 0 { 0 } else { offset };
        self.write(start, payload, &numbers, &texts);
        self.head += (skip + need) as u64;
        self.publish(WORD_HEAD, self.head);
        self.seq += 1;
        self.publish(WORD_SEQ, self.seq);
        self.wake(used + skip + need)
    }

    /// Uses up a number for a record that found no room, so that its loss shows.
    pub(super) fn lose(&mut self) {
        self.seq += 1;
        self.publish(WORD_SEQ, self.seq);
    }

    /// Copies staged bytes, from the oldest on, into `batch`; returns the position to [`Self::done`] to after the
    /// records that [`records`] reads from them, or `None` when nothing is staged.
    pub(super) fn pending(&self, batch: &mut Vec<u8>) -> Option<u64> {
        (!self.is_empty()).then(|| self.copy(self.tail, batch))
    }

    /// Copies staged bytes from a position on; returns the position past any filler at which they begin.
    fn copy(&self, position: u64, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        let filler = self.length_at(position) == FILLER;
        let skip = if filler { CAPACITY - place(position) } else { 0 };
        let from = (position + skip as u64).min(self.head);
        let offset = place(from);
        let length = usize::try_from(self.head - from).unwrap_or(0).min(CAPACITY - offset).min(BATCH);
        batch.extend_from_slice(self.mapped.bytes().get(offset..offset + length).unwrap_or(&[]));
        from
    }

    /// Frees everything before a position. An empty ring starts over at its front, so that light traffic stays on
    /// the first pages.
    pub(super) fn done(&mut self, position: u64) {
        self.tail = position.min(self.head);
        self.hurried = false;
        if self.tail == self.head && place(self.tail) != 0 {
            self.tail = self.tail.next_multiple_of(CAPACITY as u64);
            self.head = self.tail;
        }
        self.publish(WORD_TAIL, self.tail);
        // Between these two stores the tail may be ahead of the head, which opening takes for an empty ring.
        self.publish(WORD_HEAD, self.head);
    }

    /// Frees everything.
    pub(super) fn clear(&mut self) {
        self.done(self.head);
    }

    fn wake(&mut self, used: usize) -> Placed {
        let hurry = used > CAPACITY / 2 && !self.hurried;
        self.hurried |= hurry;
        if hurry || !self.awake {
            self.awake = true;
            return Placed::Wake;
        }
        Placed::Quietly
    }

    fn write(&mut self, start: usize, payload: usize, numbers: &[u64; NUMBERS], texts: &[&str; TEXTS]) {
        let seq = self.seq;
        let padded = payload.next_multiple_of(8);
        let Some(space) = self.mapped.bytes_mut().get_mut(start..start + FRAME + padded) else { return };
        let mut at = FRAME;
        let mut put = |bytes: &[u8]| {
            if let Some(place) = space.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
            at += bytes.len();
        };
        for number in numbers {
            put(&number.to_le_bytes());
        }
        for text in texts {
            put(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
            put(text.as_bytes());
        }
        let padding = padded - payload;
        put([0_u8; 8].get(..padding).unwrap_or(&[]));
        let length = FORM << FORM_SHIFT | payload as u64;
        let sum = checksum(length, seq, space.get(FRAME..).unwrap_or(&[]));
        for (word, value) in space.chunks_exact_mut(8).zip([length, seq, sum]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The position up to which the ring holds sound records in sequence; `head` unless power was lost.
    fn sound_until(&mut self, head: u64) -> u64 {
        let mut position = self.tail;
        let mut batch = Vec::new();
        let mut last = None;
        self.head = head;
        while position < head {
            let from = self.copy(position, &mut batch);
            let mut next = from;
            for (staged, length) in records(&batch) {
                if last.is_some_and(|last| staged.seq <= last) {
                    return next;
                }
                last = Some(staged.seq);
                self.seq = self.seq.max(staged.seq + 1);
                next += length as u64;
            }
            if next == from {
                return position;
            }
            position = next;
        }
        head
    }

    fn length_at(&self, position: u64) -> u64 {
        let offset = place(position);
        self.mapped.bytes().get(offset..offset + 8).map_or(FILLER, word)
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.mapped.bytes_mut().get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn read(&self, at: usize) -> u64 {
        self.mapped.words().get(at).map_or(0, |word| word.load(Relaxed))
    }

    /// Stores a word after everything stored before it.
    fn publish(&self, at: usize, value: u64) {
        if let Some(word) = self.mapped.words().get(at) {
            word.store(value, Release);
        }
    }
}

/// The whole, sound records at the front of `batch`, each with the bytes it takes.
pub(super) fn records(batch: &[u8]) -> impl Iterator<Item = (Staged<'_>, usize)> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        let (frame, after) = rest.split_at_checked(FRAME)?;
        let mut words = frame.chunks_exact(8).map(word);
        let (word, seq, sum) = (words.next()?, words.next()?, words.next()?);
        let form = Form::read(word >> FORM_SHIFT)?;
        let length = usize::try_from(word & LENGTH_MASK).ok().filter(|length| *length <= CAPACITY)?;
        let (payload, after) = after.split_at_checked(length.next_multiple_of(8))?;
        if checksum(word, seq, payload) != sum {
            return None;
        }
        let record = decode(form, payload.get(..length)?)?;
        rest = after;
        Some((Staged { seq, record }, FRAME + payload.len()))
    })
}

impl Form {
    fn read(number: u64) -> Option<Self> {
        [Self::Calls, Self::Egress].into_iter().find(|form| *form as u64 == number)
    }

    /// Numbers in its records.
    fn numbers(self) -> usize {
        match self {
            Self::Calls => NUMBERS - 2,
            Self::Egress => NUMBERS,
        }
    }
}

fn place(position: u64) -> usize {
    usize::try_from(position % CAPACITY as u64).unwrap_or(0)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// `padded` is a whole number of words.
fn checksum(length: u64, seq: u64, padded: &[u8]) -> u64 {
    mix(seq, std::iter::once(length).chain(padded.chunks_exact(8).map(word)))
}

fn parts<'a>(record: &Record<'a>) -> ([u64; NUMBERS], [&'a str; TEXTS]) {
    let small =
        u64::from(record.attempts) << 32 | u64::from(record.status) << 8 | u64::from(record.estimated);
    let numbers = [
        record.ts_ms,
        record.decision_id,
        record.input_tokens,
        record.output_tokens,
        record.latency_us,
        record.first_byte_us,
        small,
        record.sent_bytes,
        record.received_bytes,
    ];
    let texts = [
        record.agent,
        record.action,
        record.decision,
        record.rule,
        record.trace_id,
        record.policy,
        record.model,
        record.provider,
        record.end,
        record.address,
        record.reason,
    ];
    (numbers, texts.map(cut))
}

fn decode(form: Form, payload: &[u8]) -> Option<Record<'_>> {
    let (numbers, mut rest) = payload.split_at_checked(form.numbers() * 8)?;
    let mut numbers = numbers.chunks_exact(8).map(word);
    let mut number = || numbers.next();
    let mut text = || {
        let (length, after) = rest.split_first_chunk()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rest = after;
        std::str::from_utf8(text).ok()
    };
    let mut record = Record {
        ts_ms: number()?,
        decision_id: number()?,
        input_tokens: number()?,
        output_tokens: number()?,
        latency_us: number()?,
        first_byte_us: number()?,
        ..Record::default()
    };
    let small = number()?;
    record.attempts = u32::try_from(small >> 32).ok()?;
    record.status = u16::try_from(small >> 8 & 0xffff).ok()?;
    record.estimated = small & 1 == 1;
    record.agent = text()?;
    record.action = text()?;
    record.decision = text()?;
    record.rule = text()?;
    record.trace_id = text()?;
    record.policy = text()?;
    record.model = text()?;
    record.provider = text()?;
    record.end = text()?;
    if form == Form::Egress {
        (record.sent_bytes, record.received_bytes) = (number()?, number()?);
        record.address = text()?;
        record.reason = text()?;
    }
    Some(record)
}

/// The longest prefix of at most [`TEXT_BYTES`] that ends between characters.
fn cut(text: &str) -> &str {
    if text.len() <= TEXT_BYTES {
        return text;
    }
    // A character takes at most four bytes.
    (TEXT_BYTES - 3..=TEXT_BYTES).rev().find_map(|end| text.get(..end)).unwrap_or("")
}
