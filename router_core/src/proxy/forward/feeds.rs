//! Keeps the blocklist: a seed file that the operator mounts, and feeds read over HTTP.
//!
//! The set in force is always built whole from what each source last gave. A feed's last good text is therefore kept: in a
//! folder beside `EGRESS_LEARNED_PATH` where there is one, so that a restart begins with it; else in an anonymous memory
//! file of at most [`limits::FEED_MEMORY_BYTES`]. A feed that fails, answers without a single name, or is unchanged
//! keeps its names, and every other source its own. Reading, parsing and building happen on a thread for blocking work.

mod compile;
mod copies;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use compile::{Source, compile};
use copies::{Copies, Copy};

use crate::error::{Error, Kind, Result, Step};
use crate::ids::Destination;
use crate::limits;
use crate::proxy::account::unix_time;
use crate::proxy::forward::fetch::redirect;
use crate::proxy::forward::outbound::{self, Exchange, Head, Request, Traffic};
use crate::proxy::forward::reach::{self, Failed};
use crate::proxy::worker::Worker;
use crate::wire::authority::{self, Url};

/// Before the feeds are first read: what the start itself needs comes first.
const FIRST: Duration = Duration::from_secs(10);
/// Between two looks at the seed file.
const LOOK: Duration = Duration::from_secs(60);
/// After a feed's first failure; it doubles with each further one, up to the refresh interval.
const RETRY: Duration = Duration::from_secs(60);
/// One reading of one feed (the reference's bound).
const TOTAL: Duration = Duration::from_secs(60);
/// A shorter refresh interval would only be noise.
const SHORTEST: Duration = Duration::from_millis(100);
/// Reads that may wait to be written to a feed's copy.
const QUEUED: usize = 4;

/// Keeps the blocklist up to date until dropped. One thread of the engine runs it.
pub async fn refresh(worker: Rc<Worker>) {
    let settings = &worker.shared.settings.egress;
    if !settings.blocklist {
        return;
    }
    let mut keeper = Keeper::new(&worker).await;
    loop {
        keeper.turn(&worker).await;
        sleep_until(keeper.next()).await;
    }
}

struct Keeper {
    copies: Arc<Copies>,
    feeds: Vec<Feed>,
    every: Duration,
    seed: Option<Stamp>,
    /// When the seed file is looked at next.
    look: Instant,
    /// Whether a set has been built from what is known.
    built: bool,
}

struct Feed {
    url: String,
    /// What logs may show of it.
    shown: String,
    etag: Option<String>,
    kept: Option<Arc<Copy>>,
    due: Instant,
    failures: u32,
}

/// What tells one version of the seed file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: Option<SystemTime>,
}

/// What a feed gave that is new.
struct Fresh {
    copy: Copy,
    etag: Option<String>,
}

impl Keeper {
    async fn new(worker: &Worker) -> Self {
        let settings = &worker.shared.settings.egress;
        let every = settings.blocklist_refresh.max(SHORTEST);
        let learned = settings.learned_path.as_ref().map(|(path, _)| path.clone());
        let urls = settings.blocklist_feeds.clone();
        let open = move || {
            let copies = Copies::open(learned.as_deref(), &urls);
            let kept: Vec<Option<Copy>> = urls.iter().map(|url| copies.kept(url)).collect();
            (copies, kept)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (copies, kept) = opened.unwrap_or_else(|_| (Copies::Memory, Vec::new()));
        let now = Instant::now();
        let mut kept = kept.into_iter();
        let feed = |url: &String| Feed {
            shown: shown(url),
            url: url.clone(),
            etag: None,
            kept: kept.next().flatten().map(Arc::new),
            due: now + FIRST.min(every),
            failures: 0,
        };
        let feeds = settings.blocklist_feeds.iter().map(feed).collect();
        Self { copies: Arc::new(copies), feeds, every, seed: None, look: now, built: false }
    }

    fn next(&self) -> Instant {
        self.feeds.iter().map(|feed| feed.due).fold(self.look, Instant::min)
    }

    /// Looks at everything that is due, and builds a new set where something changed.
    async fn turn(&mut self, worker: &Worker) {
        let mut changed = !self.built;
        if Instant::now() >= self.look {
            let found = stamp(&worker.shared.settings.egress.blocklist_seed);
            changed |= found != self.seed;
            self.seed = found;
            self.look = Instant::now() + LOOK.min(self.every);
        }
        let mut fresh = Vec::with_capacity(self.feeds.len());
        for feed in &mut self.feeds {
            fresh.push(feed.read_if_due(worker, &self.copies, self.every).await);
        }
        if changed || fresh.iter().any(Option::is_some) {
            self.build(worker, fresh).await;
        }
    }

    async fn build(&mut self, worker: &Worker, fresh: Vec<Option<Fresh>>) {
        let (texts, etags): (Vec<_>, Vec<_>) =
            fresh.into_iter().map(|f| f.map_or((None, None), |f| (Some(f.copy), f.etag))).unzip();
        let sources: Vec<Source> = texts
            .into_iter()
            .zip(&self.feeds)
            .map(|(fresh, feed)| Source { fresh, kept: feed.kept.clone() })
            .collect();
        let seed = worker.shared.settings.egress.blocklist_seed.clone();
        let built = match tokio::task::spawn_blocking(move || compile(&seed, sources)).await {
            Ok(Ok(built)) => built,
            Ok(Err(e)) => {
                // The set in force stays; the next look tries again.
                self.seed = None;
                self.built = false;
                return tracing::error!(error = %e, "blocklist.seed");
            }
            Err(e) => return tracing::error!(error = %e, "blocklist.build"),
        };
        self.built = true;
        for ((feed, taken), etag) in self.feeds.iter_mut().zip(built.feeds).zip(etags) {
            if taken.refused {
                feed.failed(self.every, "it holds no names");
            } else if let Some(copy) = taken.accepted {
                feed.kept = Some(Arc::new(copy));
                feed.etag = etag;
            }
            tracing::debug!(feed = feed.shown, names = taken.names, "blocklist.feed");
        }
        let (names, seed, feeds) = (built.list.len(), built.seed, self.feeds.len());
        worker.shared.gate.egress().set_blocklist(built.list, unix_time().as_secs());
        tracing::info!(names, seed, feeds, "blocklist.loaded");
    }
}

impl Feed {
    /// Reads the feed when its time has come; gives what is new.
    async fn read_if_due(&mut self, worker: &Worker, copies: &Arc<Copies>, every: Duration) -> Option<Fresh> {
        if Instant::now() < self.due {
            return None;
        }
        let late = || Error::new(Kind::Timeout(Step::Total), "it took longer than 60 seconds");
        let read = timeout(TOTAL, self.read(worker, copies)).await.unwrap_or_else(|_| Err(late()));
        match read {
            Ok(fresh) => {
                self.failures = 0;
                // Sandboxes that started together need not ask together.
                let spread = every / 10 * u32::try_from(worker.random() % 1024).unwrap_or(0) / 1024;
                self.due = Instant::now() + every + spread;
                fresh
            }
            Err(e) => {
                self.failed(every, e.detail());
                None
            }
        }
    }

    fn failed(&mut self, every: Duration, error: &str) {
        let wait = RETRY.saturating_mul(1 << self.failures.min(16)).min(every);
        self.failures = self.failures.saturating_add(1);
        self.due = Instant::now() + wait;
        let (feed, retry_secs, kept) = (&self.shown, wait.as_secs_f64(), self.kept.is_some());
        tracing::warn!(feed, error, failures = self.failures, retry_secs, kept, "blocklist.feed");
    }

    /// Reads the feed; `None` when it is unchanged.
    async fn read(&self, worker: &Worker, copies: &Arc<Copies>) -> Result<Option<Fresh>> {
        let mut fields = vec![
            ("accept".to_owned(), "*/*".to_owned()),
            ("user-agent".to_owned(), "kars-Blocklist/1.0".to_owned()),
        ];
        let etag = self.etag.as_ref().filter(|_| self.kept.is_some());
        fields.extend(etag.map(|etag| ("if-none-match".to_owned(), etag.clone())));
        let mut text = self.url.clone();
        let mut traffic = Traffic { max: limits::FEED_BYTES as u64, ..Traffic::default() };
        for hop in 0..=limits::FEED_REDIRECTS {
            let url = authority::url(&text)?;
            let request = Request { method: "GET", url: &url, fields: &fields, body: &[] };
            let (head, exchange) = open(worker, &request, hop == 0, &mut traffic).await?;
            if let Some(location) = head.redirect() {
                let next = redirect::resolve(&url, location)
                    .ok_or_else(|| Error::bad_request("it redirects to what is no URL"))?;
                if url.tls && !authority::url(&next)?.tls {
                    return Err(Error::bad_request("it redirects from https to http"));
                }
                text = next;
                continue;
            }
            return match head.status {
                304 if etag.is_some() => Ok(None),
                200 => {
                    let given = head.value("etag").and_then(|e| std::str::from_utf8(e).ok());
                    let etag = given.map(str::to_owned);
                    let copy = save(worker, copies, &self.url, exchange, &mut traffic).await?;
                    Ok(Some(Fresh { copy, etag }))
                }
                status => Err(Error::bad_request(format!("it answers with status {status}"))),
            };
        }
        Err(Error::bad_request(format!("it redirects more than {} times", limits::FEED_REDIRECTS)))
    }
}

/// Sends one request under the address guard. The operator's own URL may name an address that is not global.
async fn open(
    worker: &Worker,
    request: &Request<'_>,
    configured: bool,
    traffic: &mut Traffic,
) -> Result<(Head, Exchange)> {
    let host = &request.url.authority.host;
    let destination = Destination { host: host.clone(), port: request.url.port() };
    let passage = worker.shared.gate.egress().admit_feed(host.ip().filter(|_| configured));
    let (tcp, _) = reach::open(worker, &destination, &passage).await.map_err(|failed| match failed {
        Failed::Broken(e) => e,
        Failed::Barred(refusal) => Error::bad_request(refusal.message),
    })?;
    let conn = outbound::secure(worker, request.url, tcp).await?;
    outbound::begin(worker, conn, request, traffic).await
}

/// Moves an answer's content into a copy on the disk, a few reads at a time. Dropping the future drops the copy.
async fn save(
    worker: &Worker,
    copies: &Arc<Copies>,
    url: &str,
    mut exchange: Exchange,
    traffic: &mut Traffic,
) -> Result<Copy> {
    let (pieces, mut inbox) = mpsc::channel::<Vec<u8>>(QUEUED);
    let (copies, url) = (Arc::clone(copies), url.to_owned());
    let writing = tokio::task::spawn_blocking(move || {
        let mut copy = copies.create(&url)?;
        while let Some(piece) = inbox.blocking_recv() {
            copy.write(&piece)?;
        }
        Ok(copy)
    });
    let mut content = Vec::new();
    loop {
        let done = exchange.more(worker, &mut content, traffic).await?;
        // A writer that is gone tells why below.
        let gone = !content.is_empty() && pieces.send(std::mem::take(&mut content)).await.is_err();
        if done || gone {
            break;
        }
    }
    drop(pieces);
    writing.await.map_err(|e| Error::new(Kind::Bug, format!("writing a feed's copy: {e}")))?
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.len(),
        changed: found.modified().ok(),
    })
}

/// A feed's URL without its query, which may hold a key.
fn shown(url: &str) -> String {
    authority::url(url).map_or_else(
        |_| "a feed whose URL is not readable".to_owned(),
        |url: Url<'_>| {
            let scheme = if url.tls { "https" } else { "http" };
            let path = url.target.split('?').next().unwrap_or("/");
            format!("{scheme}://{}{path}", url.authority.host)
        },
    )
}
