//! `POST /egress/fetch`: one request on the agent's behalf, under the same gate and address guard as any connection.

mod ask;
mod hop;
pub mod redirect;
mod tell;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use ask::{Ask, is_credential};
use hop::{Flight, Hop};
use tell::{Fetched, Reply, Told, told};

use crate::error::{Error, Kind, Step};
use crate::gate::egress::{Passage, Refusal};
use crate::ids::{Destination, EgressReason, Host, TraceId};
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
use crate::telemetry::metrics::EgressEnd;
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
    let mut fetch = Fetch { worker, trace, shown: String::new(), hop: None };
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
    /// The router stops.
    Drained,
    /// Nobody waits for the answer.
    Gone,
}

struct Fetch<'w> {
    worker: &'w Rc<Worker>,
    trace: TraceId,
    /// The URL under way, as it may be shown.
    shown: String,
    /// The request under way.
    hop: Option<Hop>,
}

impl Fetch<'_> {
    /// Fetches while the client waits, within the time.
    async fn attended(&mut self, ask: &Ask, client: &mut Client) -> Result<Fetched, Stop> {
        let worker = Rc::clone(self.worker);
        let mut work = pin!(timeout(TOTAL, self.run(ask)));
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done.unwrap_or_else(|_| Err(late("it took longer than 30 seconds"))));
            }
            if worker.shared.is_killed() {
                return Poll::Ready(Err(Stop::Drained));
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
            let Some((next, to)) = next.as_ref().and_then(|n| authority::url(n).ok().map(|to| (n, to)))
            else {
                let followed = (ask.follow > 0).then(|| (shown(&url), ask.follow - left));
                return self.read(head, exchange, followed).await;
            };
            if url.tls && !to.tls {
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
            text = next.clone();
        }
    }

    /// Decides about one request, connects, sends it and reads the answer's head.
    async fn exchange(&mut self, request: &Request<'_>) -> Result<(Head, Exchange), Stop> {
        let url = request.url;
        let destination = Destination { host: url.authority.host.clone(), port: url.port() };
        self.shown = shown(url);
        let worker = self.worker;
        let hop = self.next_hop();
        let passage = hop.admit(worker, request, &destination)?;
        let (until, traffic, visit) = (hop.until, &mut hop.traffic, &mut hop.visit);
        let exchange = async {
            let (tcp, address) =
                reach::open(worker, &destination, &passage).await.map_err(|failed| match failed {
                    Failed::Broken(e) => Stop::Failed(e),
                    Failed::Barred(refusal) => {
                        visit.refused(&refusal);
                        Stop::Refused(Box::new(refusal))
                    }
                })?;
            visit.connected(address);
            let conn = outbound::secure(worker, url, tcp).await.map_err(Stop::Failed)?;
            outbound::begin(worker, conn, request, traffic).await.map_err(Stop::Failed)
        };
        let (head, exchange) = within(until, exchange).await?;
        hop.visit.status = head.status;
        Ok((head, exchange))
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
        let hop = self.hop.get_or_insert_with(|| Hop::begin(worker, &self.trace));
        let until = hop.until;
        let reading = async {
            loop {
                let before = content.len();
                let done = exchange.more(worker, &mut content, &mut hop.traffic).await?;
                memory.add(content.len() - before)?;
                if done || content.len() > limits::FETCH_BODY_BYTES {
                    return Ok(());
                }
            }
        };
        within(until, async { reading.await.map_err(Stop::Failed) }).await?;
        let truncated = content.len() > limits::FETCH_BODY_BYTES;
        content.truncate(limits::FETCH_BODY_BYTES);
        Ok(Fetched { head, content, truncated, followed, memory })
    }

    /// Ends the request before, if any, in good order, and begins another.
    fn next_hop(&mut self) -> &mut Hop {
        if let Some(before) = &mut self.hop {
            before.visit.end = Some(EgressEnd::Complete);
        }
        self.hop.insert(Hop::begin(self.worker, &self.trace))
    }

    fn refuse_slot(&mut self, ask: &Ask) -> Stop {
        let max = self.worker.shared.settings.egress.max_connections;
        let refusal = Refusal::new(
            EgressReason::Slots,
            "EGRESS_MAX_CONNECTIONS",
            format!("the egress proxy has {max} connections open, as many as it may"),
            "try again in a moment".to_owned(),
        );
        let url = authority::url(&ask.url).ok();
        self.shown = url.as_ref().map(shown).unwrap_or_default();
        let visit = &mut self.next_hop().visit;
        if let Some(url) = url {
            visit.name(&format!("{}:{}", url.authority.host, url.port()));
        }
        visit.refused(&refusal);
        Stop::Refused(Box::new(refusal))
    }

    fn malformed(&mut self, error: Error) -> Stop {
        self.next_hop().visit.malformed(400, "url");
        Stop::Malformed(error)
    }

    /// Records how the fetch ended; gives what to tell the client, if there still is one.
    fn conclude(mut self, outcome: Result<Fetched, Stop>) -> Option<Reply> {
        match outcome {
            Ok(fetched) => {
                if let Some(hop) = &mut self.hop {
                    hop.visit.end = Some(EgressEnd::Complete);
                }
                Some(told(fetched))
            }
            Err(stop) => self.stopped(&stop),
        }
    }

    fn stopped(mut self, stop: &Stop) -> Option<Reply> {
        let id = self.hop.as_ref().map(|hop| hop.visit.decision()).unwrap_or_default();
        let mut told = Told { url: &self.shown, decision_id: &id, ..Told::default() };
        let status = match stop {
            Stop::Gone => return None,
            Stop::Malformed(e) => {
                told.error = format!("Invalid URL: {e}");
                told.reason = EgressReason::Malformed.name();
                400
            }
            Stop::Refused(refusal) => {
                told.error = match refusal.reason {
                    EgressReason::Address => "Cannot fetch from private/internal addresses".to_owned(),
                    _ => refusal.message.clone(),
                };
                told.action = Some(&refusal.hint);
                told.reason = refusal.reason.name();
                if refusal.reason == EgressReason::Slots { 503 } else { 403 }
            }
            Stop::Downgrade => {
                "Cannot follow a redirect from https to http".clone_into(&mut told.error);
                told.reason = "downgrade";
                403
            }
            Stop::Drained => {
                "Request failed: the router is shutting down".clone_into(&mut told.error);
                told.reason = EgressEnd::Drained.name();
                503
            }
            Stop::Failed(e) => {
                told.error = format!("Request failed: {e}");
                told.reason = failure(e.kind());
                502
            }
        };
        let text = serde_json::to_vec(&told).unwrap_or_default();
        if let Some(hop) = &mut self.hop {
            match stop {
                Stop::Failed(e) => hop.failed(e, status),
                Stop::Drained => hop.visit.end = Some(EgressEnd::Drained),
                Stop::Downgrade => hop.visit.end = Some(EgressEnd::Complete),
                _ => {}
            }
        }
        Some(Reply { status, text })
    }
}

impl Hop {
    fn admit(
        &mut self,
        worker: &Worker,
        request: &Request<'_>,
        destination: &Destination,
    ) -> Result<Passage, Stop> {
        let path = request.url.target.split('?').next().unwrap_or("/");
        let asked = self.visit.ask(destination, Some((request.method, path)));
        let passage = asked.map_err(|refusal| Stop::Refused(Box::new(refusal)))?;
        let own = worker.shared.settings.egress.max_bytes;
        self.traffic.max = if passage.max_bytes() > 0 { passage.max_bytes() } else { own };
        let left = passage.expires_at().map(|at| Duration::from_secs(at).saturating_sub(unix_time()));
        self.until = left.map(|left| Instant::now() + left.min(TOTAL));
        Ok(passage)
    }
}

/// Waits for a future, at most until what allows it ends.
async fn within<T>(until: Option<Instant>, future: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    match until {
        None => future.await,
        Some(until) => timeout_at(until, future)
            .await
            .unwrap_or_else(|_| Err(late("what allows it has ended while it was under way"))),
    }
}

fn late(what: &str) -> Stop {
    Stop::Failed(Error::new(Kind::Timeout(Step::Total), what))
}

/// The word for a failure in answers.
fn failure(kind: Kind) -> &'static str {
    match kind {
        Kind::Upstream(step) | Kind::Timeout(step) => step.name(),
        Kind::TooLarge { .. } => EgressEnd::Bytes.name(),
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

fn origin<'u>(url: &'u Url<'_>) -> (bool, &'u Host, u16) {
    (url.tls, &url.authority.host, url.port())
}

#[cfg(test)]
mod tests;
