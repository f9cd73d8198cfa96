//! What learn mode let pass: durable and bounded.

mod journal;
mod shape;

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::error::Result;
use crate::ids::{Destination, EgressDoor, Host};
use crate::limits;

use journal::{Draft, Journal};
use shape::Shape;

/// One observation.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Where to.
    pub destination: &'a Destination,
    /// How it asked.
    pub door: EgressDoor,
    /// Method and path of a plain HTTP request. The path is kept as a shape: its query goes, what looks like an id or a
    /// secret becomes `*`, and what lies deeper than six segments `**`.
    pub request: Option<(&'a str, &'a str)>,
    /// Whether a rule of the policy in force would have allowed it, learn mode or not.
    pub listed: bool,
    /// Unix seconds.
    pub now: u64,
}

/// One row, as `GET /egress/learned` shows it. Host, port, door, method and path together are unique.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LearnedRow {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `connect`, `http`, `tls` or `fetch`.
    pub door: String,
    /// The method of a plain HTTP request, `*` when it is none of the usual form, else empty.
    pub method: String,
    /// The path's shape of a plain HTTP request, else empty.
    pub path: String,
    /// How often.
    pub count: u64,
    /// Unix seconds.
    pub first_seen: u64,
    /// Unix seconds.
    pub last_seen: u64,
    /// Whether a rule would have allowed it when it was last seen.
    #[serde(default)]
    pub listed: bool,
}

/// The store: at most [`limits::LEARNED_ROWS`] rows. Rows survive kill -9; counts since the last write-out may be lost.
#[derive(Debug, Default)]
pub struct Learned {
    /// Held while the file is written out or emptied; taken before `table`.
    keeping: Mutex<()>,
    table: Mutex<Table>,
    dropped: AtomicU64,
}

impl Learned {
    /// Opens the store at `path`, or keeps it in memory only. A torn last line, as a kill leaves it, is cut off.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] when another process holds the file or when it holds something else, which
    /// leaves it as it is; [`crate::error::Kind::Io`] when it cannot be read or written.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let learned = Self::default();
        if let Some(path) = path {
            let mut table = learned.table();
            let journal = Journal::open(path, &mut |row| {
                if !table.restore(row) {
                    learned.dropped.fetch_add(1, Relaxed);
                }
            })?;
            table.journal = Some(journal);
        }
        Ok(learned)
    }

    /// Notes one connection. Does not allocate for a row that is there; a new row is in the file when it returns. What
    /// the disk refuses is written by the next [`Self::sync`].
    pub fn observe(&self, seen: &Seen<'_>) {
        let mut room = [0; IP_BYTES];
        let (method, shape) = match seen.request {
            Some((method, path)) => (shape::method(method), Shape::of(path)),
            None => ("", Shape::default()),
        };
        let Destination { host, port } = seen.destination;
        let key = Key {
            host: host_text(host, &mut room),
            port: *port,
            door: seen.door.name(),
            method,
            path: shape.as_str(),
        };
        if !self.table().observe(&key, seen.listed, seen.now) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// All rows, by host, port, method, path and door.
    pub fn rows(&self) -> Vec<LearnedRow> {
        let mut rows: Vec<LearnedRow> = self.table().rows.iter().map(|entry| entry.row.clone()).collect();
        rows.sort_by(|a, b| a.key().order().cmp(&b.key().order()));
        rows
    }

    /// Rows held.
    pub fn len(&self) -> usize {
        self.table().rows.len()
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Observations that found no room for a row since the start or the last [`Self::clear`].
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// [`crate::error::Kind::Io`] when the file cannot be emptied; then everything is kept.
    pub fn clear(&self) -> Result<()> {
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.table();
        if let Some(journal) = &mut table.journal {
            journal.empty()?;
        }
        table.rows.clear();
        table.index.clear();
        self.dropped.store(0, Relaxed);
        Ok(())
    }

    /// Writes out counts that changed; called every second or so by the keeper thread. Now and then it writes the file
    /// anew and waits for the disk; connections do not wait meanwhile.
    ///
    /// # Errors
    /// [`crate::error::Kind::Io`]; what could not be written is tried again by the next call.
    pub fn sync(&self) -> Result<()> {
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(draft) = self.table().write_changes()? else { return Ok(()) };
        let fresh = draft.write()?;
        self.table().adopt(fresh)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows, in the order in which they came, and the file they are written to.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<Entry>,
    index: HashTable<u32>,
    hasher: RandomState,
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Entry {
    row: LearnedRow,
    /// Whether the file does not hold the row as it is.
    changed: bool,
}

impl Table {
    /// Counts an observation; false when there is no room for its row.
    fn observe(&mut self, key: &Key<'_>, listed: bool, now: u64) -> bool {
        if let Some(entry) = self.find(key) {
            let row = &mut entry.row;
            row.count = row.count.saturating_add(1);
            row.last_seen = row.last_seen.max(now);
            row.listed = listed;
            entry.changed = true;
            return true;
        }
        let row = LearnedRow {
            host: key.host.into(),
            port: key.port,
            door: key.door.into(),
            method: key.method.into(),
            path: key.path.into(),
            count: 1,
            first_seen: now,
            last_seen: now,
            listed,
        };
        if self.rows.len() >= limits::LEARNED_ROWS {
            return false;
        }
        // A row that the disk refuses now is written by the next write-out.
        let written = self.journal.as_mut().is_some_and(|journal| journal.append([&row]).is_ok());
        self.push(row, !written);
        true
    }

    /// Takes a row from the file, over an older state of it; false when there is no room.
    fn restore(&mut self, row: LearnedRow) -> bool {
        if let Some(entry) = self.find(&row.key()) {
            entry.row = row;
            return true;
        }
        let room = self.rows.len() < limits::LEARNED_ROWS;
        if room {
            self.push(row, false);
        }
        room
    }

    /// Appends what changed to the file; a draft when the file is to be written anew.
    fn write_changes(&mut self) -> Result<Option<Draft>> {
        let Some(journal) = &mut self.journal else { return Ok(None) };
        let changed = || self.rows.iter().filter(|entry| entry.changed).map(|entry| &entry.row);
        if changed().next().is_some() {
            journal.append(changed())?;
            self.rows.iter_mut().for_each(|entry| entry.changed = false);
        }
        Ok(journal.draft(self.rows.iter().map(|entry| &entry.row)))
    }

    /// Goes on in a file written anew, after the rows that came meanwhile.
    fn adopt(&mut self, mut fresh: journal::Fresh) -> Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let missing = self.rows.get(fresh.rows()..).unwrap_or(&[]);
        fresh.append(missing.iter().map(|entry| &entry.row))?;
        journal.replace(fresh)
    }

    fn push(&mut self, row: LearnedRow, changed: bool) {
        let hash = self.hasher.hash_one(row.key());
        let at = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(Entry { row, changed });
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index.insert_unique(hash, at, |at| key_at(rows, *at).map_or(0, |key| hasher.hash_one(key)));
    }

    fn find(&mut self, key: &Key<'_>) -> Option<&mut Entry> {
        let (rows, hash) = (&self.rows, self.hasher.hash_one(key));
        let at = *self.index.find(hash, |at| key_at(rows, *at).as_ref() == Some(key))?;
        self.rows.get_mut(usize::try_from(at).ok()?)
    }
}

/// What makes a row one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'a> {
    host: &'a str,
    port: u16,
    door: &'a str,
    method: &'a str,
    path: &'a str,
}

impl<'a> Key<'a> {
    fn order(&self) -> (&'a str, u16, &'a str, &'a str, &'a str) {
        (self.host, self.port, self.method, self.path, self.door)
    }
}

impl LearnedRow {
    fn key(&self) -> Key<'_> {
        Key { host: &self.host, port: self.port, door: &self.door, method: &self.method, path: &self.path }
    }
}

/// The key of the row at an index.
fn key_at(rows: &[Entry], at: u32) -> Option<Key<'_>> {
    rows.get(usize::try_from(at).ok()?).map(|entry| entry.row.key())
}

/// Longest text of an address: eight groups of four digits between brackets, or an IPv4 address mapped.
const IP_BYTES: usize = 48;

/// The host's text; an address is written into `room`.
fn host_text<'h>(host: &'h Host, room: &'h mut [u8; IP_BYTES]) -> &'h str {
    let Host::Ip(_) = host else { return host.name().unwrap_or("") };
    let mut rest = room.as_mut_slice();
    let _ = write!(rest, "{host}");
    let left = rest.len();
    room.get(..IP_BYTES - left).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("")
}

#[cfg(test)]
mod tests;
