//! The closed sets that label values come from.

use crate::error::Step;
use crate::ids::{EgressDoor, EgressReason, Operation};

/// Which endpoint a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A model operation.
    Inference(Operation),
    /// `/healthz`, `/livez`.
    Health,
    /// `/readyz`.
    Ready,
    /// `/metrics`.
    Metrics,
    /// `/internal/policy-status`.
    PolicyStatus,
    /// Admin endpoints.
    Admin,
    /// Routes relayed to the control plane.
    Cold,
    /// The egress proxy.
    Egress,
    /// The mesh relay.
    Mesh,
    /// The MCP gateway.
    Mcp,
    /// No endpoint: unknown path, wrong method, unreadable head.
    None,
}

/// Endpoints that are no model operation, in the order of their cells.
const FIXED: [(Route, &str); 10] = [
    (Route::Health, "health"),
    (Route::Ready, "ready"),
    (Route::Metrics, "metrics"),
    (Route::PolicyStatus, "policy_status"),
    (Route::Admin, "admin"),
    (Route::Cold, "cold"),
    (Route::Egress, "egress"),
    (Route::Mesh, "mesh"),
    (Route::Mcp, "mcp"),
    (Route::None, "none"),
];

/// Number of routes.
pub(super) const ROUTES: usize = Operation::ALL.len() + FIXED.len();

impl Route {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Inference(operation) => position(&Operation::ALL, operation),
            fixed => {
                let place = FIXED.iter().position(|(route, _)| *route == fixed);
                Operation::ALL.len() + place.unwrap_or(FIXED.len() - 1)
            }
        }
    }

    /// Label values in the order of the cells.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Operation::ALL.into_iter().map(Operation::name).chain(FIXED.into_iter().map(|(_, name)| name))
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// With its last event.
    Complete,
    /// The client closed first.
    ClientGone,
    /// A policy stopped it after its first byte.
    Denied,
    /// The drain's patience ran out.
    Drained,
    /// The upstream failed in a step.
    Upstream(Step),
}

/// Ends that are no upstream step.
const PLAIN_ENDS: [(StreamEnd, &str); 4] = [
    (StreamEnd::Complete, "complete"),
    (StreamEnd::ClientGone, "client_gone"),
    (StreamEnd::Denied, "denied"),
    (StreamEnd::Drained, "drained"),
];

/// Number of stream ends.
pub(super) const ENDS: usize = PLAIN_ENDS.len() + STEPS.len();

impl StreamEnd {
    /// The name in metrics and audit records.
    pub fn name(self) -> &'static str {
        Self::names().nth(self.index()).unwrap_or("complete")
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Upstream(step) => PLAIN_ENDS.len() + step_index(step),
            plain => PLAIN_ENDS.iter().position(|(end, _)| *end == plain).unwrap_or(0),
        }
    }

    /// Label values in the order of the cells.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        PLAIN_ENDS.into_iter().map(|(_, name)| name).chain(STEPS.into_iter().map(Step::name))
    }
}

/// The upstream steps, in the order of their cells.
pub(super) const STEPS: [Step; 9] = [
    Step::Resolve,
    Step::Connect,
    Step::Tls,
    Step::Write,
    Step::FirstByte,
    Step::Idle,
    Step::Total,
    Step::Reset,
    Step::Protocol,
];

pub(super) fn step_index(step: Step) -> usize {
    position(&STEPS, step)
}

/// Why an attempt is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The upstream answered with a status that another attempt may better.
    Status,
    /// The upstream could not be reached or did not answer.
    Transport,
}

impl Retry {
    pub(super) const ALL: [Self; 2] = [Self::Status, Self::Transport];

    pub(super) fn index(self) -> usize {
        position(&Self::ALL, self)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Transport => "transport",
        }
    }
}

/// What kind of rule denied a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialKind {
    /// No policy is in force.
    NoPolicy,
    /// The caller is not who it must be.
    Identity,
    /// The model or provider is not allowed.
    Model,
    /// The operation is not allowed.
    Operation,
    /// One request asks for too many tokens.
    RequestTokens,
    /// A budget window is short.
    Budget,
    /// The request rate is too high.
    Rate,
    /// Too many calls at one time.
    Slots,
    /// A content safety rule.
    Safety,
    /// A tool is not allowed.
    Tool,
    /// A destination is not allowed.
    Egress,
    /// Any other rule.
    Other,
}

impl DenialKind {
    pub(super) const ALL: [Self; 12] = [
        Self::NoPolicy,
        Self::Identity,
        Self::Model,
        Self::Operation,
        Self::RequestTokens,
        Self::Budget,
        Self::Rate,
        Self::Slots,
        Self::Safety,
        Self::Tool,
        Self::Egress,
        Self::Other,
    ];

    pub(super) fn index(self) -> usize {
        position(&Self::ALL, self)
    }

    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPolicy => "no_policy",
            Self::Identity => "identity",
            Self::Model => "model",
            Self::Operation => "operation",
            Self::RequestTokens => "request_tokens",
            Self::Budget => "budget",
            Self::Rate => "rate",
            Self::Slots => "slots",
            Self::Safety => "safety",
            Self::Tool => "tool",
            Self::Egress => "egress",
            Self::Other => "other",
        }
    }
}

/// How a connection of the egress proxy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressEnd {
    /// Both sides ended in good order.
    Complete,
    /// The client broke off.
    ClientReset,
    /// The destination broke off.
    UpstreamReset,
    /// Nothing moved for too long.
    Idle,
    /// It lived too long.
    Lifetime,
    /// It moved too much.
    Bytes,
    /// The router stopped.
    Drained,
    /// Its name could not be resolved.
    ResolveFailed,
    /// Its name was not resolved in time.
    ResolveTimeout,
    /// None of its addresses could be reached.
    ConnectFailed,
    /// None of its addresses answered in time.
    ConnectTimeout,
}

impl EgressEnd {
    /// All ends, in the order of their metric label values.
    pub const ALL: [Self; 11] = [
        Self::Complete,
        Self::ClientReset,
        Self::UpstreamReset,
        Self::Idle,
        Self::Lifetime,
        Self::Bytes,
        Self::Drained,
        Self::ResolveFailed,
        Self::ResolveTimeout,
        Self::ConnectFailed,
        Self::ConnectTimeout,
    ];

    /// The name in metrics and audit records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Bytes => "bytes",
            Self::Drained => "drained",
            Self::ResolveFailed => "resolve_failed",
            Self::ResolveTimeout => "resolve_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
        }
    }

    pub(super) fn index(self) -> usize {
        position(&Self::ALL, self)
    }
}

/// Number of pairs of a door and a reason.
pub(super) const DECISIONS: usize = EgressDoor::ALL.len() * EgressReason::ALL.len();

pub(super) fn decision_index(door: EgressDoor, reason: EgressReason) -> usize {
    position(&EgressDoor::ALL, door) * EgressReason::ALL.len() + position(&EgressReason::ALL, reason)
}

/// Statuses with a series of their own. Upstreams choose the status, so the set is closed: others count with
/// their class.
const STATUSES: [u16; 42] = [
    101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 408, 409, 410, 411,
    413, 414, 415, 417, 421, 422, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 529,
];
/// Classes of all other statuses.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "invalid"];
/// Number of `code` values.
pub(super) const CODES: usize = STATUSES.len() + CLASSES.len();
/// What is counted when the client left before it was sent a status (nginx's number for it).
const CLIENT_CLOSED: u16 = 499;

pub(super) fn code_index(status: u16) -> usize {
    let status = if status == 0 { CLIENT_CLOSED } else { status };
    STATUSES.binary_search(&status).unwrap_or_else(|_| {
        let class = usize::from(status / 100);
        STATUSES.len() + if (1..=5).contains(&class) { class - 1 } else { CLASSES.len() - 1 }
    })
}

/// The value of `code` at an index.
pub(super) fn code_name(index: usize, digits: &mut itoa::Buffer) -> &str {
    match STATUSES.get(index) {
        Some(status) => digits.format(*status),
        None => CLASSES.get(index - STATUSES.len()).unwrap_or(&"invalid"),
    }
}

fn position<T: PartialEq + Copy>(all: &[T], one: T) -> usize {
    all.iter().position(|each| *each == one).unwrap_or(all.len() - 1)
}
