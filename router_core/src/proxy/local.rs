//! Endpoints of the engine itself: health, metrics, policy status.

pub mod egress;
mod proof;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use crate::ids::TraceId;
use crate::proxy::account::unix_time;
use crate::proxy::client::Client;
use crate::proxy::inbound::Inbound;
use crate::proxy::respond;
use crate::proxy::routes::Local;
use crate::proxy::worker::{Shared, Worker};
use crate::telemetry::metrics::{Budget, Route};

/// Serves one of the engine's own endpoints.
pub fn serve(
    worker: &Worker,
    client: &mut Client,
    inbound: &Inbound<'_>,
    endpoint: Local,
    peer: SocketAddr,
    trace: TraceId,
) {
    let shared = &worker.shared;
    let trace = trace.as_str();
    shared.metrics.http_begun();
    let (status, route) = match endpoint {
        Local::Healthz | Local::Livez => {
            respond::plain(client, 200, "text/plain; charset=utf-8", b"ok", trace);
            (200, Route::Health)
        }
        Local::Root => {
            respond::plain(client, 200, "text/plain; charset=utf-8", b"kars router\n", trace);
            (200, Route::Health)
        }
        Local::Readyz => (readyz(shared, client, inbound, trace), Route::Ready),
        Local::Metrics => {
            let text = metrics(shared);
            respond::plain(client, 200, "text/plain; version=0.0.4; charset=utf-8", text.as_bytes(), trace);
            (200, Route::Metrics)
        }
        Local::PolicyStatus => (policy_status(shared, client, inbound, peer, trace), Route::PolicyStatus),
    };
    shared.metrics.http_done(route, status);
}

/// Ready means: the policy is decided and we take calls. An upstream's health is no part of it.
fn readyz(shared: &Shared, client: &mut Client, inbound: &Inbound<'_>, trace: &str) -> u16 {
    let policy = shared.gate.ready(&shared.policy.load());
    let open = !shared.is_draining();
    let status = if policy && open { 200 } else { 503 };
    let verbose = inbound.query.is_some_and(|q| q.split('&').any(|p| p == "verbose" || p == "verbose=1"));
    let text = match (policy, open) {
        _ if verbose => {
            let mark = |good: bool| if good { "ok" } else { "failed" };
            format!("listeners {}\npolicy {}\n", mark(open), mark(policy))
        }
        (true, true) => "ok".to_owned(),
        (_, false) => "not ready: draining".to_owned(),
        (false, _) => "not ready: no policy is loaded".to_owned(),
    };
    respond::plain(client, status, "text/plain; charset=utf-8", text.as_bytes(), trace);
    status
}

/// The Prometheus text; also read by the engine's owner.
pub fn metrics(shared: &Shared) -> String {
    let snapshot = shared.policy.load();
    let limits = shared.gate.limits(snapshot.inference.as_deref());
    let standing = shared.gate.ledger().standing(unix_time().as_secs());
    let row = |limit, s: crate::gate::ledger::Spent| Budget { limit, spent: s.spent, reserved: s.reserved };
    shared.metrics.set_budgets([
        row(limits.hourly, standing.hour),
        row(limits.daily, standing.day),
        row(limits.monthly, standing.month),
    ]);
    shared.metrics.set_audit(shared.audit.appended(), shared.audit.dropped());
    shared.metrics.set_egress(shared.gate.egress().figures(unix_time().as_secs()));
    shared.metrics.set_generation(shared.generation.load(Ordering::Relaxed));
    let mut text = String::with_capacity(16 * 1024);
    shared.metrics.render(&mut text);
    text
}

fn policy_status(
    shared: &Shared,
    client: &mut Client,
    inbound: &Inbound<'_>,
    peer: SocketAddr,
    trace: &str,
) -> u16 {
    let token = shared.admin_token.as_ref().map(|token| token.expose().as_bytes());
    let asked =
        token.and_then(|token| Some((token, proof::nonce(inbound.fields.value("authorization"), token)?)));
    let allowed = match asked {
        Some(_) => admit_origin(shared, peer),
        None => authorize(shared, inbound, peer, true),
    };
    if let Err((status, message)) = allowed {
        respond::plain(client, status, "text/plain; charset=utf-8", message.as_bytes(), trace);
        return status;
    }
    let now_ms = u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX);
    let json = shared.status.render_json(&shared.health.rows(now_ms));
    let shown = asked.map(|(token, nonce)| proof::answer(token, nonce, json.as_bytes()));
    respond::proven(
        client,
        "application/json",
        json.as_bytes(),
        shown.as_deref().map(|code| (proof::HEADER, code)),
        trace,
    );
    200
}

/// Whether a request may use an admin route. What only reads (`read`) is open to loopback, as the agent's
/// plugins expect; what changes something takes the token always, since the agent is on loopback too.
///
/// # Errors
/// Status and text of the refusal.
pub fn authorize(
    shared: &Shared,
    inbound: &Inbound<'_>,
    peer: SocketAddr,
    read: bool,
) -> Result<(), (u16, &'static str)> {
    let ip = peer.ip().to_canonical();
    if read && ip.is_loopback() {
        return Ok(());
    }
    admit_origin(shared, peer)?;
    let Some(token) = &shared.admin_token else {
        return Err((403, "No admin token is configured (ADMIN_TOKEN), so admin routes are closed"));
    };
    let given = inbound.fields.value("authorization").and_then(|v| v.strip_prefix(b"Bearer "));
    match given {
        None => Err((401, "Admin token required")),
        Some(given) if proof::same(given, token.expose().as_bytes()) => Ok(()),
        Some(_) => Err((401, "Invalid admin token")),
    }
}

/// Whether admin routes are open to where a request comes from, where that is limited at all.
fn admit_origin(shared: &Shared, peer: SocketAddr) -> Result<(), (u16, &'static str)> {
    let allowed = &shared.settings.admin_allow;
    if allowed.is_empty() || allowed.contains(&peer.ip().to_canonical()) {
        Ok(())
    } else {
        Err((403, "Admin origin not allowed"))
    }
}
