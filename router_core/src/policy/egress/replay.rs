//! What a candidate policy would have said of connections that were recorded.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Allowlist, Approval, Ask, Egress, Verdict};
use crate::error::{Error, Kind, Result};
use crate::ids::{Destination, EgressReason, Host};

/// One recorded connection: a row of `GET /egress/learned`. Members beyond these are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row<'a> {
    /// The host.
    #[serde(borrow)]
    pub host: Cow<'a, str>,
    /// The port.
    pub port: u16,
    /// `connect`, `http`, `tls` or `fetch`.
    #[serde(borrow, default)]
    pub door: Cow<'a, str>,
    /// The method of a plain HTTP request, else empty.
    #[serde(borrow, default)]
    pub method: Cow<'a, str>,
    /// The path's shape of a plain HTTP request (`*` for what looked like an id), else empty.
    #[serde(borrow, default)]
    pub path: Cow<'a, str>,
    /// How often.
    #[serde(default)]
    pub count: u64,
}

/// What a policy says of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome<'p> {
    /// Whether it may leave.
    pub allowed: bool,
    /// The kind of reason: `allowlist`, `approval`, `deny_rule`, `unlisted`, or `malformed` for a row that is none.
    pub reason: &'static str,
    /// The rule that decided, as the gate tells it: `allowlist` where none allows, empty for a row that is none.
    pub rule: &'p str,
    /// The nearest change that would allow it, empty where it is allowed.
    pub hint: String,
}

/// Judges recorded connections; `now` is the moment, in unix seconds, at which approvals are looked at. Blocklists and
/// the classes of addresses are no part of it. One outcome per row, in their order.
pub fn replay<'p>(policy: &'p Egress, rows: &[Row<'_>], now: u64) -> Vec<Outcome<'p>> {
    rows.iter().map(|row| judge(policy, row, now)).collect()
}

fn judge<'p>(policy: &'p Egress, row: &Row<'_>, now: u64) -> Outcome<'p> {
    let denied =
        |reason: EgressReason, rule, hint| Outcome { allowed: false, reason: reason.name(), rule, hint };
    let Some(destination) = row.destination() else {
        return denied(EgressReason::Malformed, "", "the row names no host and port".to_owned());
    };
    match policy.decide(&Ask { destination: &destination, request: row.request(), now }) {
        Verdict::Allow(rule) => {
            let reason = if rule.approval { EgressReason::Approval } else { EgressReason::Allowlist };
            Outcome { allowed: true, reason: reason.name(), rule: &rule.path, hint: String::new() }
        }
        Verdict::Deny { rule } => {
            denied(EgressReason::DenyRule, rule, format!("take {rule} out of the policy"))
        }
        Verdict::Unlisted { hint } => denied(EgressReason::Unlisted, "allowlist", hint),
    }
}

impl Row<'_> {
    /// Where it went.
    pub(super) fn destination(&self) -> Option<Destination> {
        let host = Host::parse(&self.host).ok()?;
        (self.port > 0).then_some(Destination { host, port: self.port })
    }

    /// The request, where it was seen.
    pub(super) fn request(&self) -> Option<(&str, &str)> {
        (!self.method.is_empty()).then_some((&*self.method, &*self.path))
    }
}

/// Reads rows from a JSON list.
///
/// # Errors
/// [`Kind::BadRequest`] with where it is no list of rows.
pub fn read_rows(json: &[u8]) -> Result<Vec<Row<'_>>> {
    serde_json::from_slice(json).map_err(|e| Error::bad_request(format!("not a list of recorded rows: {e}")))
}

/// [`replay`] from files (`allowlist.json` and `approval-*.json`, by name) and a JSON list of rows, to a JSON list of
/// rows with their outcomes: `[{"host","port","door","method","path","count","allowed","reason","rule","hint"}]`. An
/// approval that does not compile is passed over, as the router does.
///
/// # Errors
/// [`Kind::Policy`] for an allowlist that does not compile, or when there is none; [`Kind::BadRequest`] for the rows.
pub fn replay_files(files: &[(&str, &[u8])], rows: &[u8], now: u64) -> Result<String> {
    #[derive(Serialize)]
    struct Judged<'r> {
        #[serde(flatten)]
        row: &'r Row<'r>,
        #[serde(flatten)]
        outcome: Outcome<'r>,
    }
    let (approvals, lists): (Vec<_>, Vec<_>) =
        files.iter().partition(|(name, _)| name.starts_with("approval-"));
    let [(_, list)] = *lists.as_slice() else {
        return Err(Error::new(Kind::Policy, format!("one allowlist.json is needed, not {}", lists.len())));
    };
    let approvals = approvals.iter().filter_map(|(name, bytes)| Approval::compile(name, bytes).ok());
    let policy = Egress::new(Arc::new(Allowlist::compile(list)?), approvals.map(Arc::new).collect());
    let rows = read_rows(rows)?;
    let judged = rows.iter().zip(replay(&policy, &rows, now)).map(|(row, outcome)| Judged { row, outcome });
    serde_json::to_string(&judged.collect::<Vec<_>>())
        .map_err(|e| Error::new(Kind::Bug, format!("outcomes do not serialise: {e}")))
}
