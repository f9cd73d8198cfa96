//! Mounted policy directories: told of a change at once (inotify), found out within seconds otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// How often directories are compared where inotify does not tell (network and overlay filesystems).
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Shortest such interval, so that a setting of 0 does not spin.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest wait for more of the same burst; a kubelet swap is done in less.
const SETTLE: Duration = Duration::from_millis(5);
/// A silence that ends a burst early.
const QUIET: Duration = Duration::from_millis(1);
/// Entries of a directory that are compared; a `ConfigMap` holds 1 MiB, so real ones hold few.
const ENTRIES: usize = 4096;
/// Tries to arm a watch while its directory comes and goes.
const ARMINGS: usize = 8;

/// Why a watched inode matters to a directory of ours.
#[derive(Debug)]
enum Role {
    /// It is the directory.
    Content,
    /// It is the nearest directory above that exists; the named entry leads down.
    Above(OsString),
}

/// Watches directories, those too that do not exist yet. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    dirs: Vec<PathBuf>,
    /// `None` when the kernel gives no inotify instance (a per-user limit that all pods of a node share).
    inotify: Option<OwnedFd>,
    roles: BTreeMap<i32, Vec<(usize, Role)>>,
    prints: Vec<u64>,
    interval: Duration,
    next_look: Instant,
}

impl Watch {
    /// Starts to watch. Read the directories after this, not before, so that no change falls in between.
    pub fn new(dirs: &[PathBuf]) -> Self {
        Self::with_interval(dirs, INTERVAL)
    }

    /// [`Watch::new`] with another interval for the comparison (`INFERENCE_POLICY_WATCH_INTERVAL`).
    pub fn with_interval(dirs: &[PathBuf], interval: Duration) -> Self {
        let interval = interval.max(SHORTEST);
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        let mut watch = Self {
            dirs: dirs.to_vec(),
            inotify,
            roles: BTreeMap::new(),
            prints: Vec::new(),
            interval,
            next_look: Instant::now() + interval,
        };
        watch.arm();
        watch.prints = watch.dirs.iter().map(|dir| print(dir)).collect();
        watch
    }

    /// Readable when [`Watch::wait`] may have something to say; `None` when only comparison is left.
    /// Call `wait` at the interval as well.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(OwnedFd::as_fd)
    }

    /// Waits until directories change, at most for `timeout`, and gives their indexes in ascending order: none
    /// when the time is over. A burst of changes is reported once; reporting more than happened is possible.
    ///
    /// # Errors
    /// [`crate::error::Kind::Io`] when waiting itself fails.
    pub fn wait(&mut self, timeout: Duration) -> Result<Vec<usize>> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut changed = BTreeSet::new();
            if self.drain(&mut changed)? {
                self.settle(&mut changed)?;
                self.arm();
            }
            if !changed.is_empty() {
                self.reprint(&changed);
                return Ok(changed.into_iter().collect());
            }
            let now = Instant::now();
            if now >= self.next_look {
                self.look(&mut changed);
                if !changed.is_empty() {
                    return Ok(changed.into_iter().collect());
                }
            }
            if now >= deadline {
                return Ok(Vec::new());
            }
            self.sleep(deadline.min(self.next_look).saturating_duration_since(now))?;
        }
    }

    /// Takes in the rest of a burst.
    fn settle(&self, changed: &mut BTreeSet<usize>) -> Result<()> {
        let end = Instant::now() + SETTLE;
        while Instant::now() < end && self.sleep(QUIET)? {
            self.drain(changed)?;
        }
        Ok(())
    }

    /// Takes what inotify has now; whether any of it concerns us.
    fn drain(&self, changed: &mut BTreeSet<usize>) -> Result<bool> {
        let Some(fd) = &self.inotify else { return Ok(false) };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(fd, &mut buffer);
        let mut concerned = false;
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(concerned),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Error::io("read inotify events", &e.into())),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                changed.extend(0..self.dirs.len());
                concerned = true;
                continue;
            }
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            for (dir, role) in self.roles.get(&event.wd()).into_iter().flatten() {
                if self.matters(*dir, role, event.events(), name) {
                    changed.insert(*dir);
                    concerned = true;
                }
            }
        }
    }

    fn matters(&self, dir: usize, role: &Role, events: ReadFlags, name: &[u8]) -> bool {
        let own = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if events.intersects(own) {
            return true;
        }
        match role {
            Role::Above(step) => step.as_bytes() == name && !events.contains(ReadFlags::CLOSE_WRITE),
            // Hidden names are kubelet's work in progress, but for the link whose move puts it in force.
            Role::Content if name == b"..data" => true,
            Role::Content if name.starts_with(b".") => false,
            Role::Content => !events.contains(ReadFlags::CREATE) || self.created_whole(dir, name),
        }
    }

    /// Whether a new entry has its content already. A plain file has not: its end of writing is told apart.
    fn created_whole(&self, dir: usize, name: &[u8]) -> bool {
        let path = self.dirs.get(dir).map(|dir| dir.join(std::ffi::OsStr::from_bytes(name)));
        let made = path.and_then(|path| path.symlink_metadata().ok());
        made.is_some_and(|made| !made.is_file() || made.nlink() > 1)
    }

    /// Puts watches on every directory, or on what is nearest above it, and drops those of no more use.
    fn arm(&mut self) {
        let Some(fd) = &self.inotify else { return };
        let mut roles: BTreeMap<i32, Vec<(usize, Role)>> = BTreeMap::new();
        for (index, dir) in self.dirs.iter().enumerate() {
            for (descriptor, role) in arm_one(fd.as_fd(), dir) {
                roles.entry(descriptor).or_default().push((index, role));
            }
        }
        for stale in self.roles.keys().filter(|descriptor| !roles.contains_key(descriptor)) {
            // It fails when the kernel dropped the watch along with its directory.
            let _ = inotify::remove_watch(fd, *stale);
        }
        self.roles = roles;
    }

    fn look(&mut self, changed: &mut BTreeSet<usize>) {
        self.next_look = Instant::now() + self.interval;
        for (index, (dir, old)) in self.dirs.iter().zip(&mut self.prints).enumerate() {
            let new = print(dir);
            if std::mem::replace(old, new) != new {
                changed.insert(index);
            }
        }
        if !changed.is_empty() {
            self.arm();
        }
    }

    fn reprint(&mut self, changed: &BTreeSet<usize>) {
        for (index, (dir, old)) in self.dirs.iter().zip(&mut self.prints).enumerate() {
            if changed.contains(&index) {
                *old = print(dir);
            }
        }
    }

    /// Sleeps until inotify has something (true) or the time is over (false).
    fn sleep(&self, timeout: Duration) -> Result<bool> {
        let Some(fd) = &self.inotify else {
            std::thread::sleep(timeout);
            return Ok(false);
        };
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(Error::io("wait for inotify events", &e.into())),
        }
    }
}

fn arm_one(fd: BorrowedFd<'_>, dir: &Path) -> Vec<(i32, Role)> {
    let flags = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    let add = |path: &Path| inotify::add_watch(fd, path, flags).ok();
    let mut watches = Vec::new();
    for _ in 0..ARMINGS {
        watches.clear();
        // Above first: then a directory that is made meanwhile is either seen here or told of.
        let mut below = dir;
        for above in dir.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            if let (Some(descriptor), Some(step)) = (add(above), below.file_name()) {
                watches.push((descriptor, Role::Above(step.to_owned())));
                break;
            }
            below = above;
        }
        let content = add(dir);
        if let Some(descriptor) = content {
            watches.push((descriptor, Role::Content));
            break;
        }
        if below == dir || !below.exists() {
            break;
        }
    }
    watches
}

/// A number that changes with what a directory shows: names, and what they lead to. 0 for no directory.
fn print(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let names = entries.take(ENTRIES).filter_map(|entry| Some(entry.ok()?.file_name()));
    let mut names: Vec<OsString> = names.filter(|name| !name.as_bytes().starts_with(b".")).collect();
    names.sort_unstable();
    let mut hash = DefaultHasher::new();
    for name in names {
        name.hash(&mut hash);
        if let Ok(file) = std::fs::metadata(dir.join(&name)) {
            let inode = (file.dev(), file.ino(), file.size());
            (inode, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()).hash(&mut hash);
        }
    }
    hash.finish().max(1)
}

#[cfg(test)]
mod tests;
