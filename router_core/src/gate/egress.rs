//! Decides which connections may leave the sandbox: blocklist, deny rules, allowlist and live approvals, else deny,
//! or learn. Only [`Gate::admit_egress`](super::Gate::admit_egress) makes a [`Passage`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::error::Result;
use crate::ids::{Destination, EgressDoor, EgressReason};
use crate::policy::blocklist::{Block, Blocklist};
use crate::policy::egress::{Ask, Verdict};
use crate::policy::snapshot::Snapshot;
use crate::settings::Settings;
use crate::telemetry::destinations::{Blocked, Learned};
use crate::telemetry::metrics::EgressFigures;
use crate::wire::address::Cidr;

/// What a connection asks for.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    /// How it asks.
    pub door: EgressDoor,
    /// Where to.
    pub destination: &'a Destination,
    /// Method and path of a plain HTTP request; `None` for tunnels, where nobody sees them.
    pub request: Option<(&'a str, &'a str)>,
    /// Unix seconds.
    pub now: u64,
}

/// Leave for one connection. Only the gate makes one.
#[derive(Debug)]
pub struct Passage {
    reason: EgressReason,
    rule: String,
    granted: Vec<Cidr>,
    max_bytes: u64,
    expires_at: Option<u64>,
}

/// Why a connection may not leave, in words for the client, the operator and the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason.
    pub reason: EgressReason,
    /// The rule that decided, as a path into the policy; a word of ours where no policy decided.
    pub rule: String,
    /// For people: what is wrong.
    pub message: String,
    /// The nearest change that would allow it; empty where none would.
    pub hint: String,
}

/// What egress decisions need beside the policy: mode, blocklist, and the tables of what was seen.
#[derive(Debug)]
pub struct Egress {
    learn: AtomicBool,
    blocking: bool,
    blocklist: ArcSwap<Blocklist>,
    /// Unix seconds at which the blocklist was put in force; 0 before the first.
    blocklist_at: AtomicU64,
    learned: Learned,
    blocked: Blocked,
    sandbox: Box<str>,
}

impl Egress {
    /// The state at the start; `learned` is the opened store.
    pub fn new(settings: &Settings, learned: Learned) -> Self {
        Self {
            learn: AtomicBool::new(settings.egress.learn),
            blocking: settings.egress.blocklist,
            blocklist: ArcSwap::default(),
            blocklist_at: AtomicU64::new(0),
            learned,
            blocked: Blocked::default(),
            sandbox: settings.sandbox.as_str().into(),
        }
    }

    /// Whether learn mode is on.
    pub fn learns(&self) -> bool {
        self.learn.load(Ordering::Relaxed)
    }

    /// Turns learn mode on or off.
    pub fn set_learn(&self, on: bool) {
        self.learn.store(on, Ordering::Relaxed);
    }

    /// Whether blocklists are consulted.
    pub fn blocks(&self) -> bool {
        self.blocking
    }

    /// The blocklist in force.
    pub fn blocklist(&self) -> Arc<Blocklist> {
        self.blocklist.load_full()
    }

    /// Puts a blocklist in force; `now` in Unix seconds.
    pub fn set_blocklist(&self, list: Blocklist, now: u64) {
        self.blocklist.store(Arc::new(list));
        self.blocklist_at.store(now, Ordering::Relaxed);
    }

    /// Figures for a scrape; `now` in Unix seconds.
    pub fn figures(&self, now: u64) -> EgressFigures {
        let at = self.blocklist_at.load(Ordering::Relaxed);
        EgressFigures {
            blocklist_names: self.blocklist.load().len() as u64,
            blocklist_age: (at > 0).then(|| now.saturating_sub(at)),
            learned_rows: self.learned.len() as u64,
            learns: self.learns(),
        }
    }

    /// What learn mode saw.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// What was blocked lately.
    pub fn blocked(&self) -> &Blocked {
        &self.blocked
    }

    /// Decides about one connection. What learn mode lets pass is noted once the address guard has, too.
    pub(super) fn admit(&self, reach: &Reach<'_>, snapshot: &Snapshot) -> Result<Passage, Refusal> {
        let ask = Ask { destination: reach.destination, request: reach.request, now: reach.now };
        let verdict = snapshot.egress.as_ref().map(|policy| policy.decide(&ask));
        self.check_blocklist(reach, matches!(verdict, Some(Verdict::Allow(_))))?;
        if let Some(Verdict::Deny { rule }) = verdict {
            return Err(Refusal::new(
                EgressReason::DenyRule,
                rule,
                format!("{} is denied by {rule}", reach.destination),
                format!("take {rule} out of the policy"),
            ));
        }
        let allowed = match &verdict {
            Some(Verdict::Allow(rule)) => Some(*rule),
            _ => None,
        };
        if let Some(rule) = allowed {
            return Ok(Passage {
                reason: if rule.approval { EgressReason::Approval } else { EgressReason::Allowlist },
                rule: rule.path.clone(),
                granted: rule.addresses.clone(),
                max_bytes: rule.max_bytes,
                expires_at: rule.expires_at,
            });
        }
        if self.learns() {
            return Ok(Passage {
                reason: EgressReason::Learn,
                rule: "egress-mode.learn".to_owned(),
                granted: Vec::new(),
                max_bytes: 0,
                expires_at: None,
            });
        }
        Err(match verdict {
            Some(Verdict::Unlisted { hint }) => Refusal::new(
                EgressReason::Unlisted,
                "allowlist",
                format!("{} is not in the allowlist, and no approval is in force for it", reach.destination),
                hint,
            ),
            _ => Refusal::new(
                EgressReason::NoPolicy,
                "allowlist",
                "no egress allowlist is mounted, so nothing may leave".to_owned(),
                "mount allowlist.json at EGRESS_ALLOWLIST_DIR".to_owned(),
            ),
        })
    }

    /// Leave for the router's own reading of a blocklist feed, which no policy needs to list. `written` is the address
    /// that the operator wrote as the feed's host: it is granted. A feed's name may lead to global addresses only.
    pub fn admit_feed(&self, written: Option<IpAddr>) -> Passage {
        Passage {
            reason: EgressReason::Allowlist,
            rule: "BLOCKLIST_FEEDS".to_owned(),
            granted: written.map(Cidr::one).into_iter().collect(),
            max_bytes: 0,
            expires_at: None,
        }
    }

    /// Notes a refusal in the table of blocked destinations. `host` is what the client named.
    pub fn note_blocked(&self, host: &str, port: u16, now: u64) {
        self.blocked.record(&self.sandbox, host, port, now);
    }

    /// Blocklists win over the policy, but for one thing: an address that a rule writes out was meant.
    fn check_blocklist(&self, reach: &Reach<'_>, listed: bool) -> Result<(), Refusal> {
        if !self.blocking {
            return Ok(());
        }
        let list = self.blocklist.load();
        let Some(block) = list.check(&reach.destination.host) else { return Ok(()) };
        let host = &reach.destination.host;
        let lists =
            "blocklists win over the allowlist: take the name off the list, or set BLOCKLIST_ENABLED=false";
        let (rule, what, hint) = match block {
            Block::IpLiteral if listed => return Ok(()),
            Block::IpLiteral => (
                "blocklist.ip-literal".to_owned(),
                format!("{host} is an address without a name, and those are blocked"),
                format!(
                    "connect by name, or write the endpoint {{\"host\":\"{host}\",...}} into the allowlist"
                ),
            ),
            Block::TopLevel(domain) => (
                format!("blocklist.tld.{domain}"),
                format!("all of .{domain} is blocked ({host})"),
                "set BLOCKLIST_ENABLED=false, which lifts every blocklist".to_owned(),
            ),
            Block::Listed(name) => {
                (format!("blocklist.{name}"), format!("{name} is blocked ({host})"), lists.to_owned())
            }
        };
        let message = format!("Domain blocked by threat intelligence blocklist: {what}");
        Err(Refusal::new(EgressReason::Blocklist, &rule, message, hint))
    }
}

impl Passage {
    /// Why it may leave.
    pub fn reason(&self) -> EgressReason {
        self.reason
    }

    /// The rule that allows it, as a path into the policy.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Addresses beyond the global ones that may be dialled.
    pub fn granted(&self) -> &[Cidr] {
        &self.granted
    }

    /// Bytes that the connection may move; 0 for no bound.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Unix seconds at which what allows it ends; the connection ends with it.
    pub fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: EgressReason, rule: &str, message: String, hint: String) -> Self {
        Self { reason, rule: rule.to_owned(), message, hint }
    }
}
