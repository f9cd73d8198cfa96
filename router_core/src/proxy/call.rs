//! One model call: read, admit, rewrite by span, send, move the answer back, settle, record.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::error::{Error, Kind, Result, Step};
use crate::gate::{Charge, Denial, Facts, Permit};
use crate::ids::{Dialect, Operation, TraceId};
use crate::net::deadline::Deadline;
use crate::policy::health::{Candidate, is_failover_trigger};
use crate::policy::inference::Inference;
use crate::policy::provider::{Provider, StreamUsage as UsageQuirk};
use crate::policy::safety;
use crate::proxy::client::{Body, Client, Head};
use crate::proxy::inbound::Inbound;
use crate::proxy::respond::{self, Failure};
use crate::proxy::routes::ModelRoute;
use crate::proxy::stream::{self, Sink, Stop, Watch};
use crate::proxy::upstream::{self, Media, Outbound, Response};
use crate::proxy::worker::{Shared, Worker};
use crate::telemetry::audit::Record;
use crate::telemetry::metrics::{self, DenialKind, Retry, Route, StreamEnd};
use crate::wire::edit::Edits;
use crate::wire::request::{self, Request, Rewrite, StreamUsage};

/// Largest upstream error body that is read whole, to be judged and told in the client's dialect.
const ERROR_BODY_BYTES: usize = 1024 * 1024;

/// What a call was, as it becomes known; recorded once at its end.
#[derive(Debug)]
struct Account {
    operation: Operation,
    stream: bool,
    started: Instant,
    trace: TraceId,
    decision_id: u64,
    model: String,
    provider: &'static str,
    digest: String,
    generation: u64,
    status: u16,
    attempts: u32,
    first_content: Option<Instant>,
    charge: Charge,
    end: StreamEnd,
    rule: String,
}

/// Serves one model call. The answer is written when this returns; dropping it resets the upstream and
/// charges what was seen.
pub async fn run(
    worker: &Rc<Worker>,
    client: &mut Client,
    deadline: &mut Deadline,
    inbound: &Inbound<'_>,
    route: &ModelRoute<'_>,
    trace: TraceId,
) {
    let shared = &worker.shared;
    let account = Account {
        operation: route.operation,
        stream: false,
        started: Instant::now(),
        trace,
        decision_id: worker.random(),
        model: String::new(),
        provider: "",
        digest: String::new(),
        generation: 0,
        status: 0,
        attempts: 0,
        first_content: None,
        charge: Charge::default(),
        end: StreamEnd::Complete,
        rule: String::new(),
    };
    let flight = Flight::begin(shared, route.operation);
    let mut call = Call { worker, client, deadline, inbound: *inbound, route: *route, account };
    if let Err(failure) = call.serve().await {
        call.fail(&failure);
    }
    // The record is there before the client can know that the call is over.
    call.account.record(worker);
    let mut watch = Watch::new(&shared.settings.timeouts, call.dialect(), Instant::now(), false);
    if stream::flush(worker, call.client, call.deadline, &mut watch).await.is_err() {
        call.client.close_after();
    }
    flight.end(call.account.status);
}

/// A call's place among those in flight; left on drop.
struct Flight<'a> {
    shared: &'a Shared,
    operation: Operation,
    status: u16,
}

impl<'a> Flight<'a> {
    fn begin(shared: &'a Shared, operation: Operation) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        shared.metrics.http_begun();
        Self { shared, operation, status: 0 }
    }

    fn end(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.shared.metrics.http_done(Route::Inference(self.operation), self.status);
        if self.shared.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 && self.shared.is_draining() {
            self.shared.quiet.notify_all();
        }
    }
}

struct Call<'c, 'i> {
    worker: &'c Rc<Worker>,
    client: &'c mut Client,
    deadline: &'c mut Deadline,
    inbound: Inbound<'i>,
    route: ModelRoute<'i>,
    account: Account,
}

/// One attempt at one upstream.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    upstream: usize,
    provider: &'a Provider,
    /// The policy's name for the provider, as the health registry keys it.
    wanted: Option<&'a str>,
    model: &'a str,
}

impl<'i> Call<'_, 'i> {
    fn dialect(&self) -> Dialect {
        match self.route.operation {
            Operation::Read if self.inbound.fields.value("anthropic-version").is_some() => Dialect::Anthropic,
            operation => operation.dialect(),
        }
    }

    async fn serve(&mut self) -> Result<(), Failure> {
        let shared = &self.worker.shared;
        check_capacity(shared)?;
        let (operation, body) = (self.route.operation, self.inbound.body);
        let request: Option<Request<'i>> = match operation {
            Operation::Read => None,
            _ => Some(request::read(operation, body).map_err(|e| Failure::from(&e))?),
        };
        let request = request.as_ref();
        let named = request.and_then(|r| r.model.as_ref()).map(|m| m.value.as_ref());
        let admin = shared.admin_model.load_full().filter(|_| operation.generates());
        let default = shared.default_model();
        let model =
            admin.as_deref().map(String::as_str).or(named).or(self.route.deployment).unwrap_or(&default);
        self.account.stream = request.is_some_and(|r| r.stream);
        if operation != Operation::Read {
            model.clone_into(&mut self.account.model);
        }
        let permit = self.admit(request, model)?;
        self.exchange(permit, request, model).await
    }

    fn admit(&mut self, request: Option<&Request<'_>>, model: &str) -> Result<Permit, Failure> {
        let shared = &self.worker.shared;
        let facts = Facts {
            operation: self.route.operation,
            model,
            request,
            body_bytes: self.inbound.body.len() as u64,
            now: unix_time().as_secs(),
            clock_ns: shared.clock_ns(self.account.started),
        };
        let snapshot = shared.policy.load_full();
        self.account.digest.clone_from(&snapshot.inference_digest);
        self.account.generation = snapshot.generation;
        shared.gate.admit(&facts, &snapshot).map_err(|denial| self.denied(&denial))
    }

    fn denied(&mut self, denial: &Denial) -> Failure {
        self.worker.shared.metrics.denied(denial.cause);
        self.account.end = StreamEnd::Denied;
        self.account.rule.clone_from(&denial.rule);
        Failure::from(denial)
    }

    /// Tries the permitted models in order until one answers, then moves the answer to the client. Nothing is
    /// tried again once the client has seen a status.
    async fn exchange(
        &mut self,
        mut permit: Permit,
        request: Option<&Request<'_>>,
        model: &str,
    ) -> Result<(), Failure> {
        let worker = Rc::clone(self.worker);
        let shared = &worker.shared;
        let mut watch =
            Watch::new(&shared.settings.timeouts, self.dialect(), self.account.started, self.account.stream);
        let models = permit.plan().models.clone();
        let now_ms = millis(unix_time());
        let attempts = self.attempts(shared, &models, model, now_ms)?;
        let tracked = !models.is_empty();
        let mut left = attempts.len();
        for attempt in attempts {
            left -= 1;
            self.account.attempts += 1;
            self.account.provider = attempt.provider.name();
            if self.account.model != attempt.model && self.route.operation != Operation::Read {
                attempt.model.clone_into(&mut self.account.model);
            }
            watch.await_head();
            let outcome = self.attempt(&mut permit, request, attempt, &mut watch).await;
            let candidate = Candidate { provider: attempt.wanted, deployment: attempt.model };
            let (good, retry) = match &outcome {
                Ok(response) if is_failover_trigger(response.status) => (false, Some(Retry::Status)),
                Err(Stop::Failed(e)) => (false, retriable(e).then_some(Retry::Transport)),
                _ => (true, None),
            };
            if tracked && good {
                shared.health.success(candidate, now_ms);
            } else if tracked {
                shared.health.failure(candidate, now_ms);
            }
            match (outcome, retry) {
                (_, Some(reason)) if left > 0 => shared.metrics.upstream_retried(reason),
                (Ok(response), _) => {
                    return self.answer(permit, response, request, &mut watch, attempt.provider).await;
                }
                (Err(stop), _) => {
                    self.account.charge = permit.settle(None, matches!(stop, Stop::Gone), false);
                    return self.stop(stop, false);
                }
            }
        }
        Ok(())
    }

    /// Whom to ask, in order: the policy's models that are healthy, else the request's own.
    fn attempts<'a>(
        &self,
        shared: &'a Shared,
        models: &'a [crate::policy::inference::ModelRef],
        model: &'a str,
        now_ms: u64,
    ) -> Result<Vec<Attempt<'a>>, Failure> {
        let stated: Vec<_> =
            models.iter().map(|m| (Some(m.provider.as_ref()), m.deployment.as_ref())).collect();
        let fit = |(provider, deployment): &(Option<&'a str>, &'a str)| {
            shared.health.healthy(Candidate { provider: *provider, deployment }, now_ms)
        };
        let mut named: Vec<(Option<&'a str>, &'a str)> = stated.iter().copied().filter(fit).collect();
        if named.is_empty() {
            // When all are unhealthy some answer is better than none.
            named.push(stated.first().copied().unwrap_or((None, model)));
        }
        named.into_iter().map(|(wanted, model)| self.upstream(shared, wanted, model)).collect()
    }

    /// The provider that a policy names, where it serves the operation; else the first that does.
    fn upstream<'a>(
        &self,
        shared: &'a Shared,
        wanted: Option<&'a str>,
        model: &'a str,
    ) -> Result<Attempt<'a>, Failure> {
        let operation = self.route.operation;
        let anthropic = self.dialect() == Dialect::Anthropic;
        let serves = |p: &Provider| match operation {
            Operation::Read => p.serves(operation) && p.serves(Operation::Messages) == anthropic,
            _ => p.serves(operation),
        };
        let mut serving = shared.providers.iter().enumerate().filter(|(_, p)| serves(p));
        let first = serving.clone().next();
        let found = serving.find(|(_, p)| wanted.is_some_and(|name| p.answers_to(name))).or(first);
        let (upstream, provider) =
            found.ok_or_else(|| unsupported(operation, shared.providers.is_empty()))?;
        Ok(Attempt { upstream, provider, wanted, model })
    }

    async fn attempt(
        &mut self,
        permit: &mut Permit,
        request: Option<&Request<'_>>,
        attempt: Attempt<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Response, Stop> {
        let worker = Rc::clone(self.worker);
        let ModelRoute { operation, rest, deployment } = self.route;
        let trace = self.account.trace;
        // Azure's api-version belongs to the deployment form, which is not sent on.
        let query = self.inbound.query.filter(|_| deployment.is_none());
        let target = attempt.provider.target(operation, rest, query).map_err(Stop::Failed)?;
        let edits = match request {
            Some(request) => rewrites(operation, permit, request, self.inbound.body, attempt),
            None => Edits::new(),
        };
        let out = Outbound {
            upstream: attempt.upstream,
            provider: attempt.provider,
            method: self.inbound.method,
            target: &target,
            fields: self.inbound.fields,
            trace_id: trace.as_str(),
            body: self.inbound.body,
            edits: &edits,
            stream: self.account.stream,
        };
        let (id, account) = (self.account.decision_id, &mut self.account);
        let mut commit = |client: &mut Client| {
            account.status = 200;
            client.start(200, Body::Stream, |head| {
                head.field("content-type", b"text/event-stream; charset=utf-8");
                event_fields(head, &[]);
                own_fields(head, trace.as_str(), id, 1);
            });
        };
        let sending = upstream::send(&worker, permit, &out);
        stream::until_head(&worker, self.client, self.deadline, watch, &mut commit, sending).await
    }

    /// Moves an answer to the client and settles the permit.
    async fn answer(
        &mut self,
        permit: Permit,
        mut response: Response,
        request: Option<&Request<'_>>,
        watch: &mut Watch<'_>,
        provider: &Provider,
    ) -> Result<(), Failure> {
        let good = (200..300).contains(&response.status);
        let secrets: Vec<_> = provider.authorization().iter().map(|a| needle(a.value().expose())).collect();
        for secret in &secrets {
            stream::blot(&mut response.lines, secret);
        }
        let floor_of = permit.snapshot().inference.clone();
        let floor = floor_of
            .as_deref()
            .and_then(Inference::floor)
            .filter(|_| good && self.route.operation.generates());
        if floor.is_some() && response.encoded {
            let detail = "the upstream compressed an answer that a content floor must inspect";
            self.account.charge = permit.settle(None, true, false);
            return Err(Failure::from(&Error::new(Kind::Upstream(Step::Protocol), detail)));
        }
        let events = good && response.media == Media::Events;
        let hold = !events && (!good || floor.is_some() || self.client.committed());
        watch.await_body(events || self.client.committed());
        if hold {
            return self.answer_whole(permit, response, watch, floor, &secrets).await;
        }
        let mut sink = if events {
            let strip = strips_usage(self.route.operation, request, provider);
            Sink::events(&secrets, floor, strip, self.start_events(&response, floor.is_some()))
        } else {
            self.start_bytes(&response);
            Sink::bytes(&secrets, response.media == Media::Json && !response.encoded)
        };
        let moved =
            stream::relay(self.worker, self.client, self.deadline, watch, &mut response.body, &mut sink)
                .await;
        self.account.first_content = sink.first_content();
        let torn = sink.is_torn();
        let mut permit = permit;
        permit.note_output(sink.seen_output());
        self.account.charge = permit.settle(sink.usage(), good, moved.is_ok());
        drop(sink);
        self.worker.give_buffer(response.lines);
        match moved {
            Ok(()) => Ok(()),
            Err(stop) => self.stop(stop, torn),
        }
    }

    /// Reads the whole answer before any of it goes on: errors, inspected answers, and answers to streamed
    /// calls that are no streams although a stream was begun.
    async fn answer_whole(
        &mut self,
        permit: Permit,
        mut response: Response,
        watch: &mut Watch<'_>,
        floor: Option<&safety::Floor>,
        secrets: &[memchr::memmem::Finder<'static>],
    ) -> Result<(), Failure> {
        let good = (200..300).contains(&response.status);
        let bound = if good { self.worker.shared.settings.body_limit } else { ERROR_BODY_BYTES };
        let mut sink = Sink::held(secrets, bound);
        let moved =
            stream::relay(self.worker, self.client, self.deadline, watch, &mut response.body, &mut sink)
                .await;
        let usage = sink.usage();
        let mut permit = permit;
        permit.note_output(sink.seen_output());
        let body = sink.into_held();
        self.account.charge = permit.settle(usage, good, moved.is_ok());
        if let Err(stop) = moved {
            return self.stop(stop, false);
        }
        if let Some(floor) = floor {
            let findings = floor.inspect(&body);
            let shields =
                floor.lacks_shields(findings.prompt_annotated).then(safety::Violation::shields_required);
            if let Some(found) = findings.violation.or(shields) {
                return self.stop(Stop::Content(Box::new(stream::violation(&found))), false);
            }
        }
        if self.client.committed() {
            return Err(told_late(response.status, &body));
        }
        self.account.first_content = Some(Instant::now());
        self.account.status = response.status;
        let reason = (!good).then(|| safety::is_provider_block(&body)).flatten();
        let length = body.len() as u64;
        self.start(&response, Body::Length(length), |head| {
            if let Some(reason) = reason {
                respond::decision_fields(reason, head);
            }
        });
        self.client.push(&body);
        self.client.end();
        Ok(())
    }

    fn start(&mut self, response: &Response, body: Body, more: impl FnOnce(&mut Head<'_>)) {
        let account = &mut self.account;
        account.status = response.status;
        let (trace, id, attempts) = (account.trace, account.decision_id, account.attempts);
        self.client.start(response.status, body, |head| {
            copy_lines(&response.lines, head);
            own_fields(head, trace.as_str(), id, attempts);
            more(head);
        });
    }

    fn start_bytes(&mut self, response: &Response) {
        let body = response.length.map_or(Body::Stream, Body::Length);
        self.start(response, body, |_| {});
    }

    /// Starts an event stream now, or hands the start to the sink where a floor must see the first event.
    fn start_events<'s>(&mut self, response: &Response, later: bool) -> Option<stream::Start<'s>> {
        if self.client.committed() {
            return None;
        }
        let account = &mut self.account;
        account.status = response.status;
        let (trace, id, attempts) = (account.trace, account.decision_id, account.attempts);
        let (status, lines) = (response.status, response.lines.clone());
        let start = move |client: &mut Client| {
            client.start(status, Body::Stream, |head| {
                copy_lines(&lines, head);
                event_fields(head, &lines);
                own_fields(head, trace.as_str(), id, attempts);
            });
        };
        if later {
            return Some(Box::new(start));
        }
        start(self.client);
        None
    }

    /// Turns an early end into what the client is told: nothing when it has left.
    fn stop(&mut self, stop: Stop, torn: bool) -> Result<(), Failure> {
        let metrics = &self.worker.shared.metrics;
        let failure = match stop {
            Stop::Gone => {
                self.account.end = StreamEnd::ClientGone;
                self.client.close_after();
                return Ok(());
            }
            Stop::Content(failure) => {
                metrics.denied(DenialKind::Safety);
                self.account.end = StreamEnd::Denied;
                "contentSafety".clone_into(&mut self.account.rule);
                *failure
            }
            Stop::Failed(e) => {
                self.account.end = match e.kind() {
                    Kind::Upstream(at) | Kind::Timeout(at) => {
                        metrics.upstream_error(at);
                        StreamEnd::Upstream(at)
                    }
                    _ => StreamEnd::Drained,
                };
                Failure::from(&e)
            }
        };
        if torn {
            // Part of an event is out: a blank line ends it before the error's own event.
            self.client.push(b"\n\n");
        }
        Err(failure)
    }

    /// Tells a failure: as an answer, or inside a stream that has begun.
    fn fail(&mut self, failure: &Failure) {
        let (dialect, trace, id) = (self.dialect(), self.account.trace, self.account.decision_id);
        if !self.client.committed() {
            self.account.status = failure.status;
            let attempts = self.account.attempts;
            respond::fail(self.client, failure, dialect, trace.as_str(), &|head| {
                decision_id(head, id);
                attempts_field(head, attempts);
            });
            return;
        }
        self.client.close_after();
        if self.account.stream {
            let responses = self.route.operation == Operation::Responses;
            self.client.push(respond::event(failure, dialect, responses, trace.as_str()).as_bytes());
            self.client.end();
        }
        // Bytes of a declared length have begun and cannot be completed: closing is the only honest end.
    }
}

/// Bounded calls in flight, and none that are new while draining.
fn check_capacity(shared: &Shared) -> Result<(), Failure> {
    if shared.is_draining() {
        return Err(Failure::from(&Error::new(Kind::NotReady, "the router is shutting down")));
    }
    if shared.in_flight.load(Ordering::Relaxed) > shared.settings.concurrency {
        shared.metrics.denied(DenialKind::Slots);
        let limit = shared.settings.concurrency;
        let detail = format!("{limit} calls are in flight already (ROUTER_CONCURRENCY_LIMIT)");
        return Err(Failure::from(&Error::new(Kind::NotReady, detail)));
    }
    Ok(())
}

/// The named rewrites of a request, as edits by span.
fn rewrites(
    operation: Operation,
    permit: &Permit,
    request: &Request<'_>,
    body: &[u8],
    attempt: Attempt<'_>,
) -> Edits {
    let mut edits = Rewrite::new(request, body);
    let plan = permit.plan();
    let quirks = attempt.provider.quirks();
    if request.model.as_ref().is_none_or(|m| m.value != attempt.model) {
        edits.set_model(attempt.model);
    }
    if request.stream && operation_injects(operation) && quirks.stream_usage == UsageQuirk::Inject {
        edits.set_stream_usage();
    }
    if !plan.hidden_tools.is_empty() {
        edits.remove_tools(&plan.hidden_tools);
    }
    if operation == Operation::Responses && quirks.strip_reasoning {
        edits.strip_reasoning();
    }
    if let Some(cap) = plan.cap {
        let key = match operation {
            Operation::Responses => "max_output_tokens",
            Operation::Chat => quirks.output_cap.field(),
            _ => "max_tokens",
        };
        edits.set_cap(key, cap);
    }
    edits.edits()
}

fn operation_injects(operation: Operation) -> bool {
    matches!(operation, Operation::Chat | Operation::Completions)
}

/// Whether the usage chunk is ours alone: asked for by us and not by the client.
fn strips_usage(operation: Operation, request: Option<&Request<'_>>, provider: &Provider) -> bool {
    operation_injects(operation)
        && provider.quirks().stream_usage == UsageQuirk::Inject
        && request.is_some_and(|r| r.stream && r.stream_usage != StreamUsage::On)
}

/// Failures before any byte of an answer, where another model may do.
fn retriable(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Upstream(Step::Resolve | Step::Connect | Step::Tls | Step::Reset)
            | Kind::Timeout(Step::Resolve | Step::Connect | Step::Tls)
    )
}

fn unsupported(operation: Operation, none: bool) -> Failure {
    let message = if none {
        "No upstream is configured. Set AZURE_OPENAI_ENDPOINT, OPENAI_BASE_URL or ANTHROPIC_BASE_URL with its key."
            .to_owned()
    } else {
        format!("No configured upstream serves {}.", operation.name())
    };
    Failure::new(501, "unsupported_for_provider", "unsupported_for_provider", "not_found_error", message)
}

/// An upstream's error that comes after the client was told 200.
fn told_late(status: u16, body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said = said.as_ref().and_then(|v| v.pointer("/error/message")).and_then(serde_json::Value::as_str);
    let message = match said {
        Some(said) => format!("The inference backend answered {status}: {said}"),
        None => format!("The inference backend answered {status} to a streamed call"),
    };
    let anthropic = if status == 429 { "rate_limit_error" } else { "api_error" };
    Failure::new(status, "proxy_error", "upstream_error", anthropic, message)
}

fn needle(header: &str) -> memchr::memmem::Finder<'static> {
    let key = header.rsplit(' ').next().unwrap_or(header);
    memchr::memmem::Finder::new(key).into_owned()
}

fn copy_lines(lines: &[u8], head: &mut Head<'_>) {
    if let Head::H1(out) = head {
        out.extend_from_slice(lines);
        return;
    }
    for line in lines.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = memchr::memchr(b':', line)
            && let (Some(name), Some(value)) = (line.get(..colon), line.get(colon + 1..))
            && let Ok(name) = std::str::from_utf8(name)
        {
            head.field(name, value.trim_ascii());
        }
    }
}

/// What keeps intermediaries from holding events back.
fn event_fields(head: &mut Head<'_>, lines: &[u8]) {
    head.field("x-accel-buffering", b"no");
    let has_cache_control = lines
        .split(|b| *b == b'\n')
        .any(|l| l.get(..14).is_some_and(|n| n.eq_ignore_ascii_case(b"cache-control:")));
    if !has_cache_control {
        head.field("cache-control", b"no-cache, no-transform");
    }
}

fn own_fields(head: &mut Head<'_>, trace_id: &str, id: u64, attempts: u32) {
    head.field("x-kars-trace-id", trace_id.as_bytes());
    decision_id(head, id);
    attempts_field(head, attempts);
}

fn decision_id(head: &mut Head<'_>, id: u64) {
    head.field("x-kars-decision-id", TraceId::from_bits(id).as_str().as_bytes());
}

fn attempts_field(head: &mut Head<'_>, attempts: u32) {
    if attempts > 1 {
        head.field("x-kars-attempts", itoa::Buffer::new().format(attempts).as_bytes());
    }
}

/// Wall-clock time since the epoch; 0 on a clock before it.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

impl Account {
    fn record(&self, worker: &Worker) {
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
            policy: &self.digest,
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
        });
    }
}
