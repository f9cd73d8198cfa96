//! The only maker of a [`Permit`]: nothing reaches an upstream without one.
//!
//! Deciding reads the call's [`Facts`] and one policy [`Snapshot`]; the identity is this sandbox's own,
//! never a header's. A permit holds the call's budget reservation and settles it when the call ends,
//! by [`Permit::settle`] or by drop.

pub mod denial;
pub mod egress;
pub mod ledger;
pub mod rate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::ids::Operation;
use crate::policy::inference::{Budget, Inference, ModelRef, Verdict};
use crate::policy::snapshot::Snapshot;
use crate::settings::{MissingPolicy, Settings};
use crate::wire::request::Request;
use crate::wire::usage::Usage;

pub use denial::Denial;
use egress::{Egress, Passage, Reach, Refusal};
use ledger::{Ask, Ledger, Limits, ReservationId};

/// Output tokens reserved for a call that names no cap: above nearly every answer, below most budgets.
const UNCAPPED_OUTPUT: u64 = 16_384;
/// Output tokens reserved per image of an image generation (the largest size and quality cost about 6 200).
const IMAGE_OUTPUT: u64 = 8_192;
/// Tokens reserved per image, sound or file in a request: above the largest published cost of one image tile set.
const MEDIA_INPUT: u64 = 4_096;
/// Tokens that a chat template adds around a small request.
const TEMPLATE_INPUT: u64 = 64;

/// What a call asks for, as far as policy cares.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What it does.
    pub operation: Operation,
    /// The model that would be sent upstream without a policy's preference.
    pub model: &'a str,
    /// The parsed body; `None` for reads.
    pub request: Option<&'a Request<'a>>,
    /// Body size in bytes.
    pub body_bytes: u64,
    /// Seconds since the epoch.
    pub now: u64,
    /// Monotonic nanoseconds.
    pub clock_ns: u64,
}

/// The gate: budgets, rate, and what applies where no policy is.
#[derive(Debug)]
pub struct Gate {
    ledger: Ledger,
    egress: Egress,
    missing: MissingPolicy,
    daily: u64,
    per_request: u64,
    rate: rate::Rate,
    /// How far providers' input counts have exceeded our bound so far; added to later reservations.
    input_margin: AtomicU64,
}

/// Leave for one call. Only [`Gate::admit`] makes one.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    snapshot: Arc<Snapshot>,
    reservation: Option<ReservationId>,
    input_bound: u64,
    input_estimate: u64,
    now: u64,
    seen: u64,
    sent: bool,
    plan: Plan,
}

/// What the policy changes about the call.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Models to try in order; empty: the request's own.
    pub models: Vec<ModelRef>,
    /// Output cap to put into the request.
    pub cap: Option<u64>,
    /// Indexes of `tools` elements to take out, ascending.
    pub hidden_tools: Vec<usize>,
}

/// What a settled call cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Tokens; the provider's own numbers unless `estimated`.
    pub usage: Usage,
    /// Whether the provider's numbers were not seen.
    pub estimated: bool,
}

impl Gate {
    /// Opens the gate with its budget ledger and its egress state.
    pub fn new(settings: &Settings, ledger: Ledger, egress: Egress) -> Self {
        Self {
            ledger,
            egress,
            missing: settings.missing_policy,
            daily: settings.daily_budget,
            per_request: settings.per_request,
            rate: rate::Rate::new(0, 0),
            input_margin: AtomicU64::new(0),
        }
    }

    /// The ledger, for metrics and the journal's sync.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Egress: mode, blocklist, tables.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Decides about one connection that wants to leave.
    pub fn admit_egress(&self, reach: &Reach<'_>, snapshot: &Snapshot) -> Result<Passage, Refusal> {
        self.egress.admit(reach, snapshot)
    }

    /// The limits in force under a policy.
    pub fn limits(&self, policy: Option<&Inference>) -> Limits {
        let budget = policy.map(Inference::budget);
        Limits {
            hourly: budget.map_or(0, |b| b.hourly),
            daily: budget.filter(|b| b.daily_stated).map_or(self.daily, |b| b.daily),
            monthly: budget.map_or(0, |b| b.monthly),
        }
    }

    /// Whether a call could be admitted at all under `snapshot`.
    pub fn ready(&self, snapshot: &Snapshot) -> bool {
        snapshot.inference.is_some() || self.missing == MissingPolicy::Open
    }

    /// Decides about one call and reserves its budget.
    pub fn admit(self: &Arc<Self>, facts: &Facts<'_>, snapshot: &Arc<Snapshot>) -> Result<Permit, Denial> {
        let policy = snapshot.inference.as_deref();
        if !self.ready(snapshot) {
            return Err(Denial::no_policy());
        }
        let models = allowed_models(facts, policy)?;
        self.check_rate(facts, policy)?;
        check_functions(facts, policy)?;
        let hidden_tools = hidden_tools(facts, policy);
        let per_request = policy.and_then(|p| p.budget().per_request).unwrap_or(self.per_request);
        check_cap(facts, per_request)?;
        let mut permit = Permit {
            gate: Arc::clone(self),
            reservation: None,
            input_bound: self.input_bound(facts),
            input_estimate: input_estimate(facts),
            now: facts.now,
            seen: 0,
            sent: false,
            plan: Plan { models, cap: None, hidden_tools },
            snapshot: Arc::clone(snapshot),
        };
        self.reserve(facts, policy, &mut permit)?;
        Ok(permit)
    }

    fn check_rate(&self, facts: &Facts<'_>, policy: Option<&Inference>) -> Result<(), Denial> {
        let Some(wanted) = policy.and_then(Inference::rate) else { return Ok(()) };
        self.rate.retune(wanted.per_minute, wanted.burst, facts.clock_ns);
        self.rate.admit(facts.clock_ns).map(|_| ()).map_err(|retry| Denial::rate(wanted.per_minute, &retry))
    }

    fn reserve(
        &self,
        facts: &Facts<'_>,
        policy: Option<&Inference>,
        permit: &mut Permit,
    ) -> Result<(), Denial> {
        let limits = self.limits(policy);
        let unlimited = limits.hourly == 0 && limits.daily == 0 && limits.monthly == 0;
        if facts.operation == Operation::Read || facts.operation == Operation::CountTokens {
            return Ok(());
        }
        let clamp = policy.map(Inference::budget).is_some_and(|b: &Budget| b.clamp);
        let output = output_bound(facts);
        let input = permit.input_bound;
        let (least, most) = match output {
            Output::Capped(n) if clamp => (1, n),
            Output::Capped(n) | Output::Fixed(n) => (n, n),
            Output::Uncapped(n) => (1, n),
        };
        let share = matches!(output, Output::Uncapped(_));
        let ask = Ask { min: input.saturating_add(least), max: input.saturating_add(most), share };
        let grant = self.ledger.reserve(&ask, &limits, facts.now).map_err(|s| Denial::budget(&s))?;
        permit.reservation = Some(grant.id);
        let granted = grant.tokens.saturating_sub(input);
        let tight = !unlimited && (granted < most || (clamp && share));
        if facts.operation.generates() && tight {
            permit.plan.cap = Some((granted / facts.request.map_or(1, |r| r.choices.max(1))).max(1));
        }
        Ok(())
    }

    /// An upper bound of the input tokens: one token per two bytes of text (natural language and code
    /// need half of that), a flat sum per image or file, and what providers' own counts have taught.
    fn input_bound(&self, facts: &Facts<'_>) -> u64 {
        let Some(request) = facts.request else { return facts.body_bytes / 2 };
        (request.text_bytes / 2)
            .saturating_add(request.media_parts.saturating_mul(MEDIA_INPUT))
            .saturating_add(TEMPLATE_INPUT)
            .saturating_add(self.input_margin.load(Ordering::Relaxed))
    }
}

impl Permit {
    /// The policy in force for this call, from start to end.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What the policy changes about the call.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Notes that the request went out: from here on the call costs something even if it breaks.
    pub fn mark_sent(&mut self) {
        self.sent = true;
    }

    /// Notes output tokens seen so far (one per streamed event, at least).
    pub fn note_output(&mut self, tokens: u64) {
        self.seen = tokens;
    }

    /// Settles the reservation with what the provider reported. Without a report, or when the answer broke off
    /// (not `complete`), with the larger of that and what was seen; nothing when no answer had begun.
    pub fn settle(mut self, reported: Option<Usage>, answered: bool, complete: bool) -> Charge {
        self.close(reported, answered, complete)
    }

    fn close(&mut self, reported: Option<Usage>, answered: bool, complete: bool) -> Charge {
        let charge = match reported {
            Some(usage) if complete => Charge { usage, estimated: false },
            _ if self.sent && answered && self.reservation.is_some() => {
                let said = reported.unwrap_or_default();
                let input = said.input.max(self.input_estimate);
                let output = said.output.max(self.seen);
                Charge { usage: Usage { input, output, ..said }, estimated: true }
            }
            _ => Charge::default(),
        };
        if let Some(id) = self.reservation.take() {
            self.gate.ledger.settle(id, charge.usage.total(), self.now);
            self.learn(&charge);
        }
        charge
    }

    /// Where a provider counts more input than our bound, later bounds grow by the difference.
    fn learn(&self, charge: &Charge) {
        let excess = charge.usage.input.saturating_sub(self.input_bound);
        if !charge.estimated && excess > 0 && self.input_bound > 0 {
            let margin = &self.gate.input_margin;
            let grown = margin.load(Ordering::Relaxed).saturating_add(excess);
            margin.fetch_max(grown.min(UNCAPPED_OUTPUT), Ordering::Relaxed);
        }
    }
}

/// A call that ends without [`Permit::settle`] (its task was dropped) is charged what was seen of it.
impl Drop for Permit {
    fn drop(&mut self) {
        if self.reservation.is_some() {
            self.close(None, self.sent, false);
        }
    }
}

/// The models to try: the policy's preference where it has one for this kind of call, else the request's own.
fn allowed_models(facts: &Facts<'_>, policy: Option<&Inference>) -> Result<Vec<ModelRef>, Denial> {
    let Some(policy) = policy.filter(|_| facts.operation != Operation::Read) else { return Ok(Vec::new()) };
    let steered = facts.operation.generates() && policy.action().covers(facts.operation);
    let Some(preference) = policy.preference().filter(|_| steered) else {
        return match policy.model(facts.model) {
            Verdict::Allow => Ok(Vec::new()),
            Verdict::Deny { rule } => Err(Denial::model(facts.model, &rule)),
        };
    };
    let stated = std::iter::once(&preference.primary).chain(&preference.fallback);
    let models: Vec<ModelRef> = stated.filter(|m| policy.model(&m.deployment).allowed()).cloned().collect();
    match policy.model(&preference.primary.deployment) {
        Verdict::Deny { rule } if models.is_empty() => {
            Err(Denial::model(&preference.primary.deployment, &rule))
        }
        _ => Ok(models),
    }
}

fn hidden_tools(facts: &Facts<'_>, policy: Option<&Inference>) -> Vec<usize> {
    let (Some(policy), Some(request)) = (policy, facts.request) else { return Vec::new() };
    if request.tools.is_empty() || !policy.restricts_tools() {
        return Vec::new();
    }
    let denied = |name: &str| !policy.tool(name).allowed();
    let hidden = |tool: &crate::wire::request::Tool<'_>| tool.name.as_deref().is_some_and(denied);
    request.tools.iter().enumerate().filter(|(_, t)| hidden(t)).map(|(i, _)| i).collect()
}

/// Chat's older `functions` cannot be offered without one of them: a denied one refuses the call.
fn check_functions(facts: &Facts<'_>, policy: Option<&Inference>) -> Result<(), Denial> {
    let (Some(policy), Some(request)) = (policy, facts.request) else { return Ok(()) };
    for name in request.functions.iter().filter_map(|f| f.name.as_deref()) {
        if let Verdict::Deny { rule } = policy.tool(name) {
            return Err(Denial::tool(name, &rule));
        }
    }
    Ok(())
}

fn check_cap(facts: &Facts<'_>, per_request: u64) -> Result<(), Denial> {
    let asked = facts.request.and_then(largest_cap);
    match asked {
        Some(asked) if per_request > 0 && asked > per_request => Err(Denial::per_request(asked, per_request)),
        _ => Ok(()),
    }
}

fn largest_cap(request: &Request<'_>) -> Option<u64> {
    request.caps.iter().map(|(_, cap)| cap.value).max()
}

/// How many output tokens a call may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// The client named a cap.
    Capped(u64),
    /// The operation decides.
    Fixed(u64),
    /// Nobody named a cap.
    Uncapped(u64),
}

fn output_bound(facts: &Facts<'_>) -> Output {
    let choices = facts.request.map_or(1, |r| r.choices.max(1));
    match facts.operation {
        Operation::Embeddings | Operation::CountTokens | Operation::Read => Output::Fixed(0),
        Operation::Images => Output::Fixed(IMAGE_OUTPUT.saturating_mul(choices)),
        _ => match facts.request.and_then(largest_cap) {
            Some(cap) => Output::Capped(cap.saturating_mul(choices)),
            None => Output::Uncapped(UNCAPPED_OUTPUT.saturating_mul(choices)),
        },
    }
}

/// A fair guess of the input tokens, charged where the provider's number never came: four bytes a token.
fn input_estimate(facts: &Facts<'_>) -> u64 {
    match facts.request {
        Some(r) => (r.text_bytes / 4).saturating_add(r.media_parts.saturating_mul(MEDIA_INPUT / 4)),
        None => 0,
    }
}
