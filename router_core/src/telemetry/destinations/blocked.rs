//! What was blocked lately: a bounded table in memory.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::limits;

/// Longest host kept: a DNS name has at most 253 bytes, and markers such as `<no-sni>` are short.
const HOST_BYTES: usize = 255;
/// Seconds over which new rows are counted.
const WINDOW: u64 = 60;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedRow {
    /// The host, in lower case, without dots at its end.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who asked.
    pub source_sandbox: String,
    /// How often.
    pub count: u64,
    /// Unix seconds.
    pub first_seen: u64,
    /// Unix seconds.
    pub last_seen: u64,
}

/// The table: at most [`limits::BLOCKED_ROWS`] rows, the oldest leave first; at most
/// [`limits::BLOCKED_NEW_PER_MINUTE`] new ones per source and minute.
#[derive(Debug, Default)]
pub struct Blocked {
    table: Mutex<Table>,
    dropped: AtomicU64,
}

impl Blocked {
    /// Notes one refusal; `now` in Unix seconds. `host` is what the client named, be it an address or no name at all.
    pub fn record(&self, source: &str, host: &str, port: u16, now: u64) {
        if !self.table().record((source, &normal(host), port), now) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Rows last seen at or after `since`, newest first.
    pub fn since(&self, since: u64) -> Vec<BlockedRow> {
        let mut rows: Vec<BlockedRow> =
            self.table().rows.iter().rev().filter(|row| row.last_seen >= since).cloned().collect();
        // Stable: of those seen in one second, the row that came last stays first.
        rows.sort_by_key(|row| std::cmp::Reverse(row.last_seen));
        rows
    }

    /// Refusals that were not noted because their source asked for too many new rows.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows in the order in which they came. The index holds their numbers, which go on counting.
#[derive(Debug, Default)]
struct Table {
    rows: VecDeque<BlockedRow>,
    /// The number of the first row held.
    first: u64,
    index: HashTable<u64>,
    hasher: RandomState,
}

/// Source, host and port.
type Key<'a> = (&'a str, &'a str, u16);

impl Table {
    /// Counts a refusal; false when its source has no new row left.
    fn record(&mut self, key: Key<'_>, now: u64) -> bool {
        let hash = self.hasher.hash_one(key);
        let (rows, first) = (&mut self.rows, self.first);
        if let Some(number) = self.index.find(hash, |number| key_at(rows, first, *number) == Some(key)) {
            if let Some(row) = usize::try_from(number - first).ok().and_then(|at| rows.get_mut(at)) {
                row.count += 1;
                row.last_seen = row.last_seen.max(now);
            }
            return true;
        }
        let (source, host, port) = key;
        if self.lately(source, now) >= limits::BLOCKED_NEW_PER_MINUTE {
            return false;
        }
        if self.rows.len() >= limits::BLOCKED_ROWS {
            self.evict();
        }
        let number = self.first + self.rows.len() as u64;
        self.rows.push_back(BlockedRow {
            host: host.into(),
            port,
            source_sandbox: source.into(),
            count: 1,
            first_seen: now,
            last_seen: now,
        });
        let (rows, first, hasher) = (&self.rows, self.first, &self.hasher);
        self.index.insert_unique(hash, number, |number| {
            key_at(rows, first, *number).map_or(0, |key| hasher.hash_one(key))
        });
        true
    }

    /// Rows that a source added within the window. A clock that stepped back does not make it wait.
    fn lately(&self, source: &str, now: u64) -> usize {
        let recent = self.rows.iter().rev().take_while(|row| row.first_seen.saturating_add(WINDOW) > now);
        recent.filter(|row| row.first_seen <= now && row.source_sandbox == source).count()
    }

    fn evict(&mut self) {
        let Some(row) = self.rows.front() else { return };
        let hash = self.hasher.hash_one(key_of(row));
        if let Ok(entry) = self.index.find_entry(hash, |number| *number == self.first) {
            entry.remove();
        }
        self.rows.pop_front();
        self.first += 1;
    }
}

fn key_of(row: &BlockedRow) -> Key<'_> {
    (&row.source_sandbox, &row.host, row.port)
}

fn key_at(rows: &VecDeque<BlockedRow>, first: u64, number: u64) -> Option<Key<'_>> {
    rows.get(usize::try_from(number.checked_sub(first)?).ok()?).map(key_of)
}

/// In lower case, without dots at the end, no longer than a row keeps.
fn normal(host: &str) -> Cow<'_, str> {
    let host = host.trim_end_matches('.');
    let end = (0..=HOST_BYTES.min(host.len())).rev().find(|end| host.is_char_boundary(*end));
    let host = host.get(..end.unwrap_or(0)).unwrap_or("");
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return host.to_ascii_lowercase().into();
    }
    host.into()
}

#[cfg(test)]
mod tests;
