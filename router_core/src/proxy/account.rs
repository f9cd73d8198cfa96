//! What a call was, as it becomes known; recorded once, at its end.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::gate::Charge;
use crate::ids::{Operation, TraceId};
use crate::policy::snapshot::Snapshot;
use crate::proxy::worker::{Shared, Worker};
use crate::telemetry::audit::Record;
use crate::telemetry::metrics::{self, Route, StreamEnd};

/// The facts of one call.
#[derive(Debug)]
pub struct Account {
    /// What it did.
    pub operation: Operation,
    /// Whether the client asked for events.
    pub stream: bool,
    /// When its request had been read.
    pub started: Instant,
    /// The trace id.
    pub trace: TraceId,
    /// Unique per call.
    pub decision_id: u64,
    /// The model sent upstream.
    pub model: String,
    /// The provider asked last.
    pub provider: &'static str,
    /// The policy that decided.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Sent to the client; 0 when it left first.
    pub status: u16,
    /// Upstreams asked.
    pub attempts: u32,
    /// When the first content went to the client.
    pub first_content: Option<Instant>,
    /// What it cost.
    pub charge: Charge,
    /// How it ended.
    pub end: StreamEnd,
    /// The rule that denied it; empty when none did.
    pub rule: String,
}

/// A call's place among those in flight; left on drop.
#[derive(Debug)]
pub struct Flight {
    worker: Rc<Worker>,
    operation: Operation,
    /// The status to be counted.
    pub status: u16,
}

impl Flight {
    /// Takes a place.
    pub fn begin(worker: &Rc<Worker>, operation: Operation) -> Self {
        worker.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        worker.shared.metrics.http_begun();
        Self { worker: Rc::clone(worker), operation, status: 0 }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        shared.metrics.http_done(Route::Inference(self.operation), self.status);
        if shared.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 && shared.is_draining() {
            shared.quiet.notify_all();
        }
    }
}

impl Account {
    /// Facts that are known at the start.
    pub fn new(operation: Operation, trace: TraceId, decision_id: u64) -> Self {
        Self {
            operation,
            stream: false,
            started: Instant::now(),
            trace,
            decision_id,
            model: String::new(),
            provider: "",
            snapshot: None,
            status: 0,
            attempts: 0,
            first_content: None,
            charge: Charge::default(),
            end: StreamEnd::Complete,
            rule: String::new(),
        }
    }

    /// Counts the call and appends its audit record.
    pub fn record(&self, worker: &Worker) {
        let shared = &worker.shared;
        let latency = self.started.elapsed();
        let first_byte = self.first_content.map(|at| at - self.started);
        let ok = self.end == StreamEnd::Complete && (200..400).contains(&self.status);
        if self.operation != Operation::Read {
            let usage = &self.charge.usage;
            shared.metrics.call_done(&metrics::Call {
                model: shared.metrics.model(&self.model),
                ok,
                latency,
                first_byte,
                input_tokens: usage.input,
                output_tokens: usage.output,
                estimated: self.charge.estimated,
            });
        }
        if self.stream {
            shared.metrics.stream_ended(self.end);
        }
        self.audit(shared, latency, first_byte);
    }

    fn audit(&self, shared: &Shared, latency: Duration, first_byte: Option<Duration>) {
        let action = ["inference:", self.operation.name(), ":", &self.model].concat();
        let denied = self.end == StreamEnd::Denied;
        shared.audit.append(&Record {
            ts_ms: millis(unix_time()),
            agent: shared.settings.sandbox.as_str(),
            action: &action,
            decision: if denied { "deny" } else { "allow" },
            rule: &self.rule,
            decision_id: self.decision_id,
            trace_id: self.trace.as_str(),
            policy: self.snapshot.as_ref().map_or("", |s| &s.inference_digest),
            model: &self.model,
            provider: self.provider,
            status: self.status,
            input_tokens: self.charge.usage.input,
            output_tokens: self.charge.usage.output,
            estimated: self.charge.estimated,
            latency_us: micros(latency),
            first_byte_us: first_byte.map_or(0, micros),
            attempts: self.attempts,
            end: self.end.name(),
            ..Record::default()
        });
    }
}

/// Wall-clock time since the epoch; 0 on a clock before it.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whole milliseconds.
pub fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds.
pub fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
