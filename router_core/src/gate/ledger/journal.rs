//! The ledger's file: a mapped page with two alternating copies of the counts, and a table of reservations.
//!
//! It is updated in place, so it never grows and never rotates. Each copy of the counts and each reservation ends
//! in a checksum that is stored last, which makes storing it atomic with respect to the death of the process:
//!
//! - *reserve* fills a free slot; it is live from the moment its checksum stands.
//! - *settle* writes the new counts over the older copy, together with the name of the slot it settles; when that
//!   checksum stands, the settlement has happened. Then the slot is cleared. Dying in between leaves a live slot
//!   that the newest copy names: it is cleared on opening, not charged again.
//!
//! A power loss may lose what the disk had not yet written, and may bring a cleared slot back, which is then
//! charged at the tokens it held.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::windows::{State, Tally, WINDOWS};
use super::{Book, Recovery, ReservationId, Slot, import};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::telemetry::mapped::{Mapped, make_dir, mix};

/// `kars`, `budg`, and the version of this layout.
const MAGIC: u64 = u64::from_be_bytes(*b"karsbud1");
const PAGE: usize = 4096;
const WORD_MAGIC: usize = 0;
const WORD_OWNER: usize = 1;
/// Slots ever used: opening looks no further.
const WORD_USED: usize = 2;
/// First words of the two copies of the counts, in cache lines of their own.
const WORD_COPIES: [usize; 2] = [64, 96];
/// Sequence number, settled slot, then key, spent and epoch of each window, then the checksum.
const COPY_WORDS: usize = 2 + 3 * WINDOWS;
/// Tokens, two words of epochs and serial, checksum.
const SLOT_WORDS: usize = 4;
const FIRST_SLOT: usize = PAGE / 8;
const LEN: usize = PAGE + limits::RESERVATIONS * SLOT_WORDS * 8;
/// What `WORD_OWNER` and the copies are summed with.
const OWNER_SEED: u64 = 1;
const COPY_SEED: u64 = 2;
const SLOT_SEED: u64 = 3;

/// The open file. Its lock is held until it is dropped.
#[derive(Debug)]
pub(super) struct Journal {
    mapped: Mapped,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal beside `json` and fills `book` with what it or, if it is new, the JSON file holds.
    /// Reservations found live are put into `book` as such.
    pub(super) fn open(json: &Path, sandbox: &str, book: &mut Book, recovery: &mut Recovery) -> Result<Self> {
        let path = journal_path(json);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            make_dir(dir)?;
        }
        let journal = Self { mapped: Mapped::open(&path, LEN, LEN)?, path };
        let owner = owner(sandbox);
        match journal.load(owner)? {
            Loaded::Counts(state, settled) => {
                book.state = state;
                journal.load_slots(book, settled);
                // From here on no slot counts as settled by the last process.
                book.state.seq += 1;
                journal.commit(&book.state, None);
            }
            Loaded::New => journal.begin(json, sandbox, owner, book, recovery),
            Loaded::Damaged => {
                let aside = journal.set_aside();
                journal.begin(json, sandbox, owner, book, recovery);
                recovery.warning = Some(format!(
                    "the budget journal {} was damaged; counts start at zero, {aside}",
                    journal.path.display()
                ));
            }
        }
        Ok(journal)
    }

    /// Stores a reservation in a free slot.
    pub(super) fn put(&self, index: u32, slot: &Slot) {
        let used = u64::from(index) + 1;
        if self.word(WORD_USED).is_some_and(|word| word.load(Relaxed) < used) {
            self.store(WORD_USED, used);
        }
        let words = encode_slot(slot);
        let at = slot_at(index);
        for (offset, word) in words.into_iter().enumerate() {
            self.store(at + offset, word);
        }
        self.publish(at + SLOT_WORDS - 1, mix(SLOT_SEED + u64::from(index), words));
    }

    /// Frees a slot.
    pub(super) fn clear(&self, index: u32) {
        self.publish(slot_at(index) + SLOT_WORDS - 1, 0);
    }

    /// Stores the counts, and with them which slot they settle.
    pub(super) fn commit(&self, state: &State, settled: Option<ReservationId>) {
        let [even, odd] = WORD_COPIES;
        let at = if state.seq.is_multiple_of(2) { even } else { odd };
        let words = encode_state(state, settled);
        for (offset, word) in words.into_iter().enumerate() {
            self.store(at + offset, word);
        }
        self.publish(at + COPY_WORDS, mix(COPY_SEED, words));
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.mapped.sync().map_err(|e| Error::io(format_args!("cannot sync {}", self.path.display()), &e))
    }

    fn load(&self, owner: u64) -> Result<Loaded> {
        if self.read(WORD_MAGIC) == 0 {
            // The magic is stored last when a journal begins: without it there never was one.
            let blank = (WORD_OWNER..FIRST_SLOT).all(|at| self.read(at) == 0);
            return Ok(if blank || self.mapped.found() == 0 { Loaded::New } else { Loaded::Damaged });
        }
        if self.read(WORD_MAGIC) != MAGIC || self.mapped.found() < PAGE as u64 {
            return Ok(Loaded::Damaged);
        }
        let copies = WORD_COPIES.map(|at| self.load_copy(at));
        let Some((state, settled)) = copies.into_iter().flatten().max_by_key(|(state, _)| state.seq) else {
            return Ok(Loaded::Damaged);
        };
        if self.read(WORD_OWNER) != owner {
            return Err(Error::new(
                Kind::Config,
                format!("the budget journal {} belongs to another sandbox", self.path.display()),
            ));
        }
        Ok(Loaded::Counts(state, settled))
    }

    fn load_copy(&self, at: usize) -> Option<(State, u64)> {
        let mut words = [0; COPY_WORDS];
        for (offset, word) in words.iter_mut().enumerate() {
            *word = self.read(at + offset);
        }
        (self.read(at + COPY_WORDS) == mix(COPY_SEED, words)).then(|| decode_state(words))
    }

    fn load_slots(&self, book: &mut Book, settled: u64) {
        let used = usize::try_from(self.read(WORD_USED)).unwrap_or(usize::MAX).min(limits::RESERVATIONS);
        for index in (0_u32..).take(used) {
            let at = slot_at(index);
            let words = [self.read(at), self.read(at + 1), self.read(at + 2)];
            let live = self.read(at + SLOT_WORDS - 1) == mix(SLOT_SEED + u64::from(index), words);
            let mut slot = decode_slot(words);
            slot.live = live && settled_word(index, slot.serial) != settled;
            book.serial = book.serial.max(slot.serial);
            if slot.live {
                book.state.hold_again(&slot);
            } else {
                self.clear(index);
                book.free.push(index);
            }
            book.slots.push(slot);
        }
    }

    /// Starts a journal, with the reference's counts if there are any.
    fn begin(&self, json: &Path, sandbox: &str, owner: u64, book: &mut Book, recovery: &mut Recovery) {
        match import::read(json, sandbox) {
            Ok(Some(state)) => {
                book.state = state;
                recovery.imported = true;
            }
            Ok(None) => {}
            Err(why) => recovery.warning = Some(format!("{why}; counts start at zero")),
        }
        self.publish(WORD_MAGIC, 0);
        for at in WORD_OWNER..FIRST_SLOT + limits::RESERVATIONS * SLOT_WORDS {
            // Reads spare the pages of a new file from being dirtied.
            if self.read(at) != 0 {
                self.store(at, 0);
            }
        }
        self.store(WORD_OWNER, owner);
        self.commit(&book.state, None);
        self.publish(WORD_MAGIC, MAGIC);
    }

    /// Copies a damaged journal for people to look at; returns what became of it.
    fn set_aside(&self) -> String {
        let aside = self.path.with_extension("journal.corrupt");
        match fs::copy(&self.path, &aside) {
            Ok(_) => format!("the old one is kept as {}", aside.display()),
            Err(e) => format!("and it could not be kept: {e}"),
        }
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.mapped.words().get(at)
    }

    fn read(&self, at: usize) -> u64 {
        self.word(at).map_or(0, |word| word.load(Relaxed))
    }

    fn store(&self, at: usize, value: u64) {
        #[cfg(test)]
        if super::tests::dead() {
            return;
        }
        if let Some(word) = self.word(at) {
            word.store(value, Relaxed);
        }
    }

    /// Stores a word after everything stored before it.
    fn publish(&self, at: usize, value: u64) {
        #[cfg(test)]
        if super::tests::dead() {
            return;
        }
        if let Some(word) = self.word(at) {
            word.store(value, Release);
        }
    }
}

enum Loaded {
    /// Never begun.
    New,
    /// The newest counts, and the word of the slot they settle.
    Counts(State, u64),
    Damaged,
}

fn journal_path(json: &Path) -> PathBuf {
    if json.extension().is_some_and(|extension| extension == "json") {
        return json.with_extension("journal");
    }
    let mut name = json.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

fn owner(sandbox: &str) -> u64 {
    mix(OWNER_SEED, sandbox.bytes().map(u64::from))
}

fn slot_at(index: u32) -> usize {
    FIRST_SLOT + index as usize * SLOT_WORDS
}

/// The word that names a slot and its tenant; never 0.
fn settled_word(index: u32, serial: u32) -> u64 {
    (u64::from(index) + 1) << 32 | u64::from(serial)
}

fn encode_slot(slot: &Slot) -> [u64; SLOT_WORDS - 1] {
    let [hour, day, month] = slot.epochs.map(u64::from);
    [slot.tokens, hour << 32 | day, month << 32 | u64::from(slot.serial)]
}

fn decode_slot([tokens, first, second]: [u64; SLOT_WORDS - 1]) -> Slot {
    Slot {
        live: false,
        serial: low(second),
        tokens,
        epochs: [low(first >> 32), low(first), low(second >> 32)],
    }
}

fn encode_state(state: &State, settled: Option<ReservationId>) -> [u64; COPY_WORDS] {
    let mut words = [0; COPY_WORDS];
    let [seq, settles, tallies @ ..] = &mut words;
    *seq = state.seq;
    *settles = settled.map_or(0, |id| settled_word(id.slot, id.serial));
    for (words, tally) in tallies.as_chunks_mut::<3>().0.iter_mut().zip(&state.tallies) {
        *words = [tally.key, tally.spent, u64::from(tally.epoch)];
    }
    words
}

/// The counts, and the word of the slot they settle.
fn decode_state(words: [u64; COPY_WORDS]) -> (State, u64) {
    let [seq, settled, rest @ ..] = words;
    let mut tallies = [Tally::default(); WINDOWS];
    for (tally, [key, spent, epoch]) in tallies.iter_mut().zip(rest.as_chunks::<3>().0) {
        *tally = Tally { key: *key, spent: *spent, reserved: 0, epoch: low(*epoch) };
    }
    (State::restored(tallies, seq), settled)
}

/// The low half of a word.
fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}
