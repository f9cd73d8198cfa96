//! What the tasks of one serving thread share, and what all threads share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::Waker;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::gate::Gate;
use crate::net::resolve::Resolver;
use crate::net::signal::Signal;
use crate::net::tls::Tls;
use crate::net::tunnel;
use crate::policy::health::Health;
use crate::policy::provider::Provider;
use crate::policy::snapshot::{Handle, Status};
use crate::proxy::upstream::Pool;
use crate::settings::Settings;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;

/// Bytes taken from a socket in one read; one such buffer per thread.
pub const READ_BYTES: usize = 64 * 1024;
/// Buffers that a thread keeps for reuse, and the size above which one is let go.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES: usize = 64 * 1024;

/// Shared by all threads of the engine.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// The admin token; `None` closes the admin routes.
    pub admin_token: Option<crate::policy::provider::Secret>,
    /// Configured providers, in order of preference.
    pub providers: Vec<Provider>,
    /// TLS to upstreams; `None` when no upstream speaks TLS.
    pub tls: Option<Tls>,
    /// TLS to what lies outside; loaded when it is first asked for.
    pub egress_tls: OnceLock<Tls>,
    /// The policy in force.
    pub policy: Handle,
    /// What `/internal/policy-status` tells.
    pub status: Status,
    /// The gate.
    pub gate: Arc<Gate>,
    /// The audit log.
    pub audit: Audit,
    /// Counters.
    pub metrics: Metrics,
    /// Which models have failed lately.
    pub health: Health,
    /// The operator's model override.
    pub admin_model: ArcSwapOption<String>,
    /// Where the cold routes are served, once they are.
    pub cold_socket: ArcSwapOption<String>,
    /// A cold route is asked for and nobody serves it yet.
    pub cold_wanted: AtomicBool,
    /// Wakes the engine's owner.
    pub events: Signal,
    /// Told when the last call in flight ends while draining.
    pub quiet: Condvar,
    /// Guards the wait for `quiet`.
    pub quiet_lock: Mutex<()>,
    /// Calls in flight.
    pub in_flight: AtomicUsize,
    /// Connections through the egress proxy.
    pub egress_connections: AtomicUsize,
    /// Bytes held by request bodies.
    pub body_bytes: AtomicUsize,
    /// Whether the engine has stopped taking calls.
    pub draining: AtomicBool,
    /// Whether the grace is over and what still runs must end now.
    pub killed: AtomicBool,
    /// When the process's monotonic clock was read first.
    pub epoch: std::time::Instant,
    /// Generation of the policy that was applied last.
    pub generation: AtomicU64,
}

/// One serving thread.
#[derive(Debug)]
pub struct Worker {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Upstream connections of this thread.
    pub pool: Pool,
    /// Names to addresses, for what leaves the sandbox.
    pub resolver: Resolver,
    scratch: RefCell<Vec<u8>>,
    content: RefCell<Vec<u8>>,
    bulk: RefCell<Vec<u8>>,
    spare: RefCell<Vec<Vec<u8>>>,
    tasks: RefCell<Tasks>,
    random: Cell<u64>,
}

#[derive(Debug, Default)]
struct Tasks {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A task's place in the list of those to wake when the grace is over.
#[derive(Debug)]
pub struct Enlisted {
    worker: Rc<Worker>,
    slot: usize,
}

impl Worker {
    /// A worker with its own pool and random state.
    pub fn new(shared: Arc<Shared>) -> Rc<Self> {
        let mut seed = [0; 8];
        // Ids need to be unlikely to repeat, not secret: the clock serves where the kernel gives nothing.
        if getrandom::fill(&mut seed).is_err() {
            seed = shared.epoch.elapsed().as_nanos().to_le_bytes().first_chunk().copied().unwrap_or(seed);
        }
        let idle = shared.settings.upstream_idle;
        let upstreams = shared.providers.len();
        let resolver = Resolver::new(&shared.settings.egress.dns_servers, shared.settings.egress.dns);
        Rc::new(Self {
            shared,
            resolver,
            pool: Pool::new(upstreams, idle),
            scratch: RefCell::new(vec![0; READ_BYTES]),
            content: RefCell::default(),
            bulk: RefCell::default(),
            spare: RefCell::default(),
            tasks: RefCell::default(),
            random: Cell::new(u64::from_le_bytes(seed)),
        })
    }

    /// Lends the thread's read buffer for one read; never across a wait.
    pub fn with_scratch<T>(&self, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
        use_it(&mut self.scratch.borrow_mut())
    }

    /// Lends the thread's large buffer, which only threads that have tunnels have; never across a wait.
    pub fn with_bulk<T>(&self, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut bulk = self.bulk.borrow_mut();
        if bulk.is_empty() {
            // Zeroed pages that nobody touches cost nothing, so tunnels of small messages use little of it.
            *bulk = vec![0; tunnel::BUFFER_BYTES];
        }
        use_it(&mut bulk)
    }

    /// Lends the thread's empty content buffer for one read; never across a wait.
    pub fn with_content<T>(&self, use_it: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut content = self.content.borrow_mut();
        content.clear();
        use_it(&mut content)
    }

    /// An empty buffer with some capacity.
    pub fn take_buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(4096))
    }

    /// Takes a buffer back for reuse.
    pub fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS && (1..=SPARE_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// 64 bits that do not repeat (SplitMix64, Steele et al. 2014).
    pub fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Enlists the current task to be woken by [`Worker::wake_all`]; leaves on drop.
    pub fn enlist(self: &Rc<Self>, waker: &Waker) -> Enlisted {
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.free.pop().unwrap_or_else(|| {
            tasks.wakers.push(None);
            tasks.wakers.len() - 1
        });
        if let Some(place) = tasks.wakers.get_mut(slot) {
            *place = Some(waker.clone());
        }
        Enlisted { worker: Rc::clone(self), slot }
    }

    /// Wakes every enlisted task, so that it sees [`Shared::killed`].
    pub fn wake_all(&self) {
        self.tasks.borrow().wakers.iter().flatten().for_each(Waker::wake_by_ref);
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.shared.metrics.bug();
        }
        let mut tasks = self.worker.tasks.borrow_mut();
        if let Some(place) = tasks.wakers.get_mut(self.slot) {
            *place = None;
        }
        let slot = self.slot;
        tasks.free.push(slot);
    }
}

impl Shared {
    /// Whether what still runs must end now.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Whether new calls are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Monotonic nanoseconds since the engine was made.
    pub fn clock_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.into_std().saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}
