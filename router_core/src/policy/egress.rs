//! Where an agent's connections may go: the mounted allowlist and approvals, compiled; deciding is pure.
//!
//! `allowlist.json`, schema version 1, is what the controller writes: `{"schemaVersion":1,"endpoints":[{"host","port"}]}`.
//! A host stands for itself and every name below it; the port is 443 unless written. Version 2 adds optional members,
//! told in `docs/policy.md`, as is the order in which rules are asked.

mod decode;
mod endpoint;
mod hint;
mod index;
mod path;
mod propose;
mod replay;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::Destination;
use crate::wire::address::Cidr;

use endpoint::{Endpoint, Fit};
use index::{Entry, Index, List};

pub use propose::{Proposal, propose};
pub use replay::{Outcome, Row, read_rows, replay, replay_files};

/// A decoded `allowlist.json`.
#[derive(Debug, Default)]
pub struct Allowlist {
    endpoints: Vec<Endpoint>,
    deny: Vec<Endpoint>,
    written: BTreeSet<(Box<str>, u16)>,
}

/// A decoded `approval-<name>.json`.
#[derive(Debug)]
pub struct Approval {
    /// Its name.
    pub name: String,
    /// The sandbox that it is for.
    pub sandbox: String,
    /// Unix seconds from which it holds.
    pub effective_at: u64,
    /// Unix seconds at which it ends.
    pub expires_at: u64,
    hosts: Vec<Endpoint>,
    written: BTreeSet<(Box<str>, u16)>,
}

/// One endpoint of a list.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Where it is written: `allowlist.endpoints[3]`, `approval-x.hosts[0]`.
    pub path: String,
    /// Whether an approval made it.
    pub approval: bool,
    /// Addresses beyond the global ones that may be dialled under it.
    pub addresses: Vec<Cidr>,
    /// Bytes that one connection may move, both ways together; 0 for no bound.
    pub max_bytes: u64,
    /// Unix seconds at which it ends, for approvals.
    pub expires_at: Option<u64>,
}

/// What a connection asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where to.
    pub destination: &'a Destination,
    /// Method and path, where they can be seen: a plain HTTP request. `None` for tunnels. A query after the path is
    /// passed over.
    pub request: Option<(&'a str, &'a str)>,
    /// Unix seconds.
    pub now: u64,
}

/// What the lists say.
#[derive(Debug)]
pub enum Verdict<'p> {
    /// This rule allows it.
    Allow(&'p Rule),
    /// A deny rule forbids it.
    Deny {
        /// Where the rule is written.
        rule: &'p str,
    },
    /// No rule allows it.
    Unlisted {
        /// The nearest change that would allow it, in words that name the rule or the entry to add.
        hint: String,
    },
}

/// The lists in force at one moment.
#[derive(Debug, Default)]
pub struct Egress {
    allowlist: Arc<Allowlist>,
    approvals: Vec<Arc<Approval>>,
    index: Index,
    relatives: hint::Relatives,
}

impl Allowlist {
    /// Decodes strictly.
    ///
    /// # Errors
    /// [`Kind::Policy`](crate::error::Kind::Policy) with the path of the entry that is wrong, or that can never match.
    pub fn compile(bytes: &[u8]) -> Result<Self> {
        decode::allowlist(bytes)
    }
}

impl Approval {
    /// Decodes strictly; `file` is the file's name.
    ///
    /// # Errors
    /// [`Kind::Policy`](crate::error::Kind::Policy) with the file and the path of what is wrong.
    pub fn compile(file: &str, bytes: &[u8]) -> Result<Self> {
        decode::approval(file, bytes)
    }
}

impl Egress {
    /// Compiles a baseline and its approvals into one matcher.
    pub fn new(allowlist: Arc<Allowlist>, approvals: Vec<Arc<Approval>>) -> Self {
        let own = [(List::Deny, &*allowlist.deny), (List::Allow, &*allowlist.endpoints)];
        let approved = (0..).zip(&approvals).map(|(n, a)| (List::Approval(n), &*a.hosts));
        let index = Index::new(own.into_iter().chain(approved));
        let relatives = hint::Relatives::new(&allowlist.endpoints);
        Self { allowlist, approvals, index, relatives }
    }

    /// Decides about one connection: deny rules, then the allowlist, then live approvals. Takes less than a microsecond.
    ///
    /// Of several endpoints, the one with the most specific host decides: the host itself, then the longest name above
    /// it; of several with one host, the longest path prefix that fits, then one that names methods, then the first. An
    /// approval is preferred to an endpoint of the allowlist when it grants all that the endpoint does, and more.
    pub fn decide(&self, ask: &Ask<'_>) -> Verdict<'_> {
        let Destination { host, port } = ask.destination;
        let (mut listed, mut approved): (Option<&Rule>, Option<&Rule>) = (None, None);
        for entry in self.index.walk(host).flat_map(|shelf| shelf.at(*port)) {
            let Some(endpoint) = self.endpoint(entry) else { continue };
            match entry.list {
                List::Deny if endpoint.refuses(ask.request) => {
                    return Verdict::Deny { rule: &endpoint.rule.path };
                }
                List::Allow if listed.is_none() && endpoint.fit(ask.request) == Fit::Fits => {
                    listed = Some(&endpoint.rule);
                }
                List::Approval(_)
                    if approved.is_none_or(|rule| endpoint.rule.exceeds(rule))
                        && endpoint.live(ask.now)
                        && endpoint.fit(ask.request) == Fit::Fits =>
                {
                    approved = Some(&endpoint.rule);
                }
                _ => {}
            }
        }
        match (listed, approved) {
            (Some(listed), Some(approved)) if approved.exceeds(listed) => Verdict::Allow(approved),
            (Some(rule), _) | (None, Some(rule)) => Verdict::Allow(rule),
            (None, None) => Verdict::Unlisted { hint: hint::nearest(self, ask) },
        }
    }

    /// The merged list as the controller hashes it: compact JSON, `{"schemaVersion":1,"endpoints":[{"host","port"}]}`,
    /// sorted. It holds every mounted approval, expired or not, because the controller counts files.
    pub fn merged(&self) -> String {
        let mut text = String::from(r#"{"schemaVersion":1,"endpoints":["#);
        for (n, (host, port)) in self.written().into_iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            // A host is a name, an address or `*.name`: nothing in it needs an escape.
            let _ = write!(text, r#"{comma}{{"host":"{host}","port":{port}}}"#);
        }
        text.push_str("]}");
        text
    }

    /// The hosts in force, sorted, each once, for `GET /egress/allowlist`.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.written().into_iter().map(|(host, _)| host.to_owned()).collect();
        hosts.dedup();
        hosts
    }

    fn written(&self) -> BTreeSet<(&str, u16)> {
        let approved = self.approvals.iter().flat_map(|approval| &approval.written);
        self.allowlist.written.iter().chain(approved).map(|(host, port)| (&**host, *port)).collect()
    }

    fn endpoint(&self, entry: &Entry) -> Option<&Endpoint> {
        let list = match entry.list {
            List::Deny => &self.allowlist.deny,
            List::Allow => &self.allowlist.endpoints,
            List::Approval(n) => &self.approvals.get(usize::try_from(n).ok()?)?.hosts,
        };
        list.get(usize::try_from(entry.at).ok()?)
    }
}

impl Rule {
    /// Whether it grants all that `other` does, and more.
    fn exceeds(&self, other: &Self) -> bool {
        let bytes = |rule: &Self| if rule.max_bytes == 0 { u64::MAX } else { rule.max_bytes };
        let holds =
            |all: &Self, some: &Self| some.addresses.iter().all(|block| all.addresses.contains(block));
        bytes(self) >= bytes(other)
            && holds(self, other)
            && (bytes(self) > bytes(other) || !holds(other, self))
    }
}

#[cfg(test)]
mod tests;
