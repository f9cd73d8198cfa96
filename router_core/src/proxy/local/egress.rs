//! What the engine tells about egress, and lets an operator change: learn mode, what it saw, what was blocked, the lists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::authorize;
use crate::ids::{Host, TraceId};
use crate::limits;
use crate::policy::blocklist::Block;
use crate::proxy::account::{millis, unix_time};
use crate::proxy::client::Client;
use crate::proxy::inbound::Inbound;
use crate::proxy::respond;
use crate::proxy::routes::EgressRoute;
use crate::proxy::worker::{Shared, Worker};
use crate::telemetry::audit::Record;
use crate::telemetry::calendar::utc;
use crate::telemetry::destinations::{BlockedRow, LearnedRow};
use crate::telemetry::metrics::Route;
use crate::wire::authority;

/// Rows of blocked destinations that are given when the client names no number.
const PAGE: usize = 256;
/// What `top` shows when the client says nothing else.
const TOP: usize = 10;
const WINDOW: &str = "5m";
/// The version of the `/internal` documents.
const SCHEMA: u32 = 1;

/// Why there is no document to answer with.
enum Refused {
    /// `{"error": text}`.
    Flat(u16, String),
    /// Who asks may not, in plain text as the reference has it.
    Unauthorized(u16, &'static str),
}

type Answer = Result<String, Refused>;

/// Serves one of the endpoints, [`EgressRoute::Fetch`] aside.
pub fn serve(
    worker: &Worker,
    client: &mut Client,
    inbound: &Inbound<'_>,
    route: EgressRoute,
    peer: SocketAddr,
    trace: TraceId,
) {
    let shared = &worker.shared;
    shared.metrics.http_begun();
    let asked = Asked { worker, inbound, peer, trace };
    let answer = match route {
        EgressRoute::Learn => asked.change("admin:egress-learn", learn),
        EgressRoute::ClearLearned => asked.change("admin:egress-learned-clear", clear_learned),
        EgressRoute::BlocklistStatus => document(&blocklist_status(shared)),
        EgressRoute::BlocklistCheck => check(shared, inbound),
        read => asked.read(read),
    };
    let (trace, status) = (trace.as_str(), status(&answer));
    match answer {
        Ok(text) => respond::plain(client, status, "application/json", text.as_bytes(), trace),
        Err(Refused::Flat(_, message)) => respond::flat(client, status, &message, trace),
        Err(Refused::Unauthorized(_, message)) => {
            respond::plain(client, status, "text/plain; charset=utf-8", message.as_bytes(), trace);
        }
    }
    shared.metrics.http_done(Route::Egress, status);
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(Refused::Flat(status, _) | Refused::Unauthorized(status, _)) => *status,
    }
}

struct Asked<'a> {
    worker: &'a Worker,
    inbound: &'a Inbound<'a>,
    peer: SocketAddr,
    trace: TraceId,
}

impl Asked<'_> {
    fn read(&self, route: EgressRoute) -> Answer {
        let (shared, inbound) = (&*self.worker.shared, self.inbound);
        authorize(shared, inbound, self.peer, true).map_err(|(s, m)| Refused::Unauthorized(s, m))?;
        let now = unix_time().as_secs();
        match route {
            EgressRoute::Learned => document(&learned(shared)),
            EgressRoute::LearnedBlocked => document(&blocked_page(shared, inbound)),
            EgressRoute::Blocked => document(&blocked_since(shared, inbound.query, now)),
            EgressRoute::TopBlocked => document(&blocked_top(shared, inbound.query, now)),
            _ => document(&allowlist(shared)),
        }
    }

    /// Makes a change that only the admin token allows, and records it: made, or tried in vain.
    fn change(&self, action: &str, change: impl FnOnce(&Shared, &[u8]) -> Changed) -> Answer {
        let shared = &*self.worker.shared;
        let (answer, rule) = match authorize(shared, self.inbound, self.peer, false) {
            Err((status, message)) => (Err(Refused::Unauthorized(status, message)), "admin-token"),
            Ok(()) => change(shared, self.inbound.body),
        };
        let (status, decision_id) = (status(&answer), self.worker.random());
        let done = answer.is_ok();
        shared.audit.append(&Record {
            ts_ms: millis(unix_time()),
            agent: shared.settings.sandbox.as_str(),
            action,
            decision: if done { "allow" } else { "deny" },
            rule,
            decision_id,
            trace_id: self.trace.as_str(),
            policy: &shared.policy.load().egress_digest,
            status,
            ..Record::default()
        });
        let (peer, trace_id) = (self.peer.ip().to_canonical(), self.trace.as_str());
        if done {
            tracing::info!(action, rule, %peer, trace_id, "admin.egress");
        } else {
            tracing::warn!(action, rule, %peer, trace_id, status, "admin.refused");
        }
        answer
    }
}

/// A change's answer, and the rule that the audit tells.
type Changed = (Answer, &'static str);

#[derive(Deserialize)]
struct Switch {
    #[serde(default)]
    enabled: bool,
}

#[derive(Serialize)]
struct Mode {
    learn_mode: bool,
}

fn learn(shared: &Shared, body: &[u8]) -> Changed {
    let switch: Switch = match small(body) {
        Ok(switch) => switch,
        Err(refused) => return (Err(refused), "body"),
    };
    shared.gate.egress().set_learn(switch.enabled);
    let rule = if switch.enabled { "egress-mode.learn" } else { "egress-mode.strict" };
    (document(&Mode { learn_mode: switch.enabled }), rule)
}

#[derive(Serialize)]
struct Cleared {
    status: &'static str,
    learn_mode: bool,
}

fn clear_learned(shared: &Shared, _body: &[u8]) -> Changed {
    let egress = shared.gate.egress();
    match egress.learned().clear() {
        Ok(()) => (document(&Cleared { status: "cleared", learn_mode: egress.learns() }), "learned"),
        Err(e) => {
            tracing::error!(error = %e, "learned.clear");
            let refused = Refused::Flat(500, "what was learned could not be cleared on disk".to_owned());
            (Err(refused), "learned")
        }
    }
}

#[derive(Serialize)]
struct Learned {
    learn_mode: bool,
    count: usize,
    domains: BTreeSet<String>,
    connections: Vec<LearnedRow>,
    dropped: u64,
}

fn learned(shared: &Shared) -> Learned {
    let egress = shared.gate.egress();
    let connections = egress.learned().rows();
    let domains: BTreeSet<String> = connections.iter().map(|row| row.host.clone()).collect();
    Learned {
        learn_mode: egress.learns(),
        count: domains.len(),
        domains,
        connections,
        dropped: egress.learned().dropped(),
    }
}

#[derive(Serialize)]
struct Hosts {
    count: usize,
    domains: Vec<String>,
    digest: Option<String>,
    generation: u64,
}

fn allowlist(shared: &Shared) -> Hosts {
    let snapshot = shared.policy.load();
    let domains = snapshot.egress.as_ref().map(|lists| lists.hosts()).unwrap_or_default();
    Hosts {
        count: domains.len(),
        domains,
        digest: snapshot.egress.as_ref().map(|_| snapshot.egress_digest.clone()),
        generation: snapshot.generation,
    }
}

#[derive(Serialize)]
struct BlocklistStatus {
    enabled: bool,
    domain_count: usize,
    learn_mode: bool,
    learned_domains: usize,
}

fn blocklist_status(shared: &Shared) -> BlocklistStatus {
    let egress = shared.gate.egress();
    BlocklistStatus {
        enabled: egress.blocks(),
        domain_count: egress.blocklist().len(),
        learn_mode: egress.learns(),
        learned_domains: learned(shared).count,
    }
}

#[derive(Deserialize)]
struct Candidate {
    domain: Option<String>,
    url: Option<String>,
}

#[derive(Serialize)]
struct Checked {
    blocked: bool,
    domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Looks one host up, written alone, with a port, or in a URL.
fn check(shared: &Shared, inbound: &Inbound<'_>) -> Answer {
    let asked: Candidate = small(inbound.body)?;
    let bad = |e: crate::error::Error| Refused::Flat(400, e.to_string());
    let (text, host) = match (asked.domain, asked.url) {
        (Some(domain), _) => {
            let host = authority::authority(domain.as_bytes()).map_err(bad)?.host;
            (domain, host)
        }
        (None, Some(url)) => {
            let host = authority::url(&url).map_err(bad)?.authority.host;
            (host.to_string(), host)
        }
        (None, None) => return Err(Refused::Flat(400, "Missing 'domain' or 'url' field".to_owned())),
    };
    let egress = shared.gate.egress();
    let list = egress.blocklist();
    let block = list.check(&host).filter(|_| egress.blocks());
    let reason = block.map(|block| reason(block, &host));
    let domain = if reason.is_some() { host.to_string() } else { text };
    document(&Checked { blocked: reason.is_some(), domain, reason })
}

fn reason(block: Block<'_>, host: &Host) -> String {
    let what = match block {
        Block::IpLiteral => format!("{host} is an address without a name"),
        Block::TopLevel(domain) => format!("all of .{domain} is blocked"),
        Block::Listed(name) => format!("{name} is listed"),
    };
    format!("Domain blocked by threat intelligence blocklist: {what}")
}

#[derive(Serialize)]
struct Page {
    total: usize,
    count: usize,
    entries: Vec<PageEntry>,
}

#[derive(Serialize)]
struct PageEntry {
    host: String,
    port: u16,
    source_sandbox: String,
    first_seen_unix: u64,
    last_seen_unix: u64,
    count: u64,
}

fn blocked_page(shared: &Shared, inbound: &Inbound<'_>) -> Page {
    let asked = inbound.fields.value("x-kars-limit").and_then(|v| std::str::from_utf8(v).ok());
    let limit = asked.and_then(|v| v.trim().parse().ok()).unwrap_or(PAGE).min(limits::BLOCKED_PAGE);
    let rows = shared.gate.egress().blocked().since(0);
    let total = rows.len();
    let entry = |row: BlockedRow| PageEntry {
        host: row.host,
        port: row.port,
        source_sandbox: row.source_sandbox,
        first_seen_unix: row.first_seen,
        last_seen_unix: row.last_seen,
        count: row.count,
    };
    let entries: Vec<PageEntry> = rows.into_iter().take(limit).map(entry).collect();
    Page { total, count: entries.len(), entries }
}

#[derive(Serialize)]
struct BlockedSince {
    schema_version: u32,
    total: usize,
    count: usize,
    since_unix: u64,
    entries: Vec<SinceEntry>,
    dropped: u64,
}

#[derive(Serialize)]
struct SinceEntry {
    host: String,
    port: u16,
    source_sandbox: String,
    count: u64,
    first_seen_unix: u64,
    last_seen_unix: u64,
    first_seen: String,
    last_seen: String,
}

fn blocked_since(shared: &Shared, query: Option<&str>, now: u64) -> BlockedSince {
    let since_unix = parameter(query, "since").map_or(0, |text| moment(&text, now));
    let blocked = shared.gate.egress().blocked();
    let entry = |row: BlockedRow| SinceEntry {
        host: row.host,
        port: row.port,
        source_sandbox: row.source_sandbox,
        count: row.count,
        first_seen_unix: row.first_seen,
        last_seen_unix: row.last_seen,
        first_seen: stamp(row.first_seen),
        last_seen: stamp(row.last_seen),
    };
    let total = blocked.since(0).len();
    let entries: Vec<SinceEntry> = blocked.since(since_unix).into_iter().map(entry).collect();
    BlockedSince {
        schema_version: SCHEMA,
        total,
        count: entries.len(),
        since_unix,
        entries,
        dropped: blocked.dropped(),
    }
}

#[derive(Serialize)]
struct MostBlocked {
    schema_version: u32,
    since_unix: u64,
    window: String,
    n: usize,
    top: Vec<TopEntry>,
}

#[derive(Serialize)]
struct TopEntry {
    host: String,
    count: u64,
}

fn blocked_top(shared: &Shared, query: Option<&str>, now: u64) -> MostBlocked {
    let given = parameter(query, "window").and_then(|text| window(&text).map(|secs| (text, secs)));
    let (window, secs) = given.unwrap_or_else(|| (WINDOW.to_owned(), window(WINDOW).unwrap_or_default()));
    let n = parameter(query, "n").and_then(|n| n.parse().ok()).unwrap_or(TOP).min(limits::BLOCKED_TOP);
    let since_unix = now.saturating_sub(secs);
    let top = most_blocked(shared.gate.egress().blocked().since(since_unix), n);
    MostBlocked { schema_version: SCHEMA, since_unix, window, n, top }
}

/// The hosts with the largest counts over all their ports, the largest first.
fn most_blocked(rows: Vec<BlockedRow>, n: usize) -> Vec<TopEntry> {
    let mut hosts: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows {
        let count = hosts.entry(row.host).or_default();
        *count = count.saturating_add(row.count);
    }
    let mut top: Vec<TopEntry> = hosts.into_iter().map(|(host, count)| TopEntry { host, count }).collect();
    top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.host.cmp(&b.host)));
    top.truncate(n);
    top
}

/// Reads a body that has to be one JSON object; the error is for the client and repeats nothing of the body.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body is not a JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|e| {
        let what = if e.is_data() { "holds a member of another type than asked for" } else { "is not JSON" };
        format!("the body {what}, at line {} column {}", e.line(), e.column())
    })
}

fn small<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let max = limits::EGRESS_REQUEST_BYTES;
    if body.len() > max {
        return Err(Refused::Flat(413, format!("the body is larger than {max} bytes")));
    }
    object(body).map_err(|message| Refused::Flat(400, message))
}

fn document(document: &impl Serialize) -> Answer {
    serde_json::to_string(document).map_err(|e| Refused::Flat(500, e.to_string()))
}

/// The first value of a query parameter, percent-decoded (RFC 3986 §2.1). A `+` stays one: a time zone has it.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
}

fn decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let pair = tail.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = pair
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { tail.get(2..).unwrap_or(&[]) } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Unix seconds of a moment written as such, in RFC 3339, or as a time ago (`-10m`); 0 when it is none of these.
fn moment(text: &str, now: u64) -> u64 {
    if let Some(ago) = text.strip_prefix('-') {
        return window(ago).map_or(0, |secs| now.saturating_sub(secs));
    }
    if let Ok(secs) = text.parse() {
        return secs;
    }
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    parsed.and_then(|at| u64::try_from(at.unix_timestamp()).ok()).unwrap_or(0)
}

/// Seconds of a span such as `300`, `500ms`, `30s`, `5m`, `1h` or `7d`; parts of a second count as one.
fn window(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(at)?;
    let n: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(n.div_ceil(1000)),
        "" | "s" => Some(n),
        "m" => n.checked_mul(60),
        "h" => n.checked_mul(3600),
        "d" => n.checked_mul(86_400),
        _ => None,
    }
}

fn stamp(secs: u64) -> String {
    utc(secs).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
