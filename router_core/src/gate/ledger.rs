//! The budget ledger: tokens are reserved before a call and settled after it, so that concurrent calls cannot
//! spend more than the budget together, and a crash forgets neither what was spent nor what was under way.
//!
//! Windows are UTC calendar hours, days and months. A call is charged to the windows in which it was reserved: one
//! that straddles midnight costs the old day, and a window that has rolled over starts with nothing reserved.

mod import;
mod journal;
mod windows;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::limits;

use journal::Journal;
use windows::{State, WINDOWS};

/// Limits of one sandbox in tokens per window; 0 is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Per UTC hour.
    pub hourly: u64,
    /// Per UTC day.
    pub daily: u64,
    /// Per UTC month.
    pub monthly: u64,
}

/// What a call asks for, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// Denied when less than this is left.
    pub min: u64,
    /// Granted at most; taken as `min` when smaller.
    pub max: u64,
    /// Hold at most one eighth of what is left, but at least `min` and, when that much is left, 1024: calls that
    /// name no bound of their own must not lock each other out.
    pub share: bool,
}

/// A budget window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// The UTC hour.
    Hour,
    /// The UTC day.
    Day,
    /// The UTC month.
    Month,
}

/// Why nothing was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// The window that decides how long to wait: the longest that is short.
    pub window: Window,
    /// Its limit in tokens.
    pub limit: u64,
    /// Tokens settled in it.
    pub spent: u64,
    /// Tokens held by calls in flight.
    pub reserved: u64,
    /// Until the window ends.
    pub resets_in: Duration,
    /// The ask would fit if the calls in flight used nothing: try again soon, not after the reset.
    pub in_flight: bool,
    /// No window is short: too many calls hold a reservation ([`limits::RESERVATIONS`]). `in_flight` is true too.
    pub crowded: bool,
}

/// Tokens held for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a grant holds its tokens until it is settled"]
pub struct Grant {
    /// For [`Ledger::settle`].
    pub id: ReservationId,
    /// Tokens held, from `min` to `max` of the ask.
    pub tokens: u64,
}

/// Names a reservation. A settled one's name means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReservationId {
    slot: u32,
    serial: u32,
}

/// Tokens of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Settled.
    pub spent: u64,
    /// Held by calls in flight.
    pub reserved: u64,
}

/// Tokens of the current windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The UTC hour.
    pub hour: Spent,
    /// The UTC day.
    pub day: Spent,
    /// The UTC month.
    pub month: Spent,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Reservations the last process died with, settled at the tokens they held.
    pub recovered: u32,
    /// The tokens of these.
    pub recovered_tokens: u64,
    /// Whether the counts come from the reference's JSON file.
    pub imported: bool,
    /// Why counts may be missing, for people; the ledger works all the same.
    pub warning: Option<String>,
}

/// The ledger of one sandbox. Calls take a short lock and make no system call.
#[derive(Debug)]
pub struct Ledger {
    book: Mutex<Book>,
    journal: Option<Journal>,
    recovery: Recovery,
}

/// What the lock guards.
#[derive(Debug, Default)]
struct Book {
    state: State,
    slots: Vec<Slot>,
    /// Free slots; the last freed is taken first, so that few pages of the journal are touched.
    free: Vec<u32>,
    serial: u32,
}

/// A place for one reservation. Its `serial` tells its present tenant from former ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    live: bool,
    serial: u32,
    tokens: u64,
    /// The windows' epochs when it was reserved.
    epochs: [u32; WINDOWS],
}

impl Window {
    /// All windows, shortest first.
    pub const ALL: [Self; WINDOWS] = [Self::Hour, Self::Day, Self::Month];

    /// The name in rules, messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Month => "monthly",
        }
    }

    /// The unix second at which the window that holds `now` ends.
    pub fn resets_at(self, now: u64) -> u64 {
        windows::end(self, now)
    }
}

impl Limits {
    /// The limit of a window; 0 is unlimited.
    pub fn of(&self, window: Window) -> u64 {
        match window {
            Window::Hour => self.hourly,
            Window::Day => self.daily,
            Window::Month => self.monthly,
        }
    }
}

impl Standing {
    /// The tokens of a window.
    pub fn of(&self, window: Window) -> Spent {
        match window {
            Window::Hour => self.hour,
            Window::Day => self.day,
            Window::Month => self.month,
        }
    }
}

impl Ledger {
    /// Opens the ledger of `sandbox` that is kept at `path`, or one in memory only.
    ///
    /// `path` names the reference's JSON file (`…/token-budgets.json`); the journal lies beside it, with
    /// `.journal` for `.json`. When there is no journal yet, the counts of `sandbox` in the JSON file are taken
    /// over once. A reservation that was never settled is settled at the tokens it held, which errs on the
    /// spending side. A damaged journal is set aside as `.journal.corrupt` and reported in [`Self::recovery`]; a
    /// journal that another process holds, or that belongs to another sandbox, is a [`Kind::Config`] error.
    ///
    /// [`Kind::Config`]: crate::error::Kind::Config
    pub fn open(path: Option<&Path>, sandbox: &str) -> Result<Self> {
        let mut recovery = Recovery::default();
        let mut book = Book::default();
        let journal = match path {
            None => None,
            Some(path) => Some(Journal::open(path, sandbox, &mut book, &mut recovery)?),
        };
        let ledger = Self { book: Mutex::new(book), journal, recovery };
        Ok(ledger.recovered())
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Holds tokens for a call, or says which window is short. `now` is in unix seconds.
    pub fn reserve(&self, ask: &Ask, limits: &Limits, now: u64) -> Result<Grant, Shortfall> {
        let mut book = self.book();
        if book.state.roll(now) {
            self.commit(&mut book);
        }
        let tokens = book.state.grant(ask, limits, now)?;
        let Some(index) = book.take_slot() else {
            return Err(book.crowded(now));
        };
        book.serial = book.serial.wrapping_add(1);
        let slot = Slot { live: true, serial: book.serial, tokens, epochs: book.state.epochs() };
        book.state.hold(tokens);
        if let Some(place) = book.slots.get_mut(index as usize) {
            *place = slot;
        }
        if let Some(journal) = &self.journal {
            journal.put(index, &slot);
        }
        Ok(Grant { id: ReservationId { slot: index, serial: slot.serial }, tokens })
    }

    /// Releases a reservation and charges `actual` tokens, which may exceed what was held, to the windows in
    /// which it was reserved. The first call for an id counts, later ones do nothing.
    pub fn settle(&self, id: ReservationId, actual: u64, now: u64) {
        let mut book = self.book();
        book.state.roll(now);
        self.finish(&mut book, id, actual);
    }

    /// The tokens of the windows that hold `now`.
    pub fn standing(&self, now: u64) -> Standing {
        let mut book = self.book();
        if book.state.roll(now) {
            self.commit(&mut book);
        }
        book.state.standing()
    }

    /// Reservations not settled yet.
    pub fn outstanding(&self) -> usize {
        let book = self.book();
        book.slots.len() - book.free.len()
    }

    /// Writes the journal to the disk, so that it survives a power loss too. Takes milliseconds: call it off the
    /// request path. Losing power loses what came after the last call; losing the process loses nothing.
    pub fn sync(&self) -> Result<()> {
        self.journal.as_ref().map_or(Ok(()), Journal::sync)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, book: &mut Book) {
        book.state.seq += 1;
        if let Some(journal) = &self.journal {
            journal.commit(&book.state, None);
        }
    }

    fn finish(&self, book: &mut Book, id: ReservationId, actual: u64) {
        let Some(slot) = book.slots.get_mut(id.slot as usize) else { return };
        if !slot.live || slot.serial != id.serial {
            return;
        }
        slot.live = false;
        let slot = *slot;
        book.state.charge(&slot, actual);
        book.free.push(id.slot);
        book.state.seq += 1;
        if let Some(journal) = &self.journal {
            // The commit names the slot it settles, so that dying before the slot is cleared charges it once.
            journal.commit(&book.state, Some(id));
            journal.clear(id.slot);
        }
    }

    /// Settles what the last process left open, by the same path as any settlement.
    fn recovered(mut self) -> Self {
        let mut book = self.book();
        let open: Vec<(ReservationId, u64)> = (0_u32..)
            .zip(&book.slots)
            .filter(|(_, slot)| slot.live)
            .map(|(index, slot)| (ReservationId { slot: index, serial: slot.serial }, slot.tokens))
            .collect();
        let mut tokens = 0_u64;
        for (id, held) in &open {
            self.finish(&mut book, *id, *held);
            tokens = tokens.saturating_add(*held);
        }
        drop(book);
        self.recovery.recovered = u32::try_from(open.len()).unwrap_or(u32::MAX);
        self.recovery.recovered_tokens = tokens;
        self
    }
}

impl Book {
    fn take_slot(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        if self.slots.len() >= limits::RESERVATIONS {
            return None;
        }
        self.slots.push(Slot::default());
        u32::try_from(self.slots.len() - 1).ok()
    }

    fn crowded(&self, now: u64) -> Shortfall {
        let hour = self.state.standing().hour;
        Shortfall {
            window: Window::Hour,
            limit: 0,
            spent: hour.spent,
            reserved: hour.reserved,
            resets_in: Duration::from_secs(windows::end(Window::Hour, now).saturating_sub(now)),
            in_flight: true,
            crowded: true,
        }
    }
}

#[cfg(test)]
mod tests;
