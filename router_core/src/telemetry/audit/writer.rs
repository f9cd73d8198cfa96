//! The thread that turns staged records into lines.

use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::Record;
use super::log::Log;
use super::spool::{PATIENCE, Placed, Spool, records};
use crate::error::{Error, Kind, Result};
use crate::telemetry::mapped::make_dir;

/// How long records may wait for others to be written with them: longer batches would keep the core from calls.
const BATCH_TIME: Duration = Duration::from_millis(2);
/// How long written lines may wait for a sync.
const SYNC_TIME: Duration = Duration::from_secs(1);
/// How long to leave a disk alone that refused a write.
const REFUSED_TIME: Duration = Duration::from_millis(500);
/// How long an append with no room sleeps between looks.
const FULL_TIME: Duration = Duration::from_micros(200);
/// The spool's name in the log's directory.
const SPOOL_NAME: &str = "spool";

/// The spool, the log and the thread between them. Locks are taken in the order `log`, `spool`.
#[derive(Debug)]
pub(super) struct Writer {
    spool: Mutex<Spool>,
    log: Mutex<Open>,
    /// The disk refused the last write or stood still: an append that finds no room gives up at once.
    refused: AtomicBool,
    dropped: AtomicU64,
    stopping: AtomicBool,
    thread: OnceLock<Thread>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

/// The log and the copy of staged bytes that is being written to it.
#[derive(Debug)]
struct Open {
    log: Log,
    batch: Vec<u8>,
}

impl Writer {
    /// Opens spool and log in `dir`, writes what is staged, and starts the thread.
    pub(super) fn start(dir: &Path, sandbox: &str) -> Result<Arc<Self>> {
        make_dir(dir)?;
        let (mut spool, found) = Spool::open(&dir.join(SPOOL_NAME))?;
        let mut log = Log::open(dir, sandbox)?;
        match log.chain.next {
            Some(next) => spool.raise_seq(next),
            // With no line to go by, the chain begins where the spool does.
            None if !found => log.chain.next = Some(0),
            None if spool.is_empty() => log.chain.next = Some(spool.seq()),
            None => {}
        }
        let writer = Arc::new(Self {
            spool: Mutex::new(spool),
            log: Mutex::new(Open { log, batch: Vec::new() }),
            refused: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            thread: OnceLock::new(),
            handle: Mutex::new(None),
        });
        writer.drain()?;
        let shared = Arc::clone(&writer);
        let handle = thread::Builder::new()
            .name("audit".into())
            .spawn(move || shared.run())
            .map_err(|e| Error::io("cannot start the audit thread", &e))?;
        let _ = writer.thread.set(handle.thread().clone());
        *writer.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Ok(writer)
    }

    pub(super) fn append(&self, record: &Record<'_>) {
        let placed = self.spool().stage(record);
        match placed {
            Placed::Quietly => {}
            Placed::Wake => self.wake(),
            Placed::Full => self.append_when_there_is_room(record),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Writes and syncs what is pending.
    pub(super) fn flush(&self) -> Result<()> {
        self.drain()?;
        self.sync()
    }

    /// Ends the thread, which writes and syncs what is pending.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Release);
        self.wake();
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            let _ = handle.join();
        }
    }

    /// The slow path of an append: helps to write, or waits while another does.
    fn append_when_there_is_room(&self, record: &Record<'_>) {
        let deadline = Instant::now() + PATIENCE;
        while !self.refused.load(Relaxed) {
            match self.log.try_lock() {
                Ok(mut open) => self.note(&self.drain_into(&mut open)),
                Err(TryLockError::Poisoned(open)) => self.note(&self.drain_into(&mut open.into_inner())),
                Err(TryLockError::WouldBlock) => thread::sleep(FULL_TIME),
            }
            match self.spool().stage(record) {
                Placed::Quietly => return,
                Placed::Wake => return self.wake(),
                Placed::Full if Instant::now() >= deadline => self.refused.store(true, Relaxed),
                Placed::Full => {}
            }
        }
        self.spool().lose();
        self.dropped.fetch_add(1, Relaxed);
        self.wake();
    }

    fn run(&self) {
        let mut last_sync = Instant::now();
        while !self.stopping.load(Acquire) {
            self.rest(last_sync);
            let drained = self.drain();
            self.note(&drained);
            if drained.is_err() && !self.stopping.load(Acquire) {
                thread::park_timeout(REFUSED_TIME);
            }
            if last_sync.elapsed() >= SYNC_TIME {
                self.note(&self.sync());
                last_sync = Instant::now();
            }
        }
        self.note(&self.flush());
    }

    /// Waits for a batch to gather, for the next sync, or for work.
    fn rest(&self, last_sync: Instant) {
        let unsynced = self.log().log.unsynced();
        let mut spool = self.spool();
        let idle = spool.is_empty();
        spool.awake &= !idle;
        drop(spool);
        if idle {
            if unsynced {
                thread::park_timeout(SYNC_TIME.saturating_sub(last_sync.elapsed()));
            } else if !self.stopping.load(Acquire) {
                thread::park();
            }
        }
        // The first record wakes the thread; those that follow it soon are written with it.
        let spool = self.spool();
        let gather = !spool.is_empty() && !spool.hurried;
        drop(spool);
        if gather && !self.stopping.load(Acquire) {
            thread::park_timeout(BATCH_TIME);
        }
    }

    fn drain(&self) -> Result<()> {
        self.drain_into(&mut self.log())
    }

    fn drain_into(&self, open: &mut Open) -> Result<()> {
        let Open { log, batch } = open;
        loop {
            let Some(from) = self.spool().pending(batch) else { return Ok(()) };
            let mut to = from;
            for (staged, length) in records(batch) {
                if !log.render(&staged)? {
                    break;
                }
                to += length as u64;
            }
            log.write()?;
            if to == from {
                return Err(self.skip_unreadable(log));
            }
            self.spool().done(to);
        }
    }

    /// Gives up what is staged: bytes in it are not what was staged. The numbers missing then show as lost.
    fn skip_unreadable(&self, log: &Log) -> Error {
        let mut spool = self.spool();
        spool.clear();
        let lost = spool.seq().saturating_sub(log.chain.next.unwrap_or(0));
        self.dropped.fetch_add(lost, Relaxed);
        Error::new(Kind::Bug, "the audit spool held a record that cannot be read")
    }

    fn sync(&self) -> Result<()> {
        // Not under the lock: a sync takes milliseconds, and appends may need the log to make room.
        let Some(file) = self.log().log.take_unsynced() else { return Ok(()) };
        let synced = file.sync_data();
        let log = &mut self.log().log;
        log.drop_removed();
        synced.map_err(|e| {
            log.sync_failed();
            Error::io("cannot sync the audit log", &e)
        })
    }

    /// Remembers whether the disk takes writes, and says so once when that changes.
    fn note(&self, outcome: &Result<()>) {
        let refused = outcome.is_err();
        if self.refused.swap(refused, Relaxed) != refused {
            match outcome {
                Ok(()) => tracing::warn!(dropped = self.dropped(), "audit.recovered"),
                Err(cause) => tracing::error!(%cause, "audit.refused"),
            }
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Open> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
