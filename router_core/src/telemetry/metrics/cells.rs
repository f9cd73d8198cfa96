//! The cells behind the metrics: one flat array per shard, and where in it everything lies.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

/// Upper bounds of `kars_inference_latency_seconds`, in microseconds: the reference's, which dashboards know.
pub(super) const LATENCY_BUCKETS_US: [u64; 8] =
    [100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000];
/// Upper bounds of `kars_time_to_first_byte_seconds`, in microseconds: from a local model to a long prompt.
pub(super) const FIRST_BYTE_BUCKETS_US: [u64; 12] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000,
];
/// Upper bounds of `kars_egress_dial_seconds`, in microseconds: from the same node to addresses that are all tried.
pub(super) const DIAL_BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000];

/// More shards than this help no sidecar; each costs its cells.
const MAX_SHARDS: usize = 16;

/// Where everything lies in a shard.
pub(super) mod at {
    use super::super::labels;
    use super::{DIAL_BUCKETS_US, FIRST_BYTE_BUCKETS_US, LATENCY_BUCKETS_US};
    use crate::limits::MODEL_LABELS;

    // Calls that succeeded and calls that failed come first in a model's cells.
    pub(in super::super) const MODEL_INPUT: usize = 2;
    pub(in super::super) const MODEL_OUTPUT: usize = 3;
    pub(in super::super) const MODEL_LATENCY: usize = 4;
    const MODEL_CELLS: usize = MODEL_LATENCY + LATENCY_BUCKETS_US.len() + 2;

    const HTTP: usize = (MODEL_LABELS + 1) * MODEL_CELLS;
    pub(in super::super) const ENDS: usize = HTTP + labels::ROUTES * labels::CODES;
    pub(in super::super) const STEPS: usize = ENDS + labels::ENDS;
    pub(in super::super) const RETRIES: usize = STEPS + labels::STEPS.len();
    pub(in super::super) const DENIALS: usize = RETRIES + labels::Retry::ALL.len();
    pub(in super::super) const FIRST_BYTE: usize = DENIALS + labels::DenialKind::ALL.len();
    pub(in super::super) const ESTIMATED: usize = FIRST_BYTE + FIRST_BYTE_BUCKETS_US.len() + 2;
    pub(in super::super) const BUGS: usize = ESTIMATED + 1;
    pub(in super::super) const IN_FLIGHT: usize = BUGS + 1;
    pub(in super::super) const CONNECTIONS: usize = IN_FLIGHT + 1;
    pub(in super::super) const LABELS_DROPPED: usize = CONNECTIONS + 1;
    pub(in super::super) const EGRESS_DECISIONS: usize = LABELS_DROPPED + 1;
    pub(in super::super) const EGRESS_ENDS: usize = EGRESS_DECISIONS + labels::DECISIONS;
    pub(in super::super) const EGRESS_DIAL: usize = EGRESS_ENDS + labels::EgressEnd::ALL.len();
    pub(in super::super) const EGRESS_CONNECTIONS: usize = EGRESS_DIAL + DIAL_BUCKETS_US.len() + 2;
    pub(in super::super) const EGRESS_SENT: usize = EGRESS_CONNECTIONS + 1;
    pub(in super::super) const EGRESS_RECEIVED: usize = EGRESS_SENT + 1;
    pub(in super::super) const CELLS: usize = EGRESS_RECEIVED + 1;

    pub(in super::super) const fn model(index: usize) -> usize {
        index * MODEL_CELLS
    }

    pub(in super::super) const fn http(route: usize, code: usize) -> usize {
        HTTP + route * labels::CODES + code
    }
}

/// One thread's cells, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard([AtomicU64; at::CELLS]);

/// All shards.
#[derive(Debug)]
pub(super) struct Cells(Box<[Shard]>);

impl Cells {
    pub(super) fn new() -> Self {
        let shards = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_SHARDS);
        Self((0..shards).map(|_| Shard([const { AtomicU64::new(0) }; at::CELLS])).collect())
    }

    /// The calling thread's shard.
    pub(super) fn mine(&self) -> &Shard {
        // There is always a first shard; the empty one only spares the hot path a branch that panics.
        static NONE: Shard = Shard([const { AtomicU64::new(0) }; at::CELLS]);
        self.0.get(thread_number() % self.0.len().max(1)).unwrap_or(&NONE)
    }

    pub(super) fn add(&self, cell: usize, count: u64) {
        self.mine().add(cell, count);
    }

    pub(super) fn sub(&self, cell: usize, count: u64) {
        self.mine().sub(cell, count);
    }

    /// A counter's value.
    pub(super) fn total(&self, cell: usize) -> u64 {
        self.0.iter().fold(0, |sum, shard| sum.wrapping_add(shard.load(cell)))
    }

    /// A gauge's value. Its shards go up and down on different threads: only their sum means something, and a scrape
    /// between an add and its subtraction elsewhere may see it below zero, which counts as zero.
    pub(super) fn level(&self, cell: usize) -> u64 {
        u64::try_from(self.total(cell).cast_signed()).unwrap_or(0)
    }
}

impl Shard {
    pub(super) fn add(&self, cell: usize, count: u64) {
        if let Some(cell) = self.0.get(cell) {
            cell.fetch_add(count, Relaxed);
        }
    }

    pub(super) fn sub(&self, cell: usize, count: u64) {
        if let Some(cell) = self.0.get(cell) {
            cell.fetch_sub(count, Relaxed);
        }
    }

    /// Counts a duration in a histogram at `cell`: one cell per bound, one for what lies above, one for the sum.
    pub(super) fn observe(&self, cell: usize, bounds_us: &[u64], value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        // A bound belongs to its bucket: `le` is "less or equal".
        let bucket = bounds_us.iter().position(|bound| us <= *bound).unwrap_or(bounds_us.len());
        self.add(cell + bucket, 1);
        self.add(cell + bounds_us.len() + 1, us);
    }

    fn load(&self, cell: usize) -> u64 {
        self.0.get(cell).map_or(0, |cell| cell.load(Relaxed))
    }
}

/// Threads in the order in which they first counted something.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed));
        }
        mine.get()
    })
}
