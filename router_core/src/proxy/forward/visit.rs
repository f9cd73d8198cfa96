//! One attempt to leave, from the first bytes to its end: counted and audited exactly once, when it is dropped.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::error::{Error, Kind, Step};
use crate::gate::egress::{Passage, Reach, Refusal};
use crate::ids::{Destination, EgressDoor, EgressReason, TraceId};
use crate::net::{dial, tunnel};
use crate::policy::snapshot::Snapshot;
use crate::proxy::account::{micros, millis, unix_time};
use crate::proxy::forward::Conn;
use crate::proxy::forward::relay::{Broke, Done};
use crate::proxy::worker::Worker;
use crate::telemetry::audit::Record;
use crate::telemetry::destinations::Seen;
use crate::telemetry::metrics::{DenialKind, EgressEnd};

/// A tunnel that lives this long is audited when it does, too: kill -9 must not hide that it was open.
const LONG: Duration = Duration::from_secs(10);

/// The facts of one attempt.
pub struct Visit {
    worker: Rc<Worker>,
    door: EgressDoor,
    started: Instant,
    decision_id: u64,
    trace: TraceId,
    destination: String,
    method: String,
    reason: Option<EgressReason>,
    rule: String,
    snapshot: Option<Arc<Snapshot>>,
    address: Option<SocketAddr>,
    established: Option<Duration>,
    /// Whether it counts as an open connection.
    open: bool,
    /// Whether it happens inside a tunnel, which is counted by itself.
    inside: bool,
    /// Sent to the client.
    pub status: u16,
    /// Bytes from the client to the destination.
    pub sent: u64,
    /// Bytes from the destination to the client.
    pub received: u64,
    /// How it ended; `None` while the client can only have left.
    pub end: Option<EgressEnd>,
    denied: bool,
    /// When it is to be told that it goes on; `None` once it was.
    pub long: Option<Instant>,
    /// What learn mode notes once the destination is reached.
    lesson: Option<Box<Lesson>>,
}

/// What learn mode notes. The address guard speaks last, so it waits for that.
struct Lesson {
    destination: Destination,
    request: Option<(String, String)>,
    listed: bool,
}

impl Visit {
    /// An attempt that begins now.
    pub fn begin(conn: &Conn, door: EgressDoor) -> Self {
        Self::of(&conn.worker, door)
    }

    /// Likewise, without a connection of its own.
    pub fn of(worker: &Rc<Worker>, door: EgressDoor) -> Self {
        worker.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let decision_id = worker.random();
        let started = Instant::now();
        Self {
            worker: Rc::clone(worker),
            door,
            started,
            decision_id,
            trace: TraceId::from_bits(decision_id),
            destination: String::new(),
            method: String::new(),
            reason: None,
            rule: String::new(),
            snapshot: None,
            address: None,
            established: None,
            open: false,
            inside: false,
            status: 0,
            sent: 0,
            received: 0,
            end: None,
            denied: false,
            long: Some(started + LONG),
            lesson: None,
        }
    }

    /// Takes the client's own trace id, where it sent a good one.
    pub fn trace(&mut self, given: Option<&[u8]>) {
        if let Some(id) = given.and_then(TraceId::parse) {
            self.trace = id;
        }
    }

    /// Where to, as far as it is known.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Where it is connected to.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The decision id, as denials show it and the audit has it.
    pub fn decision(&self) -> String {
        format!("{:016x}", self.decision_id)
    }

    /// Notes a destination that nobody decides about: it cannot be read, or is no name.
    pub fn name(&mut self, destination: &str) {
        destination.clone_into(&mut self.destination);
    }

    /// Asks the gate.
    pub fn ask(
        &mut self,
        destination: &Destination,
        request: Option<(&str, &str)>,
    ) -> Result<Passage, Refusal> {
        self.destination = destination.to_string();
        if let Some((method, _)) = request {
            method.clone_into(&mut self.method);
        }
        let shared = &self.worker.shared;
        let snapshot = shared.policy.load_full();
        let reach = Reach { door: self.door, destination, request, now: unix_time().as_secs() };
        let decided = shared.gate.admit_egress(&reach, &snapshot);
        self.snapshot = Some(snapshot);
        match &decided {
            Ok(passage) => {
                self.reason = Some(passage.reason());
                passage.rule().clone_into(&mut self.rule);
                self.lesson = shared.gate.egress().learns().then(|| {
                    Box::new(Lesson {
                        destination: destination.clone(),
                        request: request.map(|(method, path)| (method.to_owned(), path.to_owned())),
                        listed: passage.reason() != EgressReason::Learn,
                    })
                });
            }
            Err(refusal) => self.refused(refusal),
        }
        decided
    }

    /// Notes a refusal, the gate's or one that a door had to make (differing names, a barred address).
    pub fn refused(&mut self, refusal: &Refusal) {
        let shared = &self.worker.shared;
        self.reason = Some(refusal.reason);
        refusal.rule.clone_into(&mut self.rule);
        self.status = match refusal.reason {
            EgressReason::Slots => 503,
            EgressReason::Malformed => 400,
            _ => 403,
        };
        self.denied = true;
        shared.metrics.egress_decided(self.door, refusal.reason);
        shared.metrics.denied(DenialKind::Egress);
        if refusal.reason != EgressReason::Slots && !self.destination.is_empty() {
            let (host, port) = self.destination.rsplit_once(':').unwrap_or((&self.destination, "0"));
            let now = unix_time().as_secs();
            shared.gate.egress().note_blocked(host, port.parse().unwrap_or(0), now);
        }
        tracing::info!(
            door = self.door.name(),
            destination = self.destination,
            reason = refusal.reason.name(),
            rule = refusal.rule,
            decision = self.decision(),
            "egress.denied"
        );
    }

    /// Whether it was refused.
    pub fn is_denied(&self) -> bool {
        self.denied
    }

    /// Counts the leave. The address guard speaks last, so this waits for that.
    fn let_out(&self) {
        if let Some(reason) = self.reason.filter(|reason| reason.allows()) {
            self.worker.shared.metrics.egress_decided(self.door, reason);
        }
    }

    /// Notes what the network did.
    pub fn broken(&mut self, error: &Error, status: u16) {
        if self.address.is_none() {
            self.let_out();
        }
        self.status = status;
        self.end = Some(match error.kind() {
            Kind::Upstream(Step::Resolve) => EgressEnd::ResolveFailed,
            Kind::Timeout(Step::Resolve) => EgressEnd::ResolveTimeout,
            Kind::Timeout(Step::Connect) => EgressEnd::ConnectTimeout,
            Kind::Upstream(Step::Connect) => EgressEnd::ConnectFailed,
            Kind::Timeout(_) => EgressEnd::Idle,
            _ => EgressEnd::UpstreamReset,
        });
    }

    /// Notes that the destination is connected.
    pub fn connected(&mut self, address: SocketAddr) {
        self.address = Some(address);
        let took = self.started.elapsed();
        self.established = Some(took);
        self.open = true;
        self.worker.shared.metrics.egress_dialled(took);
        self.worker.shared.metrics.tunnel_opened();
        self.let_out();
        self.learn();
    }

    /// Notes that a connection made earlier serves again.
    pub fn reused(&mut self, address: Option<SocketAddr>) {
        self.address = address;
        self.open = true;
        self.worker.shared.metrics.tunnel_opened();
        self.let_out();
        self.learn();
    }

    /// Notes that it happens inside a tunnel, which counts its bytes.
    pub fn inside(&mut self, tunnel: &Self) {
        self.address = tunnel.address;
        self.inside = true;
        self.let_out();
        self.learn();
    }

    fn learn(&mut self) {
        let Some(lesson) = self.lesson.take() else { return };
        let request = lesson.request.as_ref().map(|(method, path)| (method.as_str(), path.as_str()));
        self.worker.shared.gate.egress().learned().observe(&Seen {
            destination: &lesson.destination,
            door: self.door,
            request,
            listed: lesson.listed,
            now: unix_time().as_secs(),
        });
    }

    /// Notes bytes that are no request.
    pub fn malformed(&mut self, status: u16, what: &str) {
        self.reason = Some(EgressReason::Malformed);
        what.clone_into(&mut self.rule);
        self.status = status;
        self.denied = true;
        self.worker.shared.metrics.egress_decided(self.door, EgressReason::Malformed);
    }

    /// Notes what one exchange did.
    pub fn exchanged(&mut self, done: &Done) {
        self.status = done.status;
        self.sent += done.sent;
        self.received += done.received;
        self.end = Some(done.broke.as_ref().map_or(EgressEnd::Complete, Broke::end));
    }

    /// Notes what a tunnel moved and how it ended.
    pub fn moved(&mut self, moved: &tunnel::Moved) {
        self.sent += moved.sent;
        self.received += moved.received;
        self.end = Some(match moved.end {
            tunnel::End::Complete => EgressEnd::Complete,
            tunnel::End::ClientReset => EgressEnd::ClientReset,
            tunnel::End::UpstreamReset => EgressEnd::UpstreamReset,
            tunnel::End::Idle => EgressEnd::Idle,
            tunnel::End::Lifetime => EgressEnd::Lifetime,
            tunnel::End::Bytes => EgressEnd::Bytes,
            tunnel::End::Drained => EgressEnd::Drained,
        });
    }
}

impl Visit {
    /// Tells that it is still under way. From now on the kernel watches its destination: those that last are worth
    /// the system calls.
    pub fn goes_on(&mut self, upstream: &TcpStream) {
        self.long = None;
        dial::keep_alive(upstream);
        self.audit("open");
    }

    fn audit(&self, end: &str) {
        let shared = &self.worker.shared;
        let before = if self.method.is_empty() { "" } else { ":" };
        let action = ["egress:", self.door.name(), ":", &self.destination, before, &self.method].concat();
        let address = self.address.map(|a| a.ip().to_string()).unwrap_or_default();
        let allowed = self.reason.is_some_and(EgressReason::allows);
        shared.audit.append(&Record {
            ts_ms: millis(unix_time()),
            agent: shared.settings.sandbox.as_str(),
            action: &action,
            decision: if allowed { "allow" } else { "deny" },
            reason: self.reason.map_or("", EgressReason::name),
            rule: &self.rule,
            decision_id: self.decision_id,
            trace_id: self.trace.as_str(),
            policy: self.snapshot.as_ref().map_or("", |s| &s.egress_digest),
            status: self.status,
            latency_us: micros(self.started.elapsed()),
            first_byte_us: self.established.map_or(0, micros),
            sent_bytes: self.sent,
            received_bytes: self.received,
            address: &address,
            end,
            ..Record::default()
        });
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        let end = if self.denied { "denied" } else { self.end.map_or("client_gone", EgressEnd::name) };
        if self.open {
            let ended = self.end.unwrap_or(EgressEnd::ClientReset);
            shared.metrics.tunnel_closed(self.sent, self.received, ended);
        } else if let Some(failed) = self.end.filter(|_| !self.denied && !self.inside) {
            shared.metrics.egress_failed(failed);
        }
        self.audit(end);
        if shared.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 && shared.is_draining() {
            shared.quiet.notify_all();
        }
    }
}
