//! Checking a log.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::line::{RECORD_HASH, hex};
use super::log::{LINE_BYTES, LOST, segments};
use crate::error::{Error, Result};

/// How often the end of a line is looked for, and the pause between.
const LINE_END_ATTEMPTS: u32 = 5;
const LINE_END_PAUSE: Duration = Duration::from_millis(10);

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files read.
    pub files: u64,
    /// Sound lines, up to the first break.
    pub records: u64,
    /// Records that lines say were lost.
    pub lost: u64,
    /// Sequence number of the first line; above 0 when older files were removed.
    pub first_seq: Option<u64>,
    /// Sequence number of the last sound line.
    pub last_seq: Option<u64>,
    /// Time of the first line.
    pub first_ts: Option<String>,
    /// Time of the last sound line.
    pub last_ts: Option<String>,
    /// `record_hash` of the last sound line: kept elsewhere, it shows later whether the tail was cut or rewritten.
    pub head: String,
    /// The first break.
    pub broken: Option<Break>,
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The file's name in the directory.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The file ends within it.
    Torn,
    /// It is not a line of this log.
    Unreadable,
    /// Its own `hash` or `record_hash` does not fit its bytes.
    Hash,
    /// It does not follow from the line before: that one was removed, replaced or changed.
    Link,
    /// Records are missing before it.
    Gap {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// It belongs further up.
    Order {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        got: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("the file ends within the line"),
            Self::Unreadable => f.write_str("not a line of the audit log"),
            Self::Hash => f.write_str("the line was changed: its hash does not fit"),
            Self::Link => f.write_str("the line does not follow from the one before it"),
            Self::Gap { expected, got } => {
                write!(f, "records {expected} to {} are missing", got.saturating_sub(1))
            }
            Self::Order { expected, got } => write!(f, "record {got} where {expected} should be"),
        }
    }
}

/// A line's members.
#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow)]
    agent_id: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    decision: Cow<'a, str>,
    #[serde(borrow)]
    prev_hash: Cow<'a, str>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    #[serde(borrow, default)]
    call: Call<'a>,
    /// Absent in lines of the reference, which may precede ours.
    #[serde(borrow)]
    record_hash: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
struct Call<'a> {
    #[serde(default)]
    lost: u64,
    /// In the first line of a file: the `record_hash` of the line before.
    #[serde(borrow, default)]
    prev_record: Cow<'a, str>,
}

/// Checks the log in `dir`, oldest file first, up to the first break. Memory does not depend on the log's length.
/// An error means that a file could not be read; a broken log is no error.
pub fn verify(dir: &Path) -> Result<Report> {
    let mut check = Check::default();
    for date in segments(dir)? {
        let name = format!("{date}.jsonl");
        let path = dir.join(&name);
        let fail = |e| Error::io(format_args!("cannot read {}", path.display()), &e);
        let mut file = BufReader::with_capacity(LINE_BYTES, File::open(&path).map_err(fail)?);
        let mut line = Vec::new();
        check.report.files += 1;
        for number in 1.. {
            read_line(&mut file, &mut line).map_err(fail)?;
            if line.is_empty() {
                break;
            }
            if let Err(fault) = check.line(&line) {
                check.report.broken = Some(Break { file: name, line: number, fault });
                return Ok(check.report);
            }
        }
    }
    Ok(check.report)
}

/// Reads a line of at most [`LINE_BYTES`]. One whose end is missing may be in the middle of being written, so it
/// gets some time to come.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<()> {
    line.clear();
    for _ in 0..LINE_END_ATTEMPTS {
        let room = (LINE_BYTES - line.len()) as u64;
        file.by_ref().take(room).read_until(b'\n', line)?;
        if line.is_empty() || line.len() >= LINE_BYTES || line.ends_with(b"\n") {
            break;
        }
        thread::sleep(LINE_END_PAUSE);
    }
    Ok(())
}

/// The state between two lines.
#[derive(Default)]
struct Check {
    report: Report,
    hash: String,
    scratch: String,
}

impl Check {
    fn line(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Some(text) = bytes.strip_suffix(b"\n") else {
            return Err(if bytes.len() < LINE_BYTES { Fault::Torn } else { Fault::Unreadable });
        };
        let text = std::str::from_utf8(text).map_err(|_| Fault::Unreadable)?;
        let line: Line<'_> = serde_json::from_str(text).map_err(|_| Fault::Unreadable)?;
        self.order(&line)?;
        let first = self.report.last_seq.is_none();
        if !first && line.prev_hash != self.hash.as_str() {
            return Err(Fault::Link);
        }
        self.own_hash(&line)?;
        let record_hash = self.record_hash(text, &line, first)?;

        self.hash.clear();
        self.hash.push_str(&line.hash);
        let report = &mut self.report;
        report.records += 1;
        report.lost += line.call.lost;
        report.head = record_hash;
        report.last_seq = Some(line.seq);
        report.first_seq.get_or_insert(line.seq);
        report.first_ts.get_or_insert_with(|| line.ts.to_string());
        let last = report.last_ts.get_or_insert_default();
        last.clear();
        last.push_str(&line.ts);
        Ok(())
    }

    fn order(&self, line: &Line<'_>) -> Result<(), Fault> {
        let Some(last) = self.report.last_seq else { return Ok(()) };
        let (expected, got) = (last.saturating_add(1), line.seq);
        // A line for lost records has the number of the last of them.
        let told = if line.action == LOST { line.call.lost.saturating_sub(1) } else { 0 };
        match got.checked_sub(told) {
            Some(from) if from == expected => Ok(()),
            _ if got > expected => Err(Fault::Gap { expected, got }),
            _ => Err(Fault::Order { expected, got }),
        }
    }

    fn own_hash(&mut self, line: &Line<'_>) -> Result<(), Fault> {
        self.scratch.clear();
        self.scratch.push_str(itoa::Buffer::new().format(line.seq));
        for part in [&line.ts, &line.agent_id, &line.action, &line.decision, &line.prev_hash] {
            self.scratch.push('|');
            self.scratch.push_str(part);
        }
        if hex(&Sha256::digest(self.scratch.as_bytes())) == line.hash { Ok(()) } else { Err(Fault::Hash) }
    }

    /// Checks and returns `record_hash`. A log that was begun by the reference has lines without; once a line has it,
    /// all must.
    fn record_hash(&self, text: &str, line: &Line<'_>, first: bool) -> Result<String, Fault> {
        let Some(record_hash) = &line.record_hash else {
            return if self.report.head.is_empty() { Ok(String::new()) } else { Err(Fault::Hash) };
        };
        let (body, tail) = text.rsplit_once(RECORD_HASH).ok_or(Fault::Unreadable)?;
        if tail.strip_suffix("\"}") != Some(record_hash.as_ref()) {
            return Err(Fault::Unreadable);
        }
        // When older files were removed, only the line itself tells what it follows from.
        let previous = if first { &*line.call.prev_record } else { &*self.report.head };
        let digest = Sha256::new().chain_update(previous).chain_update(body).finalize();
        if hex(&digest) == record_hash.as_ref() { Ok(hex(&digest)) } else { Err(Fault::Hash) }
    }
}
