//! One request of a fetch, and a fetch's place among the calls in flight.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::error::{Error, Kind, Step};
use crate::ids::{EgressDoor, TraceId};
use crate::proxy::forward::outbound::Traffic;
use crate::proxy::forward::visit::Visit;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::{EgressEnd, Route};

/// One request: decided about, sent, and recorded with what it moved when it is dropped.
pub struct Hop {
    /// What the records tell.
    pub visit: Visit,
    /// What it has moved.
    pub traffic: Traffic,
    /// When what allows it ends.
    pub until: Option<Instant>,
}

impl Hop {
    /// A request that begins now.
    pub fn begin(worker: &Rc<Worker>, trace: &TraceId) -> Self {
        let mut visit = Visit::of(worker, EgressDoor::Fetch);
        visit.trace(Some(trace.as_str().as_bytes()));
        Self { visit, traffic: Traffic::default(), until: None }
    }

    /// Notes that it failed; `status` is what the client is sent.
    pub fn failed(&mut self, error: &Error, status: u16) {
        self.visit.broken(error, status);
        match error.kind() {
            Kind::Timeout(Step::Total) => self.visit.end = Some(EgressEnd::Lifetime),
            Kind::TooLarge { .. } => self.visit.end = Some(EgressEnd::Bytes),
            _ => {}
        }
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.visit.sent = self.traffic.sent;
        self.visit.received = self.traffic.received;
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
