//! What was blocked lately: a bounded table in memory.

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedRow {
    /// The host, in lower case.
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

/// The table: at most 1024 rows, the oldest leave first; at most 100 new ones per source and minute.
#[derive(Debug, Default)]
pub struct Blocked {}

impl Blocked {
    /// Notes one refusal; `now` in Unix seconds. `host` is what the client named, be it no name at all.
    pub fn record(&self, _source: &str, _host: &str, _port: u16, _now: u64) {}

    /// Rows last seen at or after `since`, newest first.
    pub fn since(&self, _since: u64) -> Vec<BlockedRow> {
        Vec::new()
    }

    /// Rows that were not taken because their source asked for too many new ones.
    pub fn dropped(&self) -> u64 {
        0
    }
}
