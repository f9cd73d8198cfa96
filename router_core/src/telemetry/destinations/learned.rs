//! What learn mode let pass: durable and bounded.

use std::path::Path;

use crate::error::Result;
use crate::ids::{Destination, EgressDoor};

/// One observation.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Where to.
    pub destination: &'a Destination,
    /// How it asked.
    pub door: EgressDoor,
    /// Method and path of a plain HTTP request. The path is kept as a shape: what looks like an id becomes `*`.
    pub request: Option<(&'a str, &'a str)>,
    /// Whether a rule of the policy in force would have allowed it, learn mode or not.
    pub listed: bool,
    /// Unix seconds.
    pub now: u64,
}

/// One row, as `GET /egress/learned` shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LearnedRow {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `connect`, `http`, `tls` or `fetch`.
    pub door: String,
    /// The method of a plain HTTP request, else empty.
    pub method: String,
    /// The path's shape of a plain HTTP request, else empty.
    pub path: String,
    /// How often.
    pub count: u64,
    /// Unix seconds.
    pub first_seen: u64,
    /// Unix seconds.
    pub last_seen: u64,
}

/// The store. Rows survive kill -9; counts since the last write-out may be lost.
#[derive(Debug, Default)]
pub struct Learned {}

impl Learned {
    /// Opens the store at `path`, or keeps it in memory only.
    pub fn open(_path: Option<&Path>) -> Result<Self> {
        Ok(Self {})
    }

    /// Notes one connection.
    pub fn observe(&self, _seen: &Seen<'_>) {}

    /// All rows, by host, port, method and path.
    pub fn rows(&self) -> Vec<LearnedRow> {
        Vec::new()
    }

    /// Rows that found no room.
    pub fn dropped(&self) -> u64 {
        0
    }

    /// Forgets everything.
    pub fn clear(&self) -> Result<()> {
        Ok(())
    }

    /// Writes out counts that changed; called every second or so by the keeper thread.
    pub fn sync(&self) -> Result<()> {
        Ok(())
    }
}
