//! One request of a fetch: what it was, recorded once, however it ends.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::ids::{Destination, TraceId};
use crate::policy::snapshot::Snapshot;
use crate::proxy::account::{micros, millis, unix_time};
use crate::proxy::forward::outbound::Traffic;
use crate::proxy::worker::{Shared, Worker};
use crate::telemetry::audit::Record;
use crate::telemetry::metrics::Route;

/// What is known of one request.
#[derive(Debug)]
pub struct Hop {
    /// Where to; empty when the URL named nothing.
    pub destination: String,
    /// The rule that decided.
    pub rule: String,
    /// Whether it may leave.
    pub allowed: bool,
    /// The address dialled.
    pub address: String,
    /// The status of the destination's answer, or of ours when there was none; 0 before either.
    pub status: u16,
    /// Bytes moved.
    pub traffic: Traffic,
    started: Instant,
    snapshot: Option<Arc<Snapshot>>,
}

impl Hop {
    /// A request that is to be decided under `snapshot`.
    pub fn new(destination: Option<&Destination>, snapshot: Option<Arc<Snapshot>>) -> Self {
        Self {
            destination: destination.map(ToString::to_string).unwrap_or_default(),
            rule: String::new(),
            allowed: false,
            address: String::new(),
            status: 0,
            traffic: Traffic::default(),
            started: Instant::now(),
            snapshot,
        }
    }

    /// Appends its audit record.
    pub fn record(&self, shared: &Shared, trace: &TraceId, decision_id: u64, end: &str) {
        shared.audit.append(&Record {
            ts_ms: millis(unix_time()),
            agent: shared.settings.sandbox.as_str(),
            action: &format!("egress:fetch:{}", self.destination),
            decision: if self.allowed { "allow" } else { "deny" },
            rule: &self.rule,
            decision_id,
            trace_id: trace.as_str(),
            policy: self.snapshot.as_ref().map_or("", |s| &s.egress_digest),
            status: self.status,
            latency_us: micros(self.started.elapsed()),
            first_byte_us: self.traffic.first_byte.map_or(0, |at| micros(at - self.started)),
            sent_bytes: self.traffic.sent,
            received_bytes: self.traffic.received,
            address: &self.address,
            end,
            ..Record::default()
        });
    }
}

/// A fetch's place among the calls in flight and the connections that leave; left on drop.
#[derive(Debug)]
pub struct Flight {
    worker: Rc<Worker>,
    /// The status to be counted; 0 when the client left first.
    pub status: u16,
    /// Whether there was room among the connections.
    pub fits: bool,
}

impl Flight {
    /// Takes a place.
    pub fn begin(worker: &Rc<Worker>) -> Self {
        let shared = &worker.shared;
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        shared.metrics.http_begun();
        let before = shared.egress_connections.fetch_add(1, Ordering::Relaxed);
        let fits = before < shared.settings.egress.max_connections;
        Self { worker: Rc::clone(worker), status: 0, fits }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        shared.metrics.http_done(Route::Egress, self.status);
        shared.egress_connections.fetch_sub(1, Ordering::Relaxed);
        if shared.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 && shared.is_draining() {
            shared.quiet.notify_all();
        }
    }
}
