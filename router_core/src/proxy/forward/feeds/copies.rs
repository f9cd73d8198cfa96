//! The last good text of each feed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::policy::blocklist::Builder;

/// The folder's name, beside what learn mode recorded.
const FOLDER: &str = "blocklist-feeds";
/// Bytes parsed at one time.
const CHUNK: usize = 256 * 1024;

/// Where copies are kept.
#[derive(Debug)]
pub enum Copies {
    /// As files, which the next start reads.
    Folder(PathBuf),
    /// In memory: nothing can be written here.
    Memory,
}

/// The text of one feed.
#[derive(Debug)]
pub struct Copy {
    file: File,
    bytes: u64,
    max: u64,
    place: Option<Place>,
}

/// A file under its temporary name, which is removed on drop.
#[derive(Debug)]
struct Place {
    temporary: PathBuf,
    name: PathBuf,
}

impl Copies {
    /// The folder beside `learned`, made where it is missing; else memory. What is left of other feeds is removed.
    pub fn open(learned: Option<&Path>, urls: &[String]) -> Self {
        let Some(folder) = learned.and_then(Path::parent).map(|parent| parent.join(FOLDER)) else {
            return Self::Memory;
        };
        if urls.is_empty() {
            return Self::Folder(folder);
        }
        let copies = Self::Folder(folder.clone());
        let usable = DirBuilder::new().recursive(true).mode(0o700).create(&folder).is_ok()
            && copies.create("").is_ok();
        if !usable {
            tracing::info!(folder = %folder.display(), "blocklist.memory_only");
            return Self::Memory;
        }
        let names: Vec<String> = urls.iter().map(|url| file_name(url)).collect();
        let left = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in left.filter(|e| !names.iter().any(|name| e.file_name() == name.as_str())) {
            // A file that stays costs only its space.
            let _ = std::fs::remove_file(entry.path());
        }
        copies
    }

    /// What an earlier process kept of a feed.
    pub fn kept(&self, url: &str) -> Option<Copy> {
        let Self::Folder(folder) = self else { return None };
        let file = File::open(folder.join(file_name(url))).ok()?;
        let bytes = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        (1..=limits::FEED_BYTES as u64).contains(&bytes).then_some(Copy {
            file,
            bytes,
            max: bytes,
            place: None,
        })
    }

    /// A new, empty copy of a feed.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn create(&self, url: &str) -> Result<Copy> {
        let fail = |e: io::Error| Error::io("cannot keep a copy of the feed", &e);
        match self {
            Self::Folder(folder) => {
                let name = folder.join(file_name(url));
                let temporary = name.with_extension("new");
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(true).mode(0o600);
                let file = options.open(&temporary).map_err(fail)?;
                let max = limits::FEED_BYTES as u64;
                Ok(Copy { file, bytes: 0, max, place: Some(Place { temporary, name }) })
            }
            Self::Memory => {
                let file = memfd_create("kars-feed", MemfdFlags::CLOEXEC).map_err(|e| fail(e.into()))?;
                Ok(Copy { file: file.into(), bytes: 0, max: limits::FEED_MEMORY_BYTES as u64, place: None })
            }
        }
    }
}

impl Copy {
    /// Appends.
    ///
    /// # Errors
    /// [`Kind::TooLarge`], [`Kind::Io`].
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        let (got, max) = (self.bytes.saturating_add(piece.len() as u64), self.max);
        if got > max {
            let where_to =
                if self.place.is_some() { "" } else { " in memory; EGRESS_LEARNED_PATH gives it a folder" };
            let detail = format!("it is larger than the {max} bytes that are kept{where_to}");
            return Err(Error::new(Kind::TooLarge { got, max }, detail));
        }
        self.bytes = got;
        self.file.write_all(piece).map_err(|e| Error::io("cannot keep a copy of the feed", &e))
    }

    /// Gives the copy its name, in place of the one before.
    pub fn accept(&mut self) -> io::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        self.file.sync_data()?;
        std::fs::rename(&place.temporary, &place.name)?;
        self.place = None;
        Ok(())
    }

    /// Adds the copy's names; gives how many.
    pub fn add_to(&self, builder: &mut Builder) -> io::Result<usize> {
        add(&self.file, builder)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It has been renamed, or its space is all that is lost.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Adds a list's names, at most [`limits::FEED_NAMES`] or a stretch more; gives how many.
pub fn add(file: &File, builder: &mut Builder) -> io::Result<usize> {
    let mut names = 0;
    stretches(file, |lines| {
        names += builder.add(lines).0;
        names < limits::FEED_NAMES
    })?;
    Ok(names)
}

/// Gives a file's text, at most [`limits::FEED_BYTES`] of it, a stretch of whole lines at a time, until `take` has enough. A
/// line longer than a stretch is no name and passed over.
fn stretches(file: &File, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let (mut at, mut held, mut passing) = (0, 0, false);
    loop {
        let n = file.read_at(buffer.get_mut(held..).unwrap_or(&mut []), at)?;
        at += n as u64;
        let text = buffer.get(..held + n).unwrap_or(&[]);
        let start = match memchr::memchr(b'\n', text) {
            _ if !passing => 0,
            newline => newline.map_or(text.len(), |newline| newline + 1),
        };
        passing &= start == text.len();
        let end = if n == 0 { text.len() } else { memchr::memrchr(b'\n', text).map_or(start, |at| at + 1) };
        let enough = !take(text.get(start..end).unwrap_or(&[]));
        if enough || n == 0 || at >= limits::FEED_BYTES as u64 {
            return Ok(());
        }
        held = text.len() - end;
        if held == CHUNK {
            (held, passing) = (0, true);
        }
        buffer.copy_within(end..end + held, 0);
    }
}

/// Names differ where URLs do, and tell nothing of them.
fn file_name(url: &str) -> String {
    let digest = Sha256::digest(url.as_bytes());
    let first = digest.first_chunk().map_or(0, |first: &[u8; 16]| u128::from_be_bytes(*first));
    format!("{first:032x}.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &[u8]) -> (Vec<u8>, usize) {
        let mut copy = Copies::Memory.create("u").unwrap();
        copy.write(content).unwrap();
        let (mut seen, mut turns) = (Vec::new(), 0);
        stretches(&copy.file, |lines| {
            assert!(lines.len() <= CHUNK);
            seen.extend_from_slice(lines);
            turns += 1;
            true
        })
        .unwrap();
        (seen, turns)
    }

    #[test]
    fn a_text_is_given_whole_whatever_its_size() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let content: Vec<u8> = b"name.example\n".iter().copied().cycle().take(length).collect();
            assert_eq!(text(&content).0, content, "{length}");
        }
    }

    #[test]
    fn no_line_is_cut_and_one_that_is_too_long_is_passed_over() {
        let mut content = b"first.example\n".to_vec();
        content.extend(std::iter::repeat_n(b'x', 2 * CHUNK + 5));
        content.extend_from_slice(b"\nlast.example");
        assert_eq!(text(&content).0, b"first.example\nlast.example");
        let endless = vec![b'x'; 3 * CHUNK];
        assert!(text(&endless).0.is_empty());
    }

    #[test]
    fn an_accepted_copy_outlives_its_process_and_another_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let learned = dir.path().join("egress-learned.jsonl");
        let urls = ["http://a.example/".to_owned(), "http://b.example/".to_owned()];
        let copies = Copies::open(Some(&learned), &urls);
        assert!(matches!(copies, Copies::Folder(_)) && copies.kept(&urls[0]).is_none());
        for (url, accept) in urls.iter().zip([true, false]) {
            let mut copy = copies.create(url).unwrap();
            copy.write(b"evil.example\n").unwrap();
            if accept {
                copy.accept().unwrap();
            }
        }
        let again = Copies::open(Some(&learned), &urls);
        assert!(again.kept(&urls[0]).is_some_and(|c| c.bytes == 13) && again.kept(&urls[1]).is_none());
        let others = Copies::open(Some(&learned), &["http://c.example/".to_owned()]);
        assert_eq!(std::fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 0);
        drop(others);
    }

    #[test]
    fn without_a_folder_a_copy_is_small() {
        let mut copy = Copies::open(None, &["u".to_owned()]).create("u").unwrap();
        let error = copy.write(&vec![0; limits::FEED_MEMORY_BYTES + 1]).unwrap_err();
        assert!(
            matches!(error.kind(), Kind::TooLarge { .. }) && error.detail().contains("EGRESS_LEARNED_PATH")
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let copies = Copies::open(Some(&file.join("learned")), &["u".to_owned()]);
        assert!(matches!(copies, Copies::Memory));
    }
}
