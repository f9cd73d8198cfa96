//! The first half of a call: read, admit, rewrite by span, send, up to the answer's head.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::error::{Error, Kind, Step};
use crate::gate::{Denial, Facts, Permit};
use crate::ids::{Dialect, Operation, TraceId};
use crate::net::deadline::Deadline;
use crate::policy::health::{Candidate, is_failover_trigger};
use crate::policy::inference::ModelRef;
use crate::policy::provider::{Provider, StreamUsage as UsageQuirk};
use crate::proxy::account::{Account, Flight, millis, unix_time};
use crate::proxy::answer::{Answer, Opened, event_fields, own_fields};
use crate::proxy::client::{Body, Client};
use crate::proxy::inbound::Inbound;
use crate::proxy::respond::Failure;
use crate::proxy::routes::ModelRoute;
use crate::proxy::sink::Stop;
use crate::proxy::stream::{self, Watch};
use crate::proxy::upstream::{self, Outbound, Response};
use crate::proxy::worker::{Shared, Worker};
use crate::telemetry::metrics::{DenialKind, Retry, StreamEnd};
use crate::wire::edit::Edits;
use crate::wire::request::{self, Request, Rewrite, StreamUsage};

/// Reads, admits and sends one model call, up to its answer's head. Dropping the future resets the upstream and
/// charges what was seen.
pub async fn open(
    worker: &Rc<Worker>,
    client: &mut Client,
    deadline: &mut Deadline,
    inbound: &Inbound<'_>,
    route: &ModelRoute<'_>,
    trace: TraceId,
) -> Answer {
    let account = Account::new(route.operation, trace, worker.random());
    let flight = Flight::begin(worker, route.operation);
    let mut call = Call { worker, client, deadline, inbound: *inbound, route: *route, account };
    let dialect = call.dialect();
    let outcome = call.serve().await;
    Answer { worker: Rc::clone(worker), flight, account: call.account, dialect, outcome }
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

    async fn serve(&mut self) -> Result<Opened, Stop> {
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
        let stated = admin.as_deref().map(String::as_str).or(named).or(self.route.deployment);
        let model = stated.unwrap_or(&shared.settings.default_model);
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
        let admitted = shared.gate.admit(&facts, &snapshot);
        self.account.snapshot = Some(snapshot);
        admitted.map_err(|denial| self.denied(&denial))
    }

    fn denied(&mut self, denial: &Denial) -> Failure {
        tracing::info!(
            rule = denial.rule,
            model = self.account.model,
            trace_id = self.account.trace.as_str(),
            "call.denied"
        );
        self.worker.shared.metrics.denied(denial.cause);
        self.account.end = StreamEnd::Denied;
        self.account.rule.clone_from(&denial.rule);
        Failure::from(denial)
    }

    /// Tries the permitted models in order until one answers. The client may have been sent keepalives by then,
    /// but no content, so the next model can still serve it.
    async fn exchange(
        &mut self,
        mut permit: Permit,
        request: Option<&Request<'_>>,
        model: &str,
    ) -> Result<Opened, Stop> {
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
                    let strip_usage = strips_usage(self.route.operation, request, attempt.provider);
                    return Ok(Opened { permit, response, strip_usage, upstream: attempt.upstream });
                }
                (Err(stop), _) => {
                    self.account.charge = permit.settle(None, matches!(stop, Stop::Gone), false);
                    return Err(stop);
                }
            }
        }
        Err(Stop::Failed(Error::new(Kind::Bug, "no upstream was asked")))
    }

    /// Whom to ask, in order: the policy's models that are healthy, else the request's own.
    fn attempts<'a>(
        &self,
        shared: &'a Shared,
        models: &'a [ModelRef],
        model: &'a str,
        now_ms: u64,
    ) -> Result<Vec<Attempt<'a>>, Failure> {
        let mut all: Vec<Candidate<'a>> = models
            .iter()
            .map(|m| Candidate { provider: Some(m.provider.as_ref()), deployment: m.deployment.as_ref() })
            .collect();
        if all.is_empty() {
            all.push(Candidate { provider: None, deployment: model });
        }
        let chosen = shared.health.choose(all, now_ms);
        chosen.into_iter().map(|next| self.upstream(shared, next.provider, next.deployment)).collect()
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
