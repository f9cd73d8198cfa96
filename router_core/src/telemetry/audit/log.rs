//! The log's files and its chain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Record;
use super::line::{DATE_BYTES, RECORD_HASH, Stamp, call, escape, hex};
use super::spool::{self, Staged};
use crate::error::{Error, Result};

/// Longest line: every string at its longest and every byte of it escaped, and as much again for the rest.
pub(super) const LINE_BYTES: usize = 64 * 1024;
/// The action of a line that stands for lost records.
pub(super) const LOST: &str = "audit:lost";
const LOST_DECISION: &str = "lost";

/// Where the chain stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    /// The next line's number; `None` when neither log nor spool tell.
    pub(super) next: Option<u64>,
    /// `hash` of the last line, in hex.
    pub(super) hash: String,
    /// `record_hash` of the last line, in hex.
    pub(super) record_hash: String,
}

/// The log of a directory, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    /// The sandbox's name, and the same escaped for JSON.
    sandbox: String,
    sandbox_json: String,
    pub(super) chain: Chain,
    day: Option<Day>,
    stamp: Stamp,
    /// Lines rendered and not written yet, and the chain before them.
    lines: String,
    before: Chain,
    scratch: String,
    unsynced: bool,
}

/// The file that is appended to.
#[derive(Debug)]
struct Day {
    /// `2026-01-02`.
    date: String,
    file: Arc<File>,
    /// Bytes of whole lines in it.
    len: u64,
    /// Whether a write failed in the middle, so that bytes after `len` must go first.
    torn: bool,
    #[cfg(test)]
    fails: bool,
}

/// What continuing a chain needs of a line.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    hash: String,
    #[serde(default)]
    record_hash: String,
}

impl Log {
    /// Opens the log in `dir`: finds the end of the chain and cuts a torn last line off.
    pub(super) fn open(dir: &Path, sandbox: &str) -> Result<Self> {
        let mut log = Self {
            dir: dir.into(),
            sandbox: sandbox.into(),
            sandbox_json: String::new(),
            chain: Chain::default(),
            day: None,
            stamp: Stamp::default(),
            lines: String::new(),
            before: Chain::default(),
            scratch: String::new(),
            unsynced: false,
        };
        escape(sandbox, &mut log.sandbox_json);
        for date in segments(dir)?.into_iter().rev() {
            let chain = log.open_day(&date)?;
            if let Some(chain) = chain {
                log.chain = chain;
                break;
            }
        }
        Ok(log)
    }

    /// Renders a staged record. Returns false, having done nothing, when [`Self::write`] must come first because the
    /// record begins a new day. A record that the log has already is passed over.
    pub(super) fn render(&mut self, staged: &Staged<'_>) -> Result<bool> {
        if self.chain.next.is_some_and(|next| staged.seq < next) {
            return Ok(true);
        }
        self.stamp.set(staged.record.ts_ms);
        // The clock may step back; the files' names must not, as their order is the chain's.
        if self.day.as_ref().is_none_or(|day| day.date.as_str() < self.stamp.date()) {
            if !self.lines.is_empty() {
                return Ok(false);
            }
            self.turn()?;
        }
        if self.lines.is_empty() {
            self.before.clone_from(&self.chain);
        }
        let next = self.chain.next.unwrap_or(staged.seq);
        if let Some(lost) = staged.seq.checked_sub(next).filter(|lost| *lost > 0) {
            let sandbox = std::mem::take(&mut self.sandbox);
            let record =
                Record { agent: &sandbox, action: LOST, decision: LOST_DECISION, ..Record::default() };
            self.line(staged.seq - 1, &record, lost);
            self.sandbox = sandbox;
        }
        self.line(staged.seq, &staged.record, 0);
        Ok(true)
    }

    /// Writes the rendered lines out. On failure the chain is where it was before them.
    pub(super) fn write(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = match &mut self.day {
            Some(day) => day.append(self.lines.as_bytes()),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        self.lines.clear();
        match written {
            Ok(()) => {
                self.unsynced = true;
                Ok(())
            }
            Err(cause) => {
                self.chain.clone_from(&self.before);
                Err(Error::io(format_args!("cannot write the audit log in {}", self.dir.display()), &cause))
            }
        }
    }

    /// The file whose last lines are not known to be on the disk, handed out once.
    pub(super) fn take_unsynced(&mut self) -> Option<Arc<File>> {
        let day = self.day.as_ref().filter(|_| self.unsynced)?;
        self.unsynced = false;
        Some(Arc::clone(&day.file))
    }

    /// Whether lines were written that no [`Self::take_unsynced`] has asked for.
    pub(super) fn unsynced(&self) -> bool {
        self.unsynced
    }

    /// Lets go of a file that was removed, so that the next line begins it anew.
    pub(super) fn drop_removed(&mut self) {
        let removed = |day: &Day| day.file.metadata().is_ok_and(|meta| meta.nlink() == 0);
        if self.day.as_ref().is_some_and(removed) {
            self.day = None;
        }
    }

    /// Notes that syncing what was taken failed.
    pub(super) fn sync_failed(&mut self) {
        self.unsynced = true;
    }

    #[cfg(test)]
    pub(super) fn fail_next_write(&mut self) {
        self.day.as_mut().unwrap().fails = true;
    }

    /// Begins the file of the stamp's day.
    fn turn(&mut self) -> Result<()> {
        if let Some(file) = self.take_unsynced() {
            file.sync_data().map_err(|e| Error::io("cannot sync the audit log", &e))?;
        }
        let date = self.stamp.date().to_owned();
        self.day = Some(Day::open(&self.dir, &date)?);
        // The new name must be on the disk before the lines in it mean anything.
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| Error::io(format_args!("cannot sync {}", self.dir.display()), &e))
    }

    /// Opens a day's file, for appending if it is the newest, and returns the chain at its end if it has lines.
    fn open_day(&mut self, date: &str) -> Result<Option<Chain>> {
        let mut day = Day::open(&self.dir, date)?;
        let fail =
            |e| Error::io(format_args!("cannot read the audit log of {date} in {}", self.dir.display()), &e);
        let chain = day.seal().map_err(fail)?;
        if self.day.is_none() {
            self.day = Some(day);
        }
        Ok(chain)
    }

    fn line(&mut self, seq: u64, record: &Record<'_>, lost: u64) {
        let Self { chain, stamp, lines, scratch, sandbox_json, day, .. } = self;
        let first = lines.is_empty() && day.as_ref().is_some_and(|day| day.len == 0);
        let mut digits = itoa::Buffer::new();
        let seq_digits = digits.format(seq);
        let start = lines.len();
        scratch.clear();
        for part in [seq_digits, stamp.second(), record.agent, record.action, record.decision, &*chain.hash] {
            scratch.push_str(part);
            scratch.push('|');
        }
        scratch.pop();
        let hash = hex(&Sha256::digest(scratch.as_bytes()));

        lines.push_str("{\"sandbox\":\"");
        lines.push_str(sandbox_json);
        lines.push_str("\",\"seq\":");
        lines.push_str(seq_digits);
        lines.push_str(",\"ts\":\"");
        lines.push_str(stamp.second());
        for (name, text) in [
            ("\",\"agent_id\":\"", record.agent),
            ("\",\"action\":\"", record.action),
            ("\",\"decision\":\"", record.decision),
        ] {
            lines.push_str(name);
            escape(text, lines);
        }
        lines.push_str("\",\"prev_hash\":\"");
        lines.push_str(&chain.hash);
        lines.push_str("\",\"hash\":\"");
        lines.push_str(&hash);
        lines.push_str("\",\"call\":{\"at\":\"");
        stamp.push_millis(lines);
        lines.push('"');
        call(record, lost, lines);
        if first && !chain.record_hash.is_empty() {
            lines.push_str(",\"prev_record\":\"");
            lines.push_str(&chain.record_hash);
            lines.push('"');
        }
        lines.push('}');

        let body = lines.get(start..).unwrap_or("");
        let record_hash = hex(&Sha256::new().chain_update(&chain.record_hash).chain_update(body).finalize());
        lines.push_str(RECORD_HASH);
        lines.push_str(&record_hash);
        lines.push_str("\"}\n");
        *chain = Chain { next: Some(seq + 1), hash, record_hash };
    }
}

impl Day {
    fn open(dir: &Path, date: &str) -> Result<Self> {
        let path = dir.join(format!("{date}.jsonl"));
        let fail = |e| Error::io(format_args!("cannot open {}", path.display()), &e);
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        Ok(Self {
            date: date.into(),
            file: Arc::new(file),
            len,
            torn: false,
            #[cfg(test)]
            fails: false,
        })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
        }
        self.torn = true;
        #[cfg(test)]
        if std::mem::take(&mut self.fails) {
            (&*self.file).write_all(lines.get(..lines.len() / 2).unwrap_or(&[]))?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        (&*self.file).write_all(lines)?;
        self.torn = false;
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Cuts off bytes after the last line and returns the chain at the last line that can be read.
    fn seal(&mut self) -> io::Result<Option<Chain>> {
        let from = self.len.saturating_sub(LINE_BYTES as u64);
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(LINE_BYTES as u64).read_to_end(&mut tail)?;
        let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
            if from > 0 {
                // No line of ours is that long: whatever it is stays, on a line of its own.
                self.append(b"\n")?;
            } else {
                self.cut(0)?;
            }
            return Ok(None);
        };
        self.cut(from + end as u64 + 1)?;
        let mut lines = tail.get(..end).unwrap_or(&[]).rsplit(|byte| *byte == b'\n');
        Ok(lines.find_map(|line| serde_json::from_slice::<Link>(line).ok()).map(|link| Chain {
            next: Some(link.seq.saturating_add(1)),
            hash: link.hash,
            record_hash: link.record_hash,
        }))
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            self.file.set_len(len)?;
            self.len = len;
        }
        Ok(())
    }
}

/// The dates of the log's files, oldest first.
pub(super) fn segments(dir: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::io(format_args!("cannot list {}", dir.display()), &e);
    let mut dates = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if let Some(date) =
            name.to_str().and_then(|name| name.strip_suffix(".jsonl")).filter(|date| is_date(date))
        {
            dates.push(date.to_owned());
        }
    }
    dates.sort_unstable();
    Ok(dates)
}

fn is_date(text: &str) -> bool {
    let digit =
        |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == DATE_BYTES && text.bytes().enumerate().all(digit)
}

// A line of ours must fit the window in which the end of the chain is looked for.
const _: () = assert!(spool::TEXTS * 6 * spool::TEXT_BYTES + 4096 < LINE_BYTES);
