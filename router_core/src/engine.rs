//! Owns the runtime threads, the listeners, the policy handle and the drain.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, watch};

use crate::error::{Error, Kind, Result};
use crate::gate::Gate;
use crate::gate::egress::Egress;
use crate::gate::ledger::Ledger;
use crate::limits;
use crate::net::listener;
use crate::net::signal::Signal;
use crate::net::tls::Tls;
use crate::policy::digest::Digest;
use crate::policy::egress::{self, Allowlist, Approval};
use crate::policy::health::Health;
use crate::policy::inference::Inference;
use crate::policy::mount::Watch;
use crate::policy::provider::{Provider, Secret, from_settings};
use crate::policy::snapshot::{Handle, Status};
use crate::proxy::account::unix_time;
use crate::proxy::forward;
use crate::proxy::server::{self, Door};
use crate::proxy::worker::{Shared, Worker};
use crate::settings::{Settings, VARIABLES};
use crate::telemetry::audit::Audit;
use crate::telemetry::destinations::Learned;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;

/// The kinds of bundle that this engine loads, as the policy status names them.
pub const INFERENCE: &str = "InferencePolicy";
/// See [`INFERENCE`].
pub const ALLOWLIST: &str = "EgressAllowlist";
/// See [`INFERENCE`].
pub const APPROVAL: &str = "EgressApproval";
const KINDS: [&str; 3] = [INFERENCE, ALLOWLIST, APPROVAL];
/// The name under which the merged lists are hashed, as the controller does.
const MERGED_NAME: &str = "merged-allowlist.json";
/// Where the admin token is mounted; the first that is there wins.
const TOKEN_FILES: [&str; 2] = ["/etc/kars/secrets/admin-token", "/run/secrets/admin-token"];
/// How long calls that the grace has run out for may take to tell their clients.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often the budget journal is synced to the disk while it changes.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A compiled policy, ready to be put in force.
#[derive(Debug, Clone)]
pub struct Compiled {
    policy: Policy,
    digest: String,
    problems: Vec<String>,
}

#[derive(Debug, Clone)]
enum Policy {
    Inference(Arc<Inference>),
    Allowlist(Arc<Allowlist>),
    Approvals(Vec<Arc<Approval>>),
}

impl Compiled {
    /// Decodes strictly and compiles a bundle of `kind`; names enter the digest. Approvals stand alone: a bad one is
    /// passed over and told in [`Compiled::problems`].
    ///
    /// # Errors
    /// [`Kind::Policy`] with the path of the field that is wrong.
    pub fn new(kind: &str, files: &[(&str, &[u8])]) -> Result<Self> {
        let mut problems = Vec::new();
        let one = || match files {
            [(_, bytes)] => Ok(*bytes),
            _ => Err(Error::new(Kind::Policy, format!("{kind} is one file, not {}", files.len()))),
        };
        let policy = match known(kind)? {
            INFERENCE => Policy::Inference(Arc::new(Inference::compile(one()?)?)),
            ALLOWLIST => Policy::Allowlist(Arc::new(Allowlist::compile(one()?)?)),
            _ => {
                let compiled = files.iter().map(|(name, bytes)| Approval::compile(name, bytes));
                let good = compiled.filter_map(|a| a.map_err(|e| problems.push(e.to_string())).ok());
                Policy::Approvals(good.map(Arc::new).collect())
            }
        };
        Ok(Self { policy, digest: Digest::of_files(files).to_string(), problems })
    }

    /// `sha256:…` over the files, as the controller computes it. (Approvals are reported under the digest of the
    /// merged lists, which only the engine knows.)
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What was passed over.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// The egress lists as they are mounted: each kind changes by itself, in force is what they make together.
#[derive(Debug, Default)]
struct Lists {
    allowlist: Option<(Arc<Allowlist>, String)>,
    approvals: Vec<Arc<Approval>>,
    /// The digest of the approvals' own bytes: what they grant and until when is no part of the merged lists.
    approvals_digest: String,
    /// The two digests in force.
    in_force: (String, String),
}

/// What the engine's owner is woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A policy mount changed.
    Policy,
    /// A cold route is asked for and nobody serves it.
    Cold,
    /// The drain is over; nothing is served any more.
    Stopped,
}

/// What serving threads do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Run,
    Drain,
    Kill,
    Stop,
}

/// The data plane.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    ports: Mutex<BTreeMap<&'static str, u16>>,
    policy_changed: Arc<AtomicBool>,
    lists: Mutex<Lists>,
    /// Begun before the first policy is read, so that no change falls between; taken by the keeper.
    watch: Mutex<Option<Watch>>,
    stopped: Arc<AtomicBool>,
    /// When the grace ends, once a drain has begun.
    deadline: Arc<Mutex<Option<Instant>>>,
}

impl Engine {
    /// Reads the settings and opens the records; binds nothing yet.
    ///
    /// # Errors
    /// [`Kind::Config`] with the variable that is wrong, [`Kind::Io`] with the file that cannot be used.
    pub fn new(environment: &[u8]) -> Result<Self> {
        let settings = Settings::parse(environment)?;
        log::init(&settings.log_filter, settings.log_json)?;
        let providers = from_settings(&|name| settings.var(name))?;
        let secure = providers.iter().any(|p| p.origin().tls);
        let tls =
            secure.then(|| Tls::load(settings.upstream_ca.as_deref(), settings.upstream_h2)).transpose()?;
        let sandbox = settings.sandbox.as_str();
        let audit = open("KARS_AUDIT_DIR", settings.audit_dir.as_ref(), |dir| Audit::open(dir, sandbox))?;
        let ledger = open("TOKEN_BUDGET_PERSIST_PATH", settings.budget_path.as_ref(), |path| {
            Ledger::open(path, sandbox)
        })?;
        report_recovery(&ledger);
        let learned = open("EGRESS_LEARNED_PATH", settings.egress.learned_path.as_ref(), Learned::open)?;
        let shared = Shared {
            admin_token: admin_token(&settings)?,
            gate: Arc::new(Gate::new(&settings, ledger, Egress::new(&settings, learned))),
            metrics: Metrics::new(sandbox),
            audit,
            providers,
            tls,
            egress_tls: OnceLock::new(),
            policy: Handle::default(),
            status: Status::default(),
            health: Health::default(),
            admin_model: ArcSwapOption::empty(),
            cold_socket: ArcSwapOption::empty(),
            cold_wanted: AtomicBool::new(false),
            events: Signal::new()?,
            quiet: Condvar::new(),
            quiet_lock: Mutex::new(()),
            in_flight: AtomicUsize::new(0),
            egress_connections: AtomicUsize::new(0),
            body_bytes: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            epoch: Instant::now(),
            generation: AtomicU64::new(0),
            settings,
        };
        let dirs: Vec<PathBuf> = mounts(&shared.settings).map(|(_, dir)| dir.to_owned()).to_vec();
        let watch = Watch::with_interval(&dirs, shared.settings.watch_interval);
        Ok(Self {
            watch: Mutex::new(Some(watch)),
            shared: Arc::new(shared),
            phase: watch::Sender::new(Phase::Run),
            threads: Mutex::default(),
            ports: Mutex::default(),
            policy_changed: Arc::default(),
            lists: Mutex::default(),
            stopped: Arc::default(),
            deadline: Arc::default(),
        })
    }

    /// Binds the listeners and serves on threads of its own.
    ///
    /// # Errors
    /// [`Kind::Config`] with the address that cannot be bound.
    pub fn start(&self) -> Result<()> {
        let settings = &self.shared.settings;
        raise_descriptors();
        let api = listener::bind(settings.bind, settings.port, settings.workers, "ROUTER_PORT")?;
        let metrics = match settings.metrics_port {
            Some(port) => listener::bind(settings.bind, port, 1, "ROUTER_METRICS_PORT")?,
            None => Vec::new(),
        };
        let mut egress = bind_egress(settings)?;
        self.note_port("inference", api.first());
        self.note_port("metrics", metrics.first());
        self.note_port("egress", egress.first().and_then(|l| l.first()));
        let mut metrics = metrics.into_iter();
        for (i, api) in api.into_iter().enumerate() {
            let shared = Arc::clone(&self.shared);
            let phase = self.phase.subscribe();
            let egress = egress.iter_mut().filter_map(Vec::pop).collect();
            let doors = Listeners { api, metrics: metrics.next(), egress, first: i == 0 };
            self.spawn(format!("kars-serve-{i}"), move || serve(shared, phase, doors))?;
        }
        self.spawn_keeper()?;
        let ports = self.ports();
        tracing::info!(
            sandbox = %settings.sandbox,
            inference = ports.get("inference"),
            metrics = ports.get("metrics"),
            egress = ports.get("egress"),
            learn = settings.egress.port.map(|_| settings.egress.learn),
            upstreams = self.shared.providers.iter().map(Provider::name).collect::<Vec<_>>().join(","),
            missing_policy = ?settings.missing_policy,
            "router.started"
        );
        Ok(())
    }

    /// Waits for the next event; `None` when the time is over or a signal interrupted the wait.
    pub fn wait(&self, timeout: Duration) -> Option<Event> {
        let event = self.event();
        if event.is_some() {
            return event;
        }
        self.shared.events.wait(timeout);
        self.event()
    }

    fn event(&self) -> Option<Event> {
        if self.stopped.load(Ordering::Acquire) {
            return Some(Event::Stopped);
        }
        if self.policy_changed.swap(false, Ordering::AcqRel) {
            return Some(Event::Policy);
        }
        self.shared.cold_wanted.swap(false, Ordering::AcqRel).then_some(Event::Cold)
    }

    /// Puts a policy in force, unless it names another sandbox; calls in flight keep theirs.
    pub fn apply(&self, compiled: &Compiled) {
        match &compiled.policy {
            Policy::Inference(policy) => self.apply_inference(policy, &compiled.digest),
            Policy::Allowlist(list) => {
                lock(&self.lists).allowlist = Some((Arc::clone(list), compiled.digest.clone()));
                self.combine();
                self.loaded(ALLOWLIST, &compiled.digest);
            }
            Policy::Approvals(approvals) => {
                let mut problems = compiled.problems.clone();
                let sandbox = self.shared.settings.sandbox.as_str();
                let ours = |a: &&Arc<Approval>| {
                    let ours = a.sandbox == sandbox;
                    if !ours {
                        problems.push(format!(
                            "{}: sandbox is {:?}, and this one is {sandbox:?}",
                            a.name, a.sandbox
                        ));
                    }
                    ours
                };
                let approvals = approvals.iter().filter(ours).cloned().collect();
                let mut lists = lock(&self.lists);
                lists.approvals = approvals;
                lists.approvals_digest.clone_from(&compiled.digest);
                drop(lists);
                self.combine();
                if !problems.is_empty() {
                    let source = self.shared.settings.egress.approval_dir.display().to_string();
                    self.refused(APPROVAL, &source, &problems.join("; "));
                }
            }
        }
    }

    fn apply_inference(&self, policy: &Arc<Inference>, digest: &str) {
        let shared = &self.shared;
        let sandbox = shared.settings.sandbox.as_str();
        if let Some(other) = policy.applies_to().filter(|name| *name != sandbox) {
            let error = format!("appliesTo.sandboxName is {other:?}, and this sandbox is {sandbox:?}");
            return self.refused(INFERENCE, &shared.settings.policy_dir.display().to_string(), &error);
        }
        if shared.policy.load().inference_digest != digest {
            let next = Some((Arc::clone(policy), digest.to_owned()));
            self.in_force(INFERENCE, digest, shared.policy.replace_inference(next));
        }
        self.loaded(INFERENCE, digest);
    }

    /// Puts in force what the mounted egress lists make together. Without the allowlist nothing is: approvals only add.
    fn combine(&self) {
        let shared = &self.shared;
        let mut lists = lock(&self.lists);
        let Some((allowlist, digest)) = lists.allowlist.clone() else {
            lists.in_force = Default::default();
            if shared.policy.load().egress.is_some() {
                let generation = shared.policy.replace_egress(None);
                shared.generation.store(generation, Ordering::Relaxed);
                tracing::warn!(kind = ALLOWLIST, generation, "policy.removed");
            }
            return self.forget(APPROVAL);
        };
        let egress = egress::Egress::new(allowlist, lists.approvals.clone());
        let merged = Digest::of_files(&[(MERGED_NAME, egress.merged().as_bytes())]).to_string();
        let mounted = (digest.clone(), lists.approvals_digest.clone());
        if lists.in_force != mounted {
            lists.in_force = mounted;
            let generation = shared.policy.replace_egress(Some((Arc::new(egress), digest.clone())));
            self.in_force(ALLOWLIST, &digest, generation);
        }
        self.loaded(APPROVAL, &merged);
    }

    fn in_force(&self, kind: &'static str, digest: &str, generation: u64) {
        self.shared.generation.store(generation, Ordering::Relaxed);
        tracing::info!(kind, digest, generation, "policy.applied");
    }

    fn loaded(&self, kind: &'static str, digest: &str) {
        let source = mounts(&self.shared.settings).into_iter().find(|(k, _)| *k == kind);
        let source = source.map(|(_, dir)| dir.display().to_string()).unwrap_or_default();
        self.shared.status.record_ok(kind, digest, &source);
        self.shared.metrics.bundle_loaded(kind, unix_time().as_secs());
    }

    fn forget(&self, kind: &'static str) {
        self.shared.status.clear(kind);
        self.shared.metrics.bundle_removed(kind);
    }

    /// Notes that a bundle was refused; the policy in force stays.
    pub fn refuse(&self, kind: &str, source: &str, error: &str) -> Result<()> {
        self.refused(known(kind)?, source, error);
        Ok(())
    }

    fn refused(&self, kind: &'static str, source: &str, error: &str) {
        tracing::error!(kind, source, error, "policy.refused");
        self.shared.status.record_error(kind, source, error);
        self.shared.metrics.bundle_refused(kind);
    }

    /// Notes that a bundle is not mounted (any more).
    pub fn clear(&self, kind: &str) -> Result<()> {
        match known(kind)? {
            INFERENCE => {
                let shared = &self.shared;
                if shared.policy.load().inference.is_some() {
                    let generation = shared.policy.replace_inference(None);
                    shared.generation.store(generation, Ordering::Relaxed);
                    tracing::warn!(kind, generation, "policy.removed");
                }
                self.forget(INFERENCE);
            }
            ALLOWLIST => {
                lock(&self.lists).allowlist = None;
                self.forget(ALLOWLIST);
                self.combine();
            }
            _ => {
                let mut lists = lock(&self.lists);
                lists.approvals.clear();
                lists.approvals_digest.clear();
                drop(lists);
                self.combine();
            }
        }
        Ok(())
    }

    /// Kind of bundle to the directory it is mounted at.
    pub fn policy_dirs(&self) -> Vec<(&'static str, PathBuf)> {
        mounts(&self.shared.settings).map(|(kind, dir)| (kind, dir.to_owned())).to_vec()
    }

    /// Takes no new calls, lets those in flight finish for `grace` (the setting's when `None`), then stops.
    /// Returns at once; a second call moves the deadline.
    pub fn drain(&self, grace: Option<Duration>) {
        let grace = grace.unwrap_or(self.shared.settings.grace);
        let first = lock(&self.deadline).replace(Instant::now() + grace).is_none();
        self.shared.draining.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Drain);
        self.shared.quiet.notify_all();
        if !first {
            return;
        }
        let in_flight = self.shared.in_flight.load(Ordering::Relaxed);
        tracing::info!(in_flight, grace_secs = grace.as_secs_f64(), "router.draining");
        let threads = std::mem::take(&mut *lock(&self.threads));
        let (shared, phase) = (Arc::clone(&self.shared), self.phase.clone());
        let (deadline, stopped) = (Arc::clone(&self.deadline), Arc::clone(&self.stopped));
        let finish = move || {
            await_quiet(&shared, || lock(&deadline).unwrap_or_else(Instant::now));
            shared.killed.store(true, Ordering::Relaxed);
            phase.send_replace(Phase::Kill);
            let last = Instant::now() + LAST_WORDS;
            await_quiet(&shared, || last);
            phase.send_replace(Phase::Stop);
            for thread in threads {
                // A thread that panicked is gone all the same.
                let _ = thread.join();
            }
            flush(&shared);
            tracing::info!("router.stopped");
            stopped.store(true, Ordering::Release);
            shared.events.wake();
        };
        if std::thread::Builder::new().name("kars-drain".to_owned()).spawn(finish).is_err() {
            self.stopped.store(true, Ordering::Release);
            self.shared.events.wake();
        }
    }

    /// Relays cold routes to the server on this Unix socket.
    pub fn attach_cold(&self, socket: &str) {
        self.shared.cold_socket.store(Some(Arc::new(socket.to_owned())));
    }

    /// The override of the model, if any, and the configured default.
    pub fn admin_model(&self) -> (Option<String>, String) {
        let current = self.shared.admin_model.load().as_deref().cloned();
        (current, self.shared.settings.default_model.clone())
    }

    /// Sets or lifts the override; gives the one before.
    pub fn set_admin_model(&self, model: Option<String>) -> Option<String> {
        tracing::info!(model = model.as_deref(), "admin.model");
        let before = self.shared.admin_model.swap(model.map(Arc::new));
        before.as_deref().cloned()
    }

    /// Bound ports by listener.
    pub fn ports(&self) -> BTreeMap<&'static str, u16> {
        lock(&self.ports).clone()
    }

    /// JSON: effective settings without secrets, generation, listeners, budgets.
    pub fn status(&self) -> String {
        let shared = &self.shared;
        let snapshot = shared.policy.load();
        let standing = shared.gate.ledger().standing(unix_time().as_secs());
        let limits = shared.gate.limits(snapshot.inference.as_deref());
        let row = |limit: u64, s: crate::gate::ledger::Spent| serde_json::json!({"limit": limit, "spent": s.spent, "reserved": s.reserved});
        let settings: BTreeMap<&str, String> = VARIABLES
            .iter()
            .map(|v| {
                let value = shared.settings.var(v.name);
                let secret = v.name.ends_with("_KEY") || v.name.ends_with("_TOKEN");
                let shown = if secret { value.map(|_| "[redacted]".to_owned()) } else { value };
                (v.name, shown.unwrap_or_else(|| v.default.to_owned()))
            })
            .collect();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "sandbox": shared.settings.sandbox.as_str(),
            "ready": shared.gate.ready(&snapshot) && !shared.is_draining(),
            "draining": shared.is_draining(),
            "uptime_secs": shared.epoch.elapsed().as_secs(),
            "in_flight": shared.in_flight.load(Ordering::Relaxed),
            "policy": {"generation": snapshot.generation, "digest": snapshot.inference_digest},
            "upstreams": shared.providers.iter().map(|p| {
                serde_json::json!({"name": p.name(), "authority": p.origin().authority})
            }).collect::<Vec<_>>(),
            "listeners": self.ports(),
            "budgets": {
                "hourly": row(limits.hourly, standing.hour),
                "daily": row(limits.daily, standing.day),
                "monthly": row(limits.monthly, standing.month),
            },
            "audit": {"records": shared.audit.appended(), "dropped": shared.audit.dropped()},
            "settings": settings,
        })
        .to_string()
    }

    fn note_port(&self, name: &'static str, listener: Option<&TcpListener>) {
        if let Some(address) = listener.and_then(|l| l.local_addr().ok()) {
            lock(&self.ports).insert(name, address.port());
        }
    }

    fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread =
            std::thread::Builder::new().name(name).spawn(run).map_err(|e| Error::io("start a thread", &e))?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// The thread that watches the mounts and syncs the journal.
    fn spawn_keeper(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let changed = Arc::clone(&self.policy_changed);
        let phase = self.phase.subscribe();
        let Some(watch) = lock(&self.watch).take() else { return Ok(()) };
        // Not among the threads that are joined: it looks at the phase only between two waits.
        let thread = std::thread::Builder::new().name("kars-keeper".to_owned());
        thread
            .spawn(move || keep(&shared, &changed, &phase, watch))
            .map_err(|e| Error::io("start a thread", &e))?;
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.killed.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Stop);
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A thread that panicked is gone all the same.
            let _ = thread.join();
        }
        flush(&self.shared);
    }
}

fn known(kind: &str) -> Result<&'static str> {
    KINDS.into_iter().find(|k| *k == kind).ok_or_else(|| {
        let all = KINDS.join(", ");
        Error::new(Kind::Policy, format!("{kind:?} is not a kind of bundle that the router loads: {all}"))
    })
}

/// Kinds and where they are mounted.
fn mounts(settings: &Settings) -> [(&'static str, &Path); 3] {
    [
        (INFERENCE, &settings.policy_dir),
        (ALLOWLIST, &settings.egress.allowlist_dir),
        (APPROVAL, &settings.egress.approval_dir),
    ]
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these hold is replaced whole, so a panic elsewhere leaves none half written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a record. A path that was asked for must work; the default one may be missing (a read-only root),
/// which is told and leaves memory only.
fn open<T>(
    variable: &str,
    path: Option<&(PathBuf, bool)>,
    open: impl Fn(Option<&Path>) -> Result<T>,
) -> Result<T> {
    let Some((path, asked)) = path else { return open(None) };
    match open(Some(path)) {
        Err(e) if !asked => {
            tracing::warn!(variable, error = %e, "record.memory_only");
            open(None)
        }
        Err(e) => Err(Error::new(Kind::Config, format!("{variable}={}: {e}", path.display()))),
        ok => ok,
    }
}

fn report_recovery(ledger: &Ledger) {
    let recovery = ledger.recovery();
    if let Some(warning) = &recovery.warning {
        tracing::warn!(warning, "budget.recovery");
    }
    if recovery.recovered > 0 {
        let (calls, tokens) = (recovery.recovered, recovery.recovered_tokens);
        tracing::info!(calls, tokens, "budget.recovered");
    }
}

fn admin_token(settings: &Settings) -> Result<Option<Secret>> {
    for file in TOKEN_FILES {
        if Path::new(file).exists() {
            return Secret::read(Path::new(file)).map(Some);
        }
    }
    settings.var("ADMIN_TOKEN").map(|token| Secret::parse(&token, "ADMIN_TOKEN")).transpose()
}

fn flush(shared: &Shared) {
    sync_learned(shared);
    if let Err(e) = shared.gate.ledger().sync() {
        tracing::error!(error = %e, "budget.sync");
    }
    if let Err(e) = shared.audit.flush() {
        tracing::error!(error = %e, "audit.flush");
    }
}

fn sync_learned(shared: &Shared) {
    if let Err(e) = shared.gate.egress().learned().sync() {
        tracing::error!(error = %e, "learned.sync");
    }
}

/// Waits until no call is in flight, or the moment that `until` gives.
fn await_quiet(shared: &Shared, until: impl Fn() -> Instant) {
    let mut guard = lock(&shared.quiet_lock);
    while shared.in_flight.load(Ordering::Relaxed) > 0 {
        let left = until().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        // The last call may end between the look and the wait: a look every so often makes up for it.
        let waited = shared.quiet.wait_timeout(guard, left.min(Duration::from_millis(50)));
        guard = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn keep(shared: &Shared, changed: &AtomicBool, phase: &watch::Receiver<Phase>, mut watch: Watch) {
    let running = || !matches!(*phase.borrow(), Phase::Stop);
    while running() {
        match watch.wait(SYNC_EVERY.min(if shared.is_draining() {
            Duration::from_millis(20)
        } else {
            SYNC_EVERY
        })) {
            Ok(dirs) if dirs.is_empty() => {}
            Ok(_) => {
                changed.store(true, Ordering::Release);
                shared.events.wake();
            }
            Err(e) => {
                tracing::error!(error = %e, "policy.watch");
                std::thread::sleep(SYNC_EVERY);
            }
        }
        if let Err(e) = shared.gate.ledger().sync() {
            tracing::error!(error = %e, "budget.sync");
        }
        sync_learned(shared);
        for provider in &shared.providers {
            match provider.refresh() {
                Ok(true) => tracing::info!(upstream = provider.name(), "credential.rotated"),
                Ok(false) => {}
                Err(e) => tracing::error!(upstream = provider.name(), error = %e, "credential.refresh"),
            }
        }
    }
}

/// Asks for all the descriptors that the system grants: a tunnel takes two, and the usual soft limit is 1024.
fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    match raised {
        Ok(()) => tracing::info!(from = current, to = maximum, "router.descriptors"),
        Err(e) => tracing::warn!(limit = current, error = %e, "router.descriptors"),
    }
}

/// The listeners of one serving thread.
struct Listeners {
    api: TcpListener,
    metrics: Option<TcpListener>,
    egress: Vec<TcpListener>,
    /// Whether this thread keeps the blocklist, too.
    first: bool,
}

/// Binds the egress port: per address, a listener for each serving thread.
fn bind_egress(settings: &Settings) -> Result<Vec<Vec<TcpListener>>> {
    let Some(mut port) = settings.egress.port else { return Ok(Vec::new()) };
    let mut bound: Vec<Vec<TcpListener>> = Vec::new();
    for ip in settings.egress.bind.iter().filter(|ip| listener::is_local(**ip)) {
        let listeners = listener::bind(*ip, port, settings.workers, "FORWARD_PROXY_PORT")?;
        port = listeners.first().and_then(|l| l.local_addr().ok()).map_or(port, |a| a.port());
        bound.push(listeners);
    }
    if bound.is_empty() {
        return Err(Error::new(Kind::Config, "FORWARD_PROXY_BIND: this machine has none of these addresses"));
    }
    Ok(bound)
}

/// One serving thread: its own event loop, nothing shared on the path.
fn serve(shared: Arc<Shared>, phase: watch::Receiver<Phase>, doors: Listeners) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    match runtime {
        Ok(runtime) => {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, accept_all(shared, phase, doors));
        }
        Err(e) => tracing::error!(error = %e, "router.runtime"),
    }
}

async fn accept_all(shared: Arc<Shared>, mut phase: watch::Receiver<Phase>, doors: Listeners) {
    let share = (shared.settings.max_connections / shared.settings.workers).max(1);
    let worker = Worker::new(shared);
    let taking =
        |listener, door, most| tokio::task::spawn_local(accept(Rc::clone(&worker), listener, door, most));
    let mut taken = vec![taking(doors.api, Some(Door::Api), share)];
    let places = worker.shared.settings.egress.max_connections + limits::EGRESS_REFUSALS;
    taken.extend(doors.egress.into_iter().map(|l| taking(l, None, places)));
    taken.extend(doors.first.then(|| tokio::task::spawn_local(forward::feeds::refresh(Rc::clone(&worker)))));
    let probes = doors.metrics.map(|m| taking(m, Some(Door::Metrics), 64));
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Run => {}
            Phase::Drain => {
                taken.iter().for_each(tokio::task::JoinHandle::abort);
                // HTTP/2 clients are told to go.
                worker.wake_all();
            }
            Phase::Kill => worker.wake_all(),
            Phase::Stop => break,
        }
        if phase.changed().await.is_err() {
            break;
        }
    }
    taken.iter().chain(&probes).for_each(tokio::task::JoinHandle::abort);
}

/// Accepts until aborted; at the bound of connections the kernel's queue holds the rest. Without a door it is the
/// egress port, which has a lower bound of its own and answers those above that.
async fn accept(worker: Rc<Worker>, listener: TcpListener, door: Option<Door>, most: usize) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return tracing::error!(error = %e, "router.listener"),
    };
    let slots = Arc::new(Semaphore::new(most));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let worker = Rc::clone(&worker);
                tokio::task::spawn_local(async move {
                    match door {
                        Some(door) => server::serve(worker, tcp, peer, door).await,
                        None => forward::serve(worker, tcp).await,
                    }
                    drop(slot);
                });
            }
            Err(e) => {
                // Out of descriptors, or a peer that left at once: neither is a reason to stop.
                tracing::warn!(error = %e, "router.accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
