//! Counters and histograms of the data plane, and their Prometheus text.
//!
//! Every count is a relaxed add on a cell of the calling thread's shard; a scrape sums the shards. Nothing grows
//! with the number of calls, and every label value comes from a closed set: models from a bounded table.

mod cells;
mod labels;
mod models;
mod process;
mod render;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::Step;
use crate::ids::{EgressDoor, EgressReason};

use cells::{Cells, at};
pub use labels::{DenialKind, EgressEnd, Retry, Route, StreamEnd};
pub use models::ModelLabel;
use models::Models;

/// The metrics of one engine.
#[derive(Debug)]
pub struct Metrics {
    /// The sandbox's name, escaped for a label.
    sandbox: Box<str>,
    cells: Cells,
    models: Models,
    bundles: Mutex<Vec<Bundle>>,
    budgets: Mutex<[Budget; 3]>,
    egress: Mutex<EgressFigures>,
    generation: AtomicU64,
    audit_records: AtomicU64,
    audit_dropped: AtomicU64,
}

/// One finished inference call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// From [`Metrics::model`].
    pub model: ModelLabel,
    /// Whether the upstream answered and the answer was delivered.
    pub ok: bool,
    /// From the request's head to the answer's end.
    pub latency: Duration,
    /// From the request's head to the answer's first byte; `None` when there was none.
    pub first_byte: Option<Duration>,
    /// Input tokens charged.
    pub input_tokens: u64,
    /// Output tokens charged.
    pub output_tokens: u64,
    /// Whether the tokens are an estimate.
    pub estimated: bool,
}

/// A budget window as it stands, in tokens; a `limit` of 0 is unlimited and not exported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The limit.
    pub limit: u64,
    /// Settled.
    pub spent: u64,
    /// Held by calls in flight.
    pub reserved: u64,
}

/// The egress proxy's state as it stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct EgressFigures {
    /// Names on the blocklist.
    pub blocklist_names: u64,
    /// Seconds since the blocklist's feeds were last read; `None`, and not exported, while none was.
    pub blocklist_age: Option<u64>,
    /// Rows that learn mode holds.
    pub learned_rows: u64,
    /// Whether learn mode is on.
    pub learns: bool,
}

/// What is known of one kind of policy bundle.
#[derive(Debug, Clone)]
struct Bundle {
    kind: &'static str,
    /// Unix seconds of the last good load.
    loaded_at: Option<u64>,
    healthy: bool,
    loads: u64,
    errors: u64,
}

impl Metrics {
    /// Metrics that are all zero, for the sandbox of this process.
    pub fn new(sandbox: &str) -> Self {
        Self {
            sandbox: models::escape(sandbox).into(),
            cells: Cells::new(),
            models: Models::new(),
            bundles: Mutex::default(),
            budgets: Mutex::default(),
            egress: Mutex::default(),
            generation: AtomicU64::new(0),
            audit_records: AtomicU64::new(0),
            audit_dropped: AtomicU64::new(0),
        }
    }

    /// The label of a model: its own for the first [`crate::limits::MODEL_LABELS`] names, then `other`, as for names
    /// that are empty, too long or hold control characters. Does not allocate for a known name.
    pub fn model(&self, name: &str) -> ModelLabel {
        let label = self.models.label(name);
        if label == ModelLabel::OTHER {
            self.cells.add(at::LABELS_DROPPED, 1);
        }
        label
    }

    /// Counts a finished inference call.
    pub fn call_done(&self, call: &Call) {
        let cells = self.cells.mine();
        let model = at::model(call.model.index());
        cells.add(model + usize::from(!call.ok), 1);
        cells.add(model + at::MODEL_INPUT, call.input_tokens);
        cells.add(model + at::MODEL_OUTPUT, call.output_tokens);
        cells.observe(model + at::MODEL_LATENCY, &cells::LATENCY_BUCKETS_US, call.latency);
        if let Some(first_byte) = call.first_byte {
            cells.observe(at::FIRST_BYTE, &cells::FIRST_BYTE_BUCKETS_US, first_byte);
        }
        if call.estimated {
            cells.add(at::ESTIMATED, 1);
        }
    }

    /// Counts a request's head; pairs with [`Self::http_done`].
    pub fn http_begun(&self) {
        self.cells.add(at::IN_FLIGHT, 1);
    }

    /// Counts a request's end, however it ended. `status` is what the client was sent; 0 when it left first, which
    /// is shown as 499.
    pub fn http_done(&self, route: Route, status: u16) {
        let cells = self.cells.mine();
        cells.sub(at::IN_FLIGHT, 1);
        cells.add(at::http(route.index(), labels::code_index(status)), 1);
    }

    /// Counts an accepted connection; pairs with [`Self::connection_closed`].
    pub fn connection_opened(&self) {
        self.cells.add(at::CONNECTIONS, 1);
    }

    /// Counts a closed connection.
    pub fn connection_closed(&self) {
        self.cells.sub(at::CONNECTIONS, 1);
    }

    /// Counts a stream's end.
    pub fn stream_ended(&self, end: StreamEnd) {
        self.cells.add(at::ENDS + end.index(), 1);
    }

    /// Counts a failed attempt upstream.
    pub fn upstream_error(&self, step: Step) {
        self.cells.add(at::STEPS + labels::step_index(step), 1);
    }

    /// Counts an attempt that is made again.
    pub fn upstream_retried(&self, reason: Retry) {
        self.cells.add(at::RETRIES + reason.index(), 1);
    }

    /// Counts a denial.
    pub fn denied(&self, kind: DenialKind) {
        self.cells.add(at::DENIALS + kind.index(), 1);
    }

    /// Counts a decision about a connection that asked to leave; the reason tells whether it may.
    pub fn egress_decided(&self, door: EgressDoor, reason: EgressReason) {
        self.cells.add(at::EGRESS_DECISIONS + labels::decision_index(door, reason), 1);
    }

    /// Counts the time from leave to a connected socket.
    pub fn egress_dialled(&self, took: Duration) {
        self.cells.mine().observe(at::EGRESS_DIAL, &cells::DIAL_BUCKETS_US, took);
    }

    /// Counts a connection that was let out and got no socket.
    pub fn egress_failed(&self, end: EgressEnd) {
        self.cells.add(at::EGRESS_ENDS + end.index(), 1);
    }

    /// Counts a connection that leaves; pairs with [`Self::tunnel_closed`].
    pub fn tunnel_opened(&self) {
        self.cells.add(at::EGRESS_CONNECTIONS, 1);
    }

    /// Counts the end of a connection that left, and its bytes to and from the destination.
    pub fn tunnel_closed(&self, sent: u64, received: u64, end: EgressEnd) {
        let cells = self.cells.mine();
        cells.sub(at::EGRESS_CONNECTIONS, 1);
        cells.add(at::EGRESS_SENT, sent);
        cells.add(at::EGRESS_RECEIVED, received);
        cells.add(at::EGRESS_ENDS + end.index(), 1);
    }

    /// Connections that leave at this moment.
    pub fn tunnels(&self) -> u64 {
        self.cells.level(at::EGRESS_CONNECTIONS)
    }

    /// Counts a broken invariant of ours.
    pub fn bug(&self) {
        self.cells.add(at::BUGS, 1);
    }

    /// Broken invariants counted so far.
    pub fn bugs(&self) -> u64 {
        self.cells.total(at::BUGS)
    }

    /// Requests between their head and their end.
    pub fn in_flight(&self) -> u64 {
        self.cells.level(at::IN_FLIGHT)
    }

    /// A policy bundle was loaded at `at` (unix seconds). `kind` is a status kind such as `InferencePolicy`.
    pub fn bundle_loaded(&self, kind: &'static str, at: u64) {
        self.bundle(kind, |bundle| {
            bundle.loaded_at = Some(at);
            bundle.healthy = true;
            bundle.loads += 1;
        });
    }

    /// A policy bundle was refused; the one before it, if any, stays in force.
    pub fn bundle_refused(&self, kind: &'static str) {
        self.bundle(kind, |bundle| {
            bundle.healthy = false;
            bundle.errors += 1;
        });
    }

    /// A policy bundle is gone, and with it its gauges.
    pub fn bundle_removed(&self, kind: &'static str) {
        self.bundle(kind, |bundle| {
            bundle.healthy = false;
            bundle.loaded_at = None;
        });
    }

    /// Sets the generation of the settings and policies in force.
    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Relaxed);
    }

    /// Sets the budget gauges: hour, day, month. For the scrape.
    pub fn set_budgets(&self, budgets: [Budget; 3]) {
        *self.budgets.lock().unwrap_or_else(PoisonError::into_inner) = budgets;
    }

    /// Sets the gauges of the egress proxy. For the scrape.
    pub fn set_egress(&self, figures: EgressFigures) {
        *self.egress.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    /// Sets the audit log's own counts. For the scrape.
    pub fn set_audit(&self, appended: u64, dropped: u64) {
        self.audit_records.store(appended, Relaxed);
        self.audit_dropped.store(dropped, Relaxed);
    }

    /// Appends all metrics in the Prometheus text format 0.0.4.
    pub fn render(&self, out: &mut String) {
        render::all(self, out);
    }

    fn bundle(&self, kind: &'static str, change: impl FnOnce(&mut Bundle)) {
        let mut bundles = self.bundles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bundle) = bundles.iter_mut().find(|bundle| bundle.kind == kind) {
            return change(bundle);
        }
        let mut bundle = Bundle { kind, loaded_at: None, healthy: false, loads: 0, errors: 0 };
        change(&mut bundle);
        bundles.push(bundle);
    }
}

#[cfg(test)]
mod tests;
