//! The second half of a call: its answer moves to the client, its permit settles, it is recorded.
//!
//! Nothing here borrows the request: its buffer is free while the answer streams.

use std::rc::Rc;

use tokio::time::Instant;

use crate::error::{Error, Kind, Step};
use crate::gate::Permit;
use crate::ids::{Dialect, Operation, TraceId};
use crate::net::deadline::Deadline;
use crate::policy::inference::Inference;
use crate::policy::provider::{Authorization, Provider};
use crate::policy::safety;
use crate::proxy::account::{Account, Flight};
use crate::proxy::client::{Body, Client, Head};
use crate::proxy::respond::{self, Failure};
use crate::proxy::sink::{self, Sink, Start, Stop};
use crate::proxy::stream::{self, Watch};
use crate::proxy::upstream::{Media, Response};
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::{DenialKind, StreamEnd};

/// Largest upstream error body that is read whole, to be judged and told in the client's dialect.
const ERROR_BODY_BYTES: usize = 1024 * 1024;

/// A call whose request has been dealt with.
#[derive(Debug)]
pub struct Answer {
    /// The thread's state.
    pub worker: Rc<Worker>,
    /// The call's place among those in flight.
    pub flight: Flight,
    /// What is known of the call.
    pub account: Account,
    /// How the client speaks.
    pub dialect: Dialect,
    /// An upstream's answer, or what went wrong.
    pub outcome: Result<Opened, Stop>,
}

/// An upstream's answer whose head has been read, and the permit that it is under.
#[derive(Debug)]
pub struct Opened {
    /// The call's permit.
    pub permit: Permit,
    /// The answer.
    pub response: Response,
    /// Whether its usage chunk is ours alone.
    pub strip_usage: bool,
    /// The provider's index.
    pub upstream: usize,
}

impl Answer {
    /// Moves the answer to the client. Dropping the future resets the upstream and charges what was seen.
    pub async fn deliver(mut self, client: &mut Client, deadline: &mut Deadline) {
        let outcome = std::mem::replace(&mut self.outcome, Err(Stop::Gone));
        let mut delivery = Delivery { answer: &mut self, client, deadline };
        let told = match outcome {
            Ok(opened) => delivery.pass(opened).await,
            Err(stop) => delivery.stop(stop, false),
        };
        if let Err(failure) = told {
            delivery.fail(&failure);
        }
        // The record is there before the client can know that the call is over.
        self.account.record(&self.worker);
        let timeouts = &self.worker.shared.settings.timeouts;
        let mut watch = Watch::new(timeouts, self.dialect, Instant::now(), false);
        if stream::flush(&self.worker, client, deadline, &mut watch).await.is_err() {
            client.close_after();
        }
        self.flight.status = self.account.status;
    }
}

struct Delivery<'d> {
    answer: &'d mut Answer,
    client: &'d mut Client,
    deadline: &'d mut Deadline,
}

impl Delivery<'_> {
    /// Moves an answer to the client and settles the permit.
    async fn pass(&mut self, opened: Opened) -> Result<(), Failure> {
        let Opened { mut permit, mut response, strip_usage, upstream } = opened;
        let worker = Rc::clone(&self.answer.worker);
        let operation = self.answer.account.operation;
        let mut watch = self.watch(&worker);
        let provider = worker.shared.providers.get(upstream);
        let good = (200..300).contains(&response.status);
        let authorization = provider.and_then(Provider::authorization);
        let secret = authorization.as_deref().and_then(Authorization::telltale);
        if let Some(secret) = secret {
            sink::blot(&mut response.lines, secret);
        }
        let floor_of = permit.snapshot().inference.clone();
        let floor = floor_of.as_deref().and_then(Inference::floor).filter(|_| good && operation.generates());
        if floor.is_some() && response.encoded {
            let detail = "the upstream compressed an answer that a content floor must inspect";
            self.answer.account.charge = permit.settle(None, true, false);
            return Err(Failure::from(&Error::new(Kind::Upstream(Step::Protocol), detail)));
        }
        let events = good && response.media == Media::Events;
        let hold = !events && (!good || floor.is_some() || self.client.committed());
        watch.await_body(events || self.client.committed());
        if hold {
            return self.pass_whole(permit, response, &mut watch, floor, secret).await;
        }
        let mut sink = if events {
            Sink::events(secret, floor, strip_usage, self.start_events(&mut response, floor.is_some()))
        } else {
            let body = response.length.map_or(Body::Stream, Body::Length);
            self.start(&mut response, body, |_, _| {});
            Sink::bytes(secret, response.media == Media::Json && !response.encoded)
        };
        let moved =
            stream::relay(&worker, self.client, self.deadline, &mut watch, &mut response.body, &mut sink)
                .await;
        self.answer.account.first_content = sink.first_content();
        let torn = sink.is_torn();
        permit.note_output(sink.seen_output());
        self.answer.account.charge = permit.settle(sink.usage(), good, moved.is_ok());
        match moved {
            Ok(()) => Ok(()),
            Err(stop) => self.stop(stop, torn),
        }
    }

    /// Reads the whole answer before any of it goes on: errors, inspected answers, and answers to streamed
    /// calls that are no streams although a stream was begun.
    async fn pass_whole(
        &mut self,
        mut permit: Permit,
        mut response: Response,
        watch: &mut Watch<'_>,
        floor: Option<&safety::Floor>,
        secret: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let worker = Rc::clone(&self.answer.worker);
        let good = (200..300).contains(&response.status);
        let bound = if good { worker.shared.settings.body_limit } else { ERROR_BODY_BYTES };
        let mut sink = Sink::held(secret, bound);
        let moved =
            stream::relay(&worker, self.client, self.deadline, watch, &mut response.body, &mut sink).await;
        let usage = sink.usage();
        permit.note_output(sink.seen_output());
        let body = sink.into_held();
        self.answer.account.charge = permit.settle(usage, good, moved.is_ok());
        if let Err(stop) = moved {
            return self.stop(stop, false);
        }
        if let Some(floor) = floor {
            let findings = floor.inspect(&body);
            if findings.unreadable {
                return self.stop(Stop::Failed(sink::unreadable()), false);
            }
            let shields =
                floor.lacks_shields(findings.prompt_annotated).then(safety::Violation::shields_required);
            if let Some(found) = findings.violation.or(shields) {
                return self.stop(Stop::Content(Box::new(sink::violation(&found))), false);
            }
        }
        if self.client.committed() {
            return Err(told_late(response.status, &body));
        }
        self.answer.account.first_content = Some(Instant::now());
        self.answer.account.status = response.status;
        let reason = (!good).then(|| safety::is_provider_block(&body)).flatten();
        let length = body.len() as u64;
        self.start(&mut response, Body::Length(length), |head, _| {
            if let Some(reason) = reason {
                respond::decision_fields(reason, head);
            }
        });
        self.client.push(&body);
        self.client.end();
        Ok(())
    }

    fn watch<'t>(&self, worker: &'t Worker) -> Watch<'t> {
        let account = &self.answer.account;
        Watch::new(&worker.shared.settings.timeouts, self.answer.dialect, account.started, account.stream)
    }

    /// Starts the answer; the buffer of the upstream's fields goes back to the thread.
    fn start(&mut self, response: &mut Response, body: Body, more: impl FnOnce(&mut Head<'_>, &[u8])) {
        let lines = std::mem::take(&mut response.lines);
        let account = &mut self.answer.account;
        account.status = response.status;
        let (trace, id, attempts) = (account.trace, account.decision_id, account.attempts);
        self.client.start(response.status, body, |head| {
            copy_lines(&lines, head);
            own_fields(head, trace.as_str(), id, attempts);
            more(head, &lines);
        });
        self.answer.worker.give_buffer(lines);
    }

    /// Starts an event stream now, or hands the start to the sink where a floor must see the first event.
    fn start_events<'s>(&mut self, response: &mut Response, later: bool) -> Option<Start<'s>> {
        if self.client.committed() {
            return None;
        }
        if !later {
            self.start(response, Body::Stream, event_fields);
            return None;
        }
        let account = &mut self.answer.account;
        account.status = response.status;
        let (trace, id, attempts) = (account.trace, account.decision_id, account.attempts);
        let (status, lines) = (response.status, std::mem::take(&mut response.lines));
        Some(Box::new(move |client: &mut Client| {
            client.start(status, Body::Stream, |head| {
                copy_lines(&lines, head);
                own_fields(head, trace.as_str(), id, attempts);
                event_fields(head, &lines);
            });
        }))
    }

    /// Turns an early end into what the client is told: nothing when it has left.
    fn stop(&mut self, stop: Stop, torn: bool) -> Result<(), Failure> {
        let metrics = &self.answer.worker.shared.metrics;
        let failure = match stop {
            Stop::Gone => {
                self.answer.account.end = StreamEnd::ClientGone;
                self.client.close_after();
                return Ok(());
            }
            Stop::Refused(failure) => *failure,
            Stop::Content(failure) => {
                metrics.denied(DenialKind::Safety);
                self.answer.account.end = StreamEnd::Denied;
                "contentSafety".clone_into(&mut self.answer.account.rule);
                *failure
            }
            Stop::Failed(e) => {
                if e.kind() == Kind::Bug {
                    metrics.bug();
                }
                let account = &mut self.answer.account;
                account.end = match e.kind() {
                    Kind::Upstream(at) | Kind::Timeout(at) => {
                        tracing::warn!(
                            step = at.name(),
                            upstream = account.provider,
                            model = account.model,
                            trace_id = account.trace.as_str(),
                            error = %e,
                            "call.failed"
                        );
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
        let (dialect, trace, id) =
            (self.answer.dialect, self.answer.account.trace, self.answer.account.decision_id);
        if !self.client.committed() {
            self.answer.account.status = failure.status;
            let attempts = self.answer.account.attempts;
            respond::fail(self.client, failure, dialect, trace.as_str(), &|head| {
                decision_id(head, id);
                attempts_field(head, attempts);
            });
            return;
        }
        self.client.close_after();
        if self.answer.account.stream {
            let responses = self.answer.account.operation == Operation::Responses;
            self.client.push(respond::event(failure, dialect, responses, trace.as_str()).as_bytes());
            self.client.end();
        }
        // Bytes of a declared length have begun and cannot be completed: closing is the only honest end.
    }
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

/// What keeps intermediaries from holding events back, added to the upstream's own fields.
pub fn event_fields(head: &mut Head<'_>, lines: &[u8]) {
    const CACHE: &[u8] = b"cache-control:";
    head.field("x-accel-buffering", b"no");
    let names_cache =
        |line: &[u8]| line.get(..CACHE.len()).is_some_and(|name| name.eq_ignore_ascii_case(CACHE));
    if !lines.split(|b| *b == b'\n').any(names_cache) {
        head.field("cache-control", b"no-cache, no-transform");
    }
}

/// What every answer to a model call carries.
pub fn own_fields(head: &mut Head<'_>, trace_id: &str, id: u64, attempts: u32) {
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
