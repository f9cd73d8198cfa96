//! The append-only, hash-chained audit log: one record for every decision and call.
//!
//! [`Audit::append`] stages a record in a mapped spool file and returns; from then on the death of the process
//! cannot lose it. A writer thread turns staged records into lines of `YYYY-MM-DD.jsonl`:
//!
//! ```json
//! {"sandbox":"s","seq":0,"ts":"2026-01-02T03:04:05Z","agent_id":"s","action":"a","decision":"allow",
//!  "prev_hash":"","hash":"…","call":{"at":"2026-01-02T03:04:05.678Z",…},"record_hash":"…"}
//! ```
//!
//! on one line without spaces. `hash` is the reference's,
//! `hex(sha256("<seq>|<ts>|<agent_id>|<action>|<decision>|<prev_hash>"))` over the unescaped strings, and covers what
//! it covers there. `record_hash` is `hex(sha256(p || l))`, where `p` is
//! the `record_hash` of the line before (empty for the first) and `l` the line's bytes from `{` up to, not
//! including, `,"record_hash"`: it covers every byte of every line. Members of `call` that are empty, zero or false
//! are left out; the first line of a file repeats `p` as `call.prev_record`, so that it can be checked when older files
//! are gone. Sequence and chains continue over days and restarts. Records that were lost, because the disk
//! refused them or with the power, leave a line whose action is `audit:lost` and whose `call.lost` counts them.
//!
//! [`verify`] checks all of it. What no chain without a key can show: a tail cut off at a line's end, and a log
//! rewritten from some line on with all hashes recomputed.

mod line;
mod log;
mod spool;
mod verify;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::error::Result;

pub use verify::{Break, Fault, Report, verify};
use writer::Writer;

/// One record, borrowed: written before the call returns, so nothing is copied twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// Milliseconds since the epoch.
    pub ts_ms: u64,
    /// Whose decision it was; this sandbox's own name.
    pub agent: &'a str,
    /// What was asked: `inference:chat_completions:<model>`, `admin:model`, …
    pub action: &'a str,
    /// `allow` or `deny`.
    pub decision: &'a str,
    /// The rule or limit that decided, such as `inference-policy/tokenBudget.dailyTokens`.
    pub rule: &'a str,
    /// The decision id, unique per call.
    pub decision_id: u64,
    /// The trace id.
    pub trace_id: &'a str,
    /// Digest of the policy in force, empty when none.
    pub policy: &'a str,
    /// Model sent upstream.
    pub model: &'a str,
    /// Provider name.
    pub provider: &'a str,
    /// HTTP status sent to the client; 0 when it left first.
    pub status: u16,
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Whether the tokens are an estimate because the provider's own numbers were not seen.
    pub estimated: bool,
    /// Microseconds from the request's head to the answer's end.
    pub latency_us: u64,
    /// Microseconds to the first content byte; 0 when there was none.
    pub first_byte_us: u64,
    /// Attempts made upstream.
    pub attempts: u32,
    /// Bytes from the client to the destination, for connections that leave.
    pub sent_bytes: u64,
    /// Bytes from the destination to the client.
    pub received_bytes: u64,
    /// The address dialled.
    pub address: &'a str,
    /// Why a connection may leave or may not, as [`crate::ids::EgressReason`] names it.
    pub reason: &'a str,
    /// How it ended: `complete`, `client_gone`, an error step's name, …
    pub end: &'a str,
}

/// The log of one sandbox. Appending is cheap, bounded and survives kill -9.
///
/// Dropping it writes out and syncs what is pending.
#[derive(Debug)]
pub struct Audit {
    appended: AtomicU64,
    writer: Option<Arc<Writer>>,
}

impl Audit {
    /// Opens the log in `dir`, or keeps none on disk when `dir` is `None`. What an earlier process staged and did
    /// not write is written first. Reads only the end of the newest file; a torn last line is cut off. A log that
    /// another process holds is a [`crate::error::Kind::Config`] error.
    pub fn open(dir: Option<&Path>, sandbox: &str) -> Result<Self> {
        let writer = dir.map(|dir| Writer::start(dir, sandbox)).transpose()?;
        Ok(Self { appended: AtomicU64::new(0), writer })
    }

    /// Appends one record. Waits only when the spool is full, and then at most a second; a record that finds
    /// no room even so is lost and counted. Strings are cut to 512 bytes.
    pub fn append(&self, record: &Record<'_>) {
        self.appended.fetch_add(1, Relaxed);
        if let Some(writer) = &self.writer {
            writer.append(record);
        }
    }

    /// Records lost because the disk refused them; must stay 0.
    pub fn dropped(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.dropped())
    }

    /// Records appended since the start, lost ones included.
    pub fn appended(&self) -> u64 {
        self.appended.load(Relaxed)
    }

    /// Writes out what is pending and syncs it to the disk; returns when that is done. Takes milliseconds.
    pub fn flush(&self) -> Result<()> {
        self.writer.as_ref().map_or(Ok(()), |writer| writer.flush())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.stop();
        }
    }
}

#[cfg(test)]
mod tests;
