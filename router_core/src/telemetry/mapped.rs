//! A file of ours, mapped and shared: what is stored in it survives the death of the process without a
//! system call per store, and its blocks are allocated first, so that a full disk cannot fault a store.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};

/// How often a lock is tried, and the pause between: half a second in all.
const LOCK_ATTEMPTS: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A locked and mapped file of fixed length: words at the front, plain bytes behind them.
///
/// The process that holds it holds the file's advisory lock until it is dropped or dies.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: MmapRaw,
    /// Length of the front that is reached as words, in bytes.
    front: usize,
    /// Bytes the file held when it was opened; 0 for a new one.
    found: u64,
    /// Keeps the lock.
    _file: File,
}

impl Mapped {
    /// Opens or creates `path` with mode 0600, locks it, and maps `len` bytes of which `front` are words.
    /// Both lengths are multiples of a page. A file that another process holds is a [`Kind::Config`] error.
    pub(crate) fn open(path: &Path, len: usize, front: usize) -> Result<Self> {
        let fail =
            |what: &str, cause: &std::io::Error| Error::io(format_args!("{what} {}", path.display()), cause);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| fail("cannot open", &e))?;
        lock(&file, path)?;
        let found = file.metadata().map_err(|e| fail("cannot read the size of", &e))?.len();
        allocate(&file, len).map_err(|e| fail("cannot allocate", &e))?;
        let map = MmapOptions::new().len(len).map_raw(&file).map_err(|e| fail("cannot map", &e))?;
        Ok(Self { map, front: front.min(len), found, _file: file })
    }

    /// Bytes the file held before it was opened.
    pub(crate) fn found(&self) -> u64 {
        self.found
    }

    /// The front, as words.
    #[allow(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, at least `front` bytes long and lives as long as `self`; this part
        // of it is only ever reached as atomics. The lock keeps other processes of ours out, and the directory's
        // mode everyone else.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.front / 8) }
    }

    /// The rest, as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let len = self.map.len() - self.front;
        // SAFETY: in bounds of the mapping, and disjoint from the words; writes go through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.front), len) }
    }

    /// The rest, as bytes to write.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.map.len() - self.front;
        // SAFETY: in bounds of the mapping, disjoint from the words, and `&mut self` excludes every other view.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.front), len) }
    }

    /// Writes the dirty pages to the disk and waits for it. Takes milliseconds: not for the request path.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.map.flush()
    }
}

/// Makes `dir` and what leads to it, new ones with mode 0700.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    if fs::metadata(dir).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::io(format_args!("cannot create {}", dir.display()), &e))
}

/// Takes the file's lock. A child between `fork` and `exec` holds its parent's locks for a moment, and a process
/// that is being killed a little longer, so a lock that is held is tried again before it counts as refused.
pub(crate) fn lock(file: &File, path: &Path) -> Result<()> {
    for attempt in 0..LOCK_ATTEMPTS {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if attempt + 1 < LOCK_ATTEMPTS => thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => break,
            Err(errno) => {
                return Err(Error::io(format_args!("cannot lock {}", path.display()), &errno.into()));
            }
        }
    }
    Err(Error::new(Kind::Config, format!("{} is in use by another process", path.display())))
}

/// Gives the file `len` bytes with real blocks behind them. Bytes it already has stay.
fn allocate(file: &File, len: usize) -> std::io::Result<()> {
    let len = len as u64;
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(file, len),
        other => other.map_err(Into::into),
    }
}

/// The slow way for file systems without `fallocate`: writes zeros from the file's end on.
fn fill(file: &File, len: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = [0_u8; 4096];
    let mut at = file.metadata()?.len();
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(zeros.len()).min(zeros.len());
        file.write_all_at(zeros.get(..part).unwrap_or(&zeros), at)?;
        at += part as u64;
    }
    Ok(())
}

/// A checksum over words, never 0. It tells torn or stale bytes from whole ones; it is no defence against forgery.
pub(crate) fn mix(seed: u64, words: impl IntoIterator<Item = u64>) -> u64 {
    // An odd constant with well spread bits (2^64 divided by the golden ratio).
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = seed.wrapping_add(1).wrapping_mul(SPREAD);
    for word in words {
        sum = (sum ^ word).wrapping_mul(SPREAD);
        sum ^= sum >> 32;
    }
    sum.wrapping_mul(SPREAD).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn keeps_words_and_bytes_over_reopen_and_locks_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let mut mapped = Mapped::open(&path, 8192, 4096).unwrap();
        assert_eq!(mapped.found(), 0);
        mapped.words()[511].store(7, Relaxed);
        mapped.bytes_mut()[4095] = 9;
        let refused = Mapped::open(&path, 8192, 4096).unwrap_err();
        assert!(refused.detail().contains("in use by another process"), "{refused}");
        drop(mapped);
        let again = Mapped::open(&path, 8192, 4096).unwrap();
        assert_eq!((again.found(), again.words().len(), again.bytes().len()), (8192, 512, 4096));
        assert_eq!((again.words()[511].load(Relaxed), again.bytes()[4095]), (7, 9));
    }

    #[test]
    fn filling_by_hand_extends_and_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        fs::write(&path, b"abc").unwrap();
        fill(&OpenOptions::new().write(true).open(&path).unwrap(), 10_000).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!((bytes.len(), &bytes[..4]), (10_000, &b"abc\0"[..]));
    }

    #[test]
    fn the_checksum_sees_single_bits_and_order() {
        let base = mix(1, [1, 2, 3]);
        assert_ne!(base, mix(1, [1, 3, 2]));
        assert_ne!(base, mix(2, [1, 2, 3]));
        for bit in 0..64 {
            assert_ne!(base, mix(1, [1, 2 ^ (1 << bit), 3]));
        }
        assert_ne!(mix(0, []), 0);
    }
}
