//! The file behind the learned rows: a line that tells what it is, then a row per line, the last of each row in force.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::LearnedRow;
use crate::error::{Error, Kind, Result};
use crate::telemetry::mapped::{lock, make_dir};

/// The first line.
const HEADER: &str = "{\"kars\":\"egress-learned\",\"version\":1}\n";
/// What the first line of every version begins with.
const MARK: &str = "{\"kars\":\"egress-learned\",";
/// Longest line: a host, a shape and the numbers stay below 1 KiB, escaped below 2.
const LINE_BYTES: usize = 4096;
/// The file is written anew when it holds more lines than this times its rows, and some more, so that a few busy rows do
/// not have it written every minute.
const LINES_PER_ROW: usize = 4;
const SPARE_LINES: usize = 1024;

/// The file, open for appending. Its lock, on a file beside it, is held until it is dropped or the process dies.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    sheet: Sheet,
    _lock: File,
}

/// One file that lines are appended to.
#[derive(Debug)]
struct Sheet {
    file: File,
    /// Bytes of whole lines in it.
    len: u64,
    lines: usize,
    /// Whether a write failed, so that bytes after `len` must go first.
    torn: bool,
}

/// The text of a file that is to replace the journal's.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    text: Vec<u8>,
    rows: usize,
}

/// A file that holds a draft, on the disk.
#[derive(Debug)]
pub(super) struct Fresh {
    path: PathBuf,
    sheet: Sheet,
    rows: usize,
}

impl Journal {
    /// Opens or makes the file and hands each of its rows to `take`, older states of a row before newer ones.
    pub(super) fn open(path: &Path, take: &mut dyn FnMut(LearnedRow)) -> Result<Self> {
        let fail =
            |what: &str, cause: &io::Error| Error::io(format_args!("{what} {}", path.display()), cause);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            make_dir(dir)?;
        }
        let beside = beside(path, ".lock");
        let held = options().truncate(false).open(&beside).map_err(|e| fail("cannot lock", &e))?;
        lock(&held, path)?;
        let file = options().read(true).open(path).map_err(|e| fail("cannot open", &e))?;
        let mut sheet = Sheet { file, len: 0, lines: 0, torn: true };
        let unreadable = sheet.read(path, take)?;
        if unreadable > 0 {
            tracing::warn!(lines = unreadable, path = %path.display(), "egress.learned_unreadable");
        }
        let begun = if sheet.len == 0 { sheet.begin() } else { sheet.trim() };
        begun.map_err(|e| fail("cannot write", &e))?;
        Ok(Self { path: path.into(), sheet, _lock: held })
    }

    /// Appends rows with one write.
    pub(super) fn append<'r>(&mut self, rows: impl IntoIterator<Item = &'r LearnedRow>) -> Result<()> {
        let (text, lines) = text_of(rows, Vec::new())?;
        self.sheet.append(&text, lines).map_err(|e| self.failed(&e))
    }

    /// The text of a new file, when there are many more lines than rows.
    pub(super) fn draft<'r>(&self, rows: impl ExactSizeIterator<Item = &'r LearnedRow>) -> Option<Draft> {
        let count = rows.len();
        if self.sheet.lines <= count * LINES_PER_ROW + SPARE_LINES {
            return None;
        }
        let (text, _) = text_of(rows, HEADER.as_bytes().to_vec()).ok()?;
        Some(Draft { path: beside(&self.path, ".tmp"), text, rows: count })
    }

    /// Goes on in a new file, which takes the old one's place.
    pub(super) fn replace(&mut self, fresh: Fresh) -> Result<()> {
        fs::rename(&fresh.path, &self.path).map_err(|e| self.failed(&e))?;
        self.sheet = fresh.sheet;
        Ok(())
    }

    /// Takes all rows out.
    pub(super) fn empty(&mut self) -> Result<()> {
        let len = HEADER.len() as u64;
        self.sheet.file.set_len(len).map_err(|e| self.failed(&e))?;
        (self.sheet.len, self.sheet.lines, self.sheet.torn) = (len, 0, false);
        Ok(())
    }

    fn failed(&self, cause: &io::Error) -> Error {
        Error::io(format_args!("cannot write {}", self.path.display()), cause)
    }

    /// Goes on with a file that takes no writes; gives the good one back.
    #[cfg(test)]
    pub(super) fn refuse_writes(&mut self) -> File {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        std::mem::replace(&mut self.sheet.file, full)
    }

    #[cfg(test)]
    pub(super) fn accept_writes(&mut self, good: File) {
        self.sheet.file = good;
    }
}

impl Draft {
    /// Writes the new file beside the old one and waits for the disk.
    pub(super) fn write(self) -> Result<Fresh> {
        let write = || {
            let file = options().truncate(false).open(&self.path)?;
            file.set_len(0)?;
            let mut sheet = Sheet { file, len: 0, lines: 0, torn: false };
            sheet.append(&self.text, self.rows)?;
            sheet.file.sync_data()?;
            Ok(sheet)
        };
        match write() {
            Ok(sheet) => Ok(Fresh { path: self.path, sheet, rows: self.rows }),
            Err(cause) => Err(Error::io(format_args!("cannot write {}", self.path.display()), &cause)),
        }
    }
}

impl Fresh {
    /// Rows in it.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Appends rows with one write.
    pub(super) fn append<'r>(&mut self, rows: impl IntoIterator<Item = &'r LearnedRow>) -> Result<()> {
        let (text, lines) = text_of(rows, Vec::new())?;
        let path = &self.path;
        self.sheet
            .append(&text, lines)
            .map_err(|e| Error::io(format_args!("cannot write {}", path.display()), &e))
    }
}

impl Sheet {
    /// Writes the first line to the disk: without it, the file would be someone else's.
    fn begin(&mut self) -> io::Result<()> {
        self.append(HEADER.as_bytes(), 0)?;
        self.file.sync_data()
    }

    fn append(&mut self, text: &[u8], lines: usize) -> io::Result<()> {
        self.trim()?;
        self.torn = true;
        self.file.write_all(text)?;
        self.torn = false;
        self.len += text.len() as u64;
        self.lines += lines;
        Ok(())
    }

    /// Cuts off what is no whole line.
    fn trim(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Reads the file up to its last whole line; gives the number of lines that are no rows.
    fn read(&mut self, path: &Path, take: &mut dyn FnMut(LearnedRow)) -> Result<usize> {
        let fail = |e: io::Error| Error::io(format_args!("cannot read {}", path.display()), &e);
        let mut file = BufReader::with_capacity(16 * LINE_BYTES, self.file.try_clone().map_err(fail)?);
        let mut line = Vec::new();
        read_line(&mut file, &mut line).map_err(fail)?;
        if !line.ends_with(b"\n") && HEADER.as_bytes().starts_with(&line) {
            // A new file, or one whose maker died first.
            return Ok(0);
        }
        if line != HEADER.as_bytes() {
            let what = if line.starts_with(MARK.as_bytes()) {
                "was written by another version of kars"
            } else {
                "holds something else than learned destinations"
            };
            return Err(Error::new(Kind::Config, format!("{} {what}; it is left as it is", path.display())));
        }
        self.len = HEADER.len() as u64;
        let mut unreadable = 0;
        loop {
            let length = read_line(&mut file, &mut line).map_err(fail)?;
            if !line.ends_with(b"\n") {
                return Ok(unreadable);
            }
            self.len += length;
            self.lines += 1;
            match serde_json::from_slice(&line) {
                Ok(row) => take(row),
                Err(_) => unreadable += 1,
            }
        }
    }
}

/// Reads a line, of which `line` keeps the beginning and the end's `\n`; gives its whole length.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut length = 0;
    let mut part = Vec::new();
    loop {
        part.clear();
        let read = file.by_ref().take(LINE_BYTES as u64).read_until(b'\n', &mut part)?;
        length += read as u64;
        let ended = part.ends_with(b"\n");
        if line.is_empty() {
            line.append(&mut part);
        } else if ended {
            line.push(b'\n');
        }
        if ended || read == 0 {
            return Ok(length);
        }
    }
}

/// Appends each row as a line; gives the text and the number of lines.
fn text_of<'r>(
    rows: impl IntoIterator<Item = &'r LearnedRow>,
    mut text: Vec<u8>,
) -> Result<(Vec<u8>, usize)> {
    let mut lines = 0;
    for row in rows {
        serde_json::to_writer(&mut text, row)
            .map_err(|e| Error::new(Kind::Bug, format!("a learned row cannot be written: {e}")))?;
        text.push(b'\n');
        lines += 1;
    }
    Ok((text, lines))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}
