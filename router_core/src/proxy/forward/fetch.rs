//! `POST /egress/fetch`: one request on the agent's behalf, under the same gate and address guard as any connection.

mod ask;
mod hop;
pub mod redirect;
mod tell;

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use ask::{Ask, is_credential};
use hop::{Flight, Hop};
use tell::{Fetched, Reply, Told, told};

use crate::error::{Error, Kind, Step};
use crate::gate::egress::{Passage, Reach, Refusal};
use crate::ids::{Destination, EgressDoor, EgressReason, TraceId};
use crate::limits;
use crate::proxy::account::unix_time;
use crate::proxy::client::Client;
use crate::proxy::forward::outbound::{self, Exchange, Head, Request};
use crate::proxy::forward::reach::{self, Failed};
use crate::proxy::inbound::Inbound;
use crate::proxy::local::authorize;
use crate::proxy::respond;
use crate::proxy::server::Memory;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::DenialKind;
use crate::wire::authority::{self, Url};

/// A whole fetch, redirects included (the reference's bound).
const TOTAL: Duration = Duration::from_secs(30);

/// Fetches one URL and tells the answer as JSON. A client that leaves ends the fetch, and with it the connection.
pub async fn serve(
    worker: &Rc<Worker>,
    client: &mut Client,
    inbound: &Inbound<'_>,
    peer: SocketAddr,
    trace: TraceId,
) {
    let mut flight = Flight::begin(worker);
    if let Err((status, message)) = authorize(&worker.shared, inbound, peer, true) {
        flight.status = status;
        let text = message.as_bytes();
        return respond::plain(client, status, "text/plain; charset=utf-8", text, trace.as_str());
    }
    let ask = match asked(inbound.body) {
        Ok(ask) => ask,
        Err((status, message)) => {
            flight.status = status;
            return respond::flat(client, status, &message, trace.as_str());
        }
    };
    let mut fetch = Fetch::new(worker, trace);
    let outcome = if flight.fits { fetch.attended(&ask, client).await } else { Err(fetch.refuse_slot(&ask)) };
    let Some(reply) = fetch.conclude(outcome) else { return };
    flight.status = reply.status;
    respond::plain(client, reply.status, "application/json", &reply.text, trace.as_str());
}

fn asked(body: &[u8]) -> Result<Ask, (u16, String)> {
    let max = limits::FETCH_REQUEST_BYTES;
    if body.len() > max {
        return Err((413, format!("the body is larger than {max} bytes")));
    }
    Ask::read(body).map_err(|message| (400, message))
}

/// Why a fetch has no answer to tell.
#[derive(Debug)]
enum Stop {
    /// The URL is none that has one meaning.
    Malformed(Error),
    /// It may not leave.
    Refused(Box<Refusal>),
    /// A redirect would give up TLS.
    Downgrade,
    /// The network failed, or a bound was met.
    Failed(Error),
    /// Nobody waits for the answer.
    Gone,
}

struct Fetch<'w> {
    worker: &'w Rc<Worker>,
    trace: TraceId,
    decision_id: u64,
    /// The URL under way, as it may be shown.
    shown: String,
    hop: Option<Hop>,
}

impl<'w> Fetch<'w> {
    fn new(worker: &'w Rc<Worker>, trace: TraceId) -> Self {
        Self { worker, trace, decision_id: worker.random(), shown: String::new(), hop: None }
    }

    /// Fetches while the client waits, within the time.
    async fn attended(&mut self, ask: &Ask, client: &mut Client) -> Result<Fetched, Stop> {
        let worker = Rc::clone(self.worker);
        let mut work = pin!(timeout(TOTAL, self.run(ask)));
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                let late = || Error::new(Kind::Timeout(Step::Total), "it took longer than 30 seconds");
                return Poll::Ready(done.unwrap_or_else(|_| Err(Stop::Failed(late()))));
            }
            if worker.shared.is_killed() {
                let over = "the router is shutting down and the grace for this fetch is over";
                return Poll::Ready(Err(Stop::Failed(Error::new(Kind::NotReady, over))));
            }
            client.poll_gone(cx).map(|()| Err(Stop::Gone))
        })
        .await
    }

    /// Fetches, following as many redirects as were asked for. Each one's URL is parsed and decided about anew.
    async fn run(&mut self, ask: &Ask) -> Result<Fetched, Stop> {
        let mut text = ask.url.clone();
        let (mut method, mut fields, mut body) = (ask.method, ask.fields.clone(), ask.body.as_slice());
        let mut left = ask.follow;
        loop {
            let url = authority::url(&text).map_err(|e| self.malformed(e))?;
            let request = Request { method, url: &url, fields: &fields, body };
            let (head, exchange) = self.exchange(&request).await?;
            let next = head.redirect().filter(|_| left > 0).and_then(|l| redirect::resolve(&url, l));
            let Some(next) = next.filter(|next| authority::url(next).is_ok()) else {
                let followed = (ask.follow > 0).then(|| (shown(&url), ask.follow - left));
                return self.read(head, exchange, followed).await;
            };
            drop(exchange);
            self.hop_ended("redirect");
            let to = authority::url(&next).map_err(|e| self.malformed(e))?;
            if url.tls && !to.tls {
                let destination = Destination { port: to.port(), host: to.authority.host };
                self.refused_hop(Some(&destination), "redirect-downgrade");
                return Err(Stop::Downgrade);
            }
            if origin(&url) != origin(&to) {
                fields.retain(|(name, _)| !is_credential(name));
            }
            // RFC 9110 §15.4: what was posted is not posted again, unless 307 or 308 say so.
            if head.status == 303 && method != "HEAD" || head.status < 303 && method == "POST" {
                (method, body) = ("GET", &[]);
                fields.retain(|(name, _)| !name.starts_with("content-"));
            }
            left -= 1;
            text = next;
        }
    }

    /// Decides about one request, connects, sends it and reads the answer's head.
    async fn exchange(&mut self, request: &Request<'_>) -> Result<(Head, Exchange), Stop> {
        let url = request.url;
        let destination = Destination { host: url.authority.host.clone(), port: url.port() };
        self.shown = shown(url);
        let worker = self.worker;
        let passage = self.admit(request, &destination)?;
        let hop = self.hop.get_or_insert_with(|| Hop::new(Some(&destination), None));
        let (tcp, address) = match reach::open(worker, &destination, &passage).await {
            Ok(reached) => reached,
            Err(Failed::Broken(e)) => return Err(Stop::Failed(e)),
            Err(Failed::Barred(refusal)) => {
                hop.allowed = false;
                hop.rule.clone_from(&refusal.rule);
                self.note(&destination, &refusal);
                return Err(Stop::Refused(Box::new(refusal)));
            }
        };
        hop.address = address.ip().to_string();
        let exchange = async {
            let conn = outbound::secure(worker, url, tcp).await?;
            outbound::begin(worker, conn, request, &mut hop.traffic).await
        };
        let (head, exchange) = exchange.await.map_err(Stop::Failed)?;
        hop.status = head.status;
        Ok((head, exchange))
    }

    fn admit(&mut self, request: &Request<'_>, destination: &Destination) -> Result<Passage, Stop> {
        let shared = &self.worker.shared;
        let snapshot = shared.policy.load_full();
        let hop = self.hop.insert(Hop::new(Some(destination), Some(snapshot.clone())));
        let path = request.url.target.split('?').next().unwrap_or("/");
        let now = unix_time().as_secs();
        let request = Some((request.method, path));
        let reach = Reach { door: EgressDoor::Fetch, destination, request, now };
        match shared.gate.admit_egress(&reach, &snapshot) {
            Ok(passage) => {
                hop.allowed = true;
                passage.rule().clone_into(&mut hop.rule);
                let own = shared.settings.egress.max_bytes;
                hop.traffic.max = if passage.max_bytes() > 0 { passage.max_bytes() } else { own };
                Ok(passage)
            }
            Err(refusal) => {
                hop.rule.clone_from(&refusal.rule);
                self.note(destination, &refusal);
                Err(Stop::Refused(Box::new(refusal)))
            }
        }
    }

    /// Notes a refusal where operators look.
    fn note(&self, destination: &Destination, refusal: &Refusal) {
        let shared = &self.worker.shared;
        shared.metrics.denied(DenialKind::Egress);
        let host = destination.host.to_string();
        shared.gate.egress().note_blocked(&host, destination.port, unix_time().as_secs());
        tracing::info!(
            door = EgressDoor::Fetch.name(),
            destination = %destination,
            reason = refusal.reason.name(),
            rule = refusal.rule,
            trace_id = self.trace.as_str(),
            "egress.denied"
        );
    }

    fn refuse_slot(&mut self, ask: &Ask) -> Stop {
        let max = self.worker.shared.settings.egress.max_connections;
        let refusal = Refusal::new(
            EgressReason::Slots,
            "EGRESS_MAX_CONNECTIONS",
            format!("there are {max} connections through the egress proxy already"),
            "try again later, or raise EGRESS_MAX_CONNECTIONS".to_owned(),
        );
        let url = authority::url(&ask.url).ok();
        self.shown = url.as_ref().map(shown).unwrap_or_default();
        let destination = url.map(|u| Destination { port: u.port(), host: u.authority.host });
        self.refused_hop(destination.as_ref(), &refusal.rule);
        Stop::Refused(Box::new(refusal))
    }

    fn malformed(&mut self, error: Error) -> Stop {
        self.refused_hop(None, "url");
        Stop::Malformed(error)
    }

    /// Begins a request that the gate is not even asked about.
    fn refused_hop(&mut self, destination: Option<&Destination>, rule: &str) {
        rule.clone_into(&mut self.hop.insert(Hop::new(destination, None)).rule);
        self.worker.shared.metrics.denied(DenialKind::Egress);
    }

    /// Reads an answer's content up to its bound.
    async fn read(
        &mut self,
        head: Head,
        mut exchange: Exchange,
        followed: Option<(String, u8)>,
    ) -> Result<Fetched, Stop> {
        let worker = self.worker;
        let mut memory = Memory::new(worker);
        let mut content = Vec::new();
        let mut none = outbound::Traffic::default();
        let traffic = self.hop.as_mut().map_or(&mut none, |hop| &mut hop.traffic);
        loop {
            let before = content.len();
            let done = exchange.more(worker, &mut content, traffic).await.map_err(Stop::Failed)?;
            memory.add(content.len() - before).map_err(Stop::Failed)?;
            let truncated = content.len() > limits::FETCH_BODY_BYTES;
            if done || truncated {
                content.truncate(limits::FETCH_BODY_BYTES);
                return Ok(Fetched { head, content, truncated, followed, memory });
            }
        }
    }

    fn hop_ended(&mut self, end: &str) {
        if let Some(hop) = self.hop.take() {
            hop.record(&self.worker.shared, &self.trace, self.decision_id, end);
        }
    }

    /// Records how the fetch ended; gives what to tell the client, if there still is one.
    fn conclude(&mut self, outcome: Result<Fetched, Stop>) -> Option<Reply> {
        let (reply, end) = match outcome {
            Ok(fetched) => {
                let end = if fetched.truncated { "truncated" } else { "complete" };
                (Some(told(fetched)), end)
            }
            Err(stop) => self.stopped(&stop),
        };
        if let (Some(hop), Some(reply)) = (&mut self.hop, &reply)
            && hop.status == 0
        {
            hop.status = reply.status;
        }
        self.hop_ended(end);
        reply
    }

    fn stopped(&mut self, stop: &Stop) -> (Option<Reply>, &'static str) {
        let id = format!("{:016x}", self.decision_id);
        let mut told = Told { url: self.shown.as_str(), decision_id: &id, ..Told::default() };
        let (status, end) = match stop {
            Stop::Gone => return (None, "client_gone"),
            Stop::Malformed(e) => {
                told.error = format!("Invalid URL: {e}");
                told.reason = EgressReason::Malformed.name();
                (400, "malformed")
            }
            Stop::Refused(refusal) => {
                told.error = match refusal.reason {
                    EgressReason::Address => "Cannot fetch from private/internal addresses".to_owned(),
                    _ => refusal.message.clone(),
                };
                told.action = Some(&refusal.hint);
                told.reason = refusal.reason.name();
                (if refusal.reason == EgressReason::Slots { 503 } else { 403 }, "denied")
            }
            Stop::Downgrade => {
                "Cannot follow a redirect from https to http".clone_into(&mut told.error);
                told.reason = "downgrade";
                (403, "denied")
            }
            Stop::Failed(e) => {
                told.error = format!("Request failed: {e}");
                told.reason = failure(e.kind());
                (if e.kind() == Kind::NotReady { 503 } else { 502 }, failure(e.kind()))
            }
        };
        let text = serde_json::to_vec(&told).unwrap_or_default();
        (Some(Reply { status, text }), end)
    }
}

/// The word for a failure in records and answers.
fn failure(kind: Kind) -> &'static str {
    match kind {
        Kind::Upstream(step) | Kind::Timeout(step) => step.name(),
        Kind::TooLarge { .. } => "bytes",
        Kind::NotReady => "drained",
        _ => "failed",
    }
}

/// A URL as it may be repeated: without its query, which may hold a secret. (User info is no part of one we read.)
fn shown(url: &Url<'_>) -> String {
    let scheme = if url.tls { "https" } else { "http" };
    let port = url.authority.port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.target.split('?').next().unwrap_or("/");
    format!("{scheme}://{}{port}{path}", url.authority.host)
}

fn origin<'u>(url: &'u Url<'_>) -> (bool, &'u crate::ids::Host, u16) {
    (url.tls, &url.authority.host, url.port())
}

#[cfg(test)]
mod tests;
