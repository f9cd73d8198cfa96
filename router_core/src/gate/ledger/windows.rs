//! The three windows' counts, and the arithmetic of granting, holding and charging. Pure: no clock, no file.

use std::time::Duration;

use super::{Ask, Limits, Shortfall, Slot, Spent, Standing, Window};
use crate::telemetry::calendar::{DAY_SECS, HOUR_SECS, month_key, next_month};

/// Number of windows.
pub(super) const WINDOWS: usize = 3;
/// Days from the start of year 1 (day 1) to 1970-01-01: the reference counts its days so.
const EPOCH_DAY: u64 = 719_163;
/// A clock step back of at most this keeps the windows: threads read the clock apart, and small corrections must
/// not open an old window again. A larger one moves the windows back, with what was spent in them.
const STEP_BACK_SECS: u64 = HOUR_SECS;
/// Of what is left, a sharing ask holds one part in this many.
const SHARES: u64 = 8;
/// Tokens a sharing ask may hold however little one share is: an answer of a page.
const SHARE_FLOOR: u64 = 1024;

/// One window's counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Which hour, day or month: hours since 1970, days from year 1, `year * 12 + month0`.
    pub(super) key: u64,
    /// Tokens settled.
    pub(super) spent: u64,
    /// Tokens held; not journalled, as it is the sum of the live slots.
    pub(super) reserved: u64,
    /// Counts the roll-overs: a reservation belongs to the window when their epochs agree.
    pub(super) epoch: u32,
}

/// The counts of all windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) tallies: [Tally; WINDOWS],
    /// The seconds for which no window changes: `from..until`.
    from: u64,
    until: u64,
    /// Numbers the commits.
    pub(super) seq: u64,
}

/// The unix second at which the window that holds `now` ends.
pub(super) fn end(window: Window, now: u64) -> u64 {
    match window {
        Window::Hour => (now / HOUR_SECS).saturating_add(1).saturating_mul(HOUR_SECS),
        Window::Day => (now / DAY_SECS).saturating_add(1).saturating_mul(DAY_SECS),
        Window::Month => next_month(now),
    }
}

fn key(window: Window, now: u64) -> u64 {
    match window {
        Window::Hour => now / HOUR_SECS,
        Window::Day => now / DAY_SECS + EPOCH_DAY,
        Window::Month => month_key(now),
    }
}

impl State {
    /// Counts as a journal holds them.
    pub(super) fn restored(tallies: [Tally; WINDOWS], seq: u64) -> Self {
        let [hour, ..] = tallies;
        let from = hour.key.saturating_mul(HOUR_SECS);
        Self { tallies, from, until: from, seq }
    }

    /// Moves to the windows that hold `now`; returns whether any changed.
    pub(super) fn roll(&mut self, now: u64) -> bool {
        if (self.from..self.until).contains(&now) || (now < self.from && self.from - now <= STEP_BACK_SECS) {
            return false;
        }
        let mut changed = false;
        for (window, tally) in Window::ALL.into_iter().zip(&mut self.tallies) {
            let key = key(window, now);
            changed |= key != tally.key;
            if key > tally.key {
                *tally = Tally { key, spent: 0, reserved: 0, epoch: tally.epoch.wrapping_add(1) };
            }
            tally.key = key;
        }
        self.until = end(Window::Hour, now);
        self.from = now - now % HOUR_SECS;
        changed
    }

    /// How many tokens an ask gets. Pure; [`Self::hold`] takes them.
    pub(super) fn grant(&self, ask: &Ask, limits: &Limits, now: u64) -> Result<u64, Shortfall> {
        let mut left = u64::MAX;
        for (window, tally) in self.limited(limits) {
            left = left.min(limits.of(window).saturating_sub(tally.spent.saturating_add(tally.reserved)));
        }
        if left < ask.min {
            return Err(self.shortfall(ask, limits, now));
        }
        let cap = if ask.share { (left / SHARES).max(ask.min).max(SHARE_FLOOR).min(left) } else { left };
        Ok(ask.max.max(ask.min).min(cap))
    }

    fn shortfall(&self, ask: &Ask, limits: &Limits, now: u64) -> Shortfall {
        let fits = |window: Window, used: u64| limits.of(window).saturating_sub(used) >= ask.min;
        let in_flight = self.limited(limits).all(|(window, tally)| fits(window, tally.spent));
        // The longest window that keeps the ask out: a shorter one's reset would not help.
        let (window, tally) = self
            .limited(limits)
            .filter(|(window, tally)| {
                let held = if in_flight { tally.reserved } else { 0 };
                !fits(*window, tally.spent.saturating_add(held))
            })
            .last()
            .unwrap_or((Window::Hour, Tally::default()));
        Shortfall {
            window,
            limit: limits.of(window),
            spent: tally.spent,
            reserved: tally.reserved,
            resets_in: Duration::from_secs(end(window, now).saturating_sub(now)),
            in_flight,
            crowded: false,
        }
    }

    /// Takes tokens off every window until they are charged.
    pub(super) fn hold(&mut self, tokens: u64) {
        for tally in &mut self.tallies {
            tally.reserved = tally.reserved.saturating_add(tokens);
        }
    }

    /// Takes what a reservation of an earlier process holds, in those windows that it was reserved in.
    pub(super) fn hold_again(&mut self, slot: &Slot) {
        for (tally, epoch) in self.tallies.iter_mut().zip(slot.epochs) {
            if tally.epoch == epoch {
                tally.reserved = tally.reserved.saturating_add(slot.tokens);
            }
        }
    }

    /// Releases what `slot` held and charges `actual`, in those windows that it was reserved in.
    pub(super) fn charge(&mut self, slot: &Slot, actual: u64) {
        for (tally, epoch) in self.tallies.iter_mut().zip(slot.epochs) {
            if tally.epoch == epoch {
                tally.reserved = tally.reserved.saturating_sub(slot.tokens);
                tally.spent = tally.spent.saturating_add(actual);
            }
        }
    }

    pub(super) fn epochs(&self) -> [u32; WINDOWS] {
        self.tallies.map(|tally| tally.epoch)
    }

    pub(super) fn standing(&self) -> Standing {
        let [hour, day, month] =
            self.tallies.map(|tally| Spent { spent: tally.spent, reserved: tally.reserved });
        Standing { hour, day, month }
    }

    fn limited(&self, limits: &Limits) -> impl Iterator<Item = (Window, Tally)> {
        let limits = *limits;
        Window::ALL.into_iter().zip(self.tallies).filter(move |(window, _)| limits.of(*window) > 0)
    }
}
