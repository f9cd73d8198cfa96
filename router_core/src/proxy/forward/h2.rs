//! CONNECT over HTTP/2 with prior knowledge (RFC 9113 §8.5): hyper frames it, each stream is a tunnel.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::gate::egress::Refusal;
use crate::ids::{Destination, EgressDoor, EgressReason};
use crate::net::deadline::Deadline;
use crate::net::rewind::Rewind;
use crate::net::tunnel;
use crate::proxy::forward::opening::{Listener, Opening, poll_read};
use crate::proxy::forward::refuse::{self, Answer};
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, connect, tunnel_limits};
use crate::proxy::h2::builder;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::EgressEnd;

/// How such a connection begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub async fn serve(conn: Conn) {
    let Conn { worker, tcp, buffer, .. } = conn;
    let io = TokioIo::new(Rewind::new(tcp, buffer));
    let service_worker = Rc::clone(&worker);
    let service = service_fn(move |request| {
        let worker = Rc::clone(&service_worker);
        async move { Ok::<_, Infallible>(Box::pin(answer(worker, request)).await) }
    });
    let connection = builder().serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    poll_fn(|cx| {
        if worker.shared.is_killed() {
            return Poll::Ready(());
        }
        if worker.shared.is_draining() && !leaving {
            leaving = true;
            connection.as_mut().graceful_shutdown();
        }
        // A connection error concerns this client alone, and it is gone.
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

async fn answer(worker: Rc<Worker>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut visit = Visit::of(&worker, EgressDoor::Connect);
    visit.trace(request.headers().get("x-kars-trace-id").map(HeaderValue::as_bytes));
    if request.method() != Method::CONNECT || request.extensions().get::<hyper::ext::Protocol>().is_some() {
        let what = "over HTTP/2 the egress proxy takes CONNECT alone; send plain requests over HTTP/1.1";
        visit.malformed(501, what);
        return response(&refuse::malformed(501, what, &visit));
    }
    let target = request.uri().authority().map_or("", http::uri::Authority::as_str);
    let destination = match connect::destination(target) {
        Ok(destination) => destination,
        Err(e) => {
            visit.malformed(400, e.detail());
            return response(&refuse::malformed(400, e.detail(), &visit));
        }
    };
    // RFC 9113 §8.3.1 has the two agree; hyper leaves that to us.
    let host =
        request.headers().get(http::header::HOST).filter(|_| worker.shared.settings.egress.strict_names);
    if let Some(Err(refusal)) = host.map(|host| connect::agrees(host.as_bytes(), &destination)) {
        visit.name(&destination.to_string());
        visit.refused(&refusal);
        return response(&refuse::denied(&refusal, &visit));
    }
    let (passage, upstream) = match connect::leave(&worker, &mut visit, &destination, None).await {
        Ok(reached) => reached,
        Err(answer) => return response(&answer),
    };
    visit.status = 200;
    let limits = tunnel_limits(&worker, &passage);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let _enlisted = worker.enlist(&waker);
        // A stream that is reset before its tunnel begins is a client that left.
        if let Ok(io) = upgrade.await {
            Stream { io: TokioIo::new(io), upstream, worker, limits }.run(visit, &destination).await;
        }
    });
    Response::new(Full::default())
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body.clone())));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    for (name, value) in &answer.fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// The refusal of what HTTP/1.1 tunnels relay request by request.
fn hidden() -> Refusal {
    let what = "cleartext HTTP inside an HTTP/2 tunnel is not relayed; use CONNECT over HTTP/1.1";
    Refusal::new(EgressReason::Fronting, "egress-fronting", what.to_owned(), String::new())
}

/// One tunnel.
struct Stream {
    io: TokioIo<Upgraded>,
    upstream: TcpStream,
    worker: Rc<Worker>,
    limits: tunnel::Limits,
}

/// One direction: what was read and not written yet, and how far it is.
#[derive(Default)]
struct Way {
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
    shut: bool,
    moved: u64,
}

impl Stream {
    async fn run(mut self, mut visit: Visit, to: &Destination) {
        let mut out = Way::default();
        if self.worker.shared.settings.egress.strict_names {
            match self.inspect(&mut out, &mut visit, to).await {
                Opening::Opaque => {}
                Opening::Http => return visit.refused(&hidden()),
                Opening::Refused(refusal) => return visit.refused(&refusal),
                Opening::Over(end) => return visit.end = Some(end),
            }
        }
        visit.end = Some(self.pump(&mut out, &mut visit).await);
    }

    /// Looks at what the client says first.
    async fn inspect(&mut self, out: &mut Way, visit: &mut Visit, to: &Destination) -> Opening {
        let Self { io, upstream, worker, limits } = self;
        let mut deadline = Deadline::new(limits.idle);
        let mut listener = Listener {
            worker,
            client: io,
            buffer: &mut out.bytes,
            sent: 0,
            upstream,
            deadline: &mut deadline,
            limits,
            visit,
        };
        let opening = listener.listen(&to.host).await;
        out.at = listener.sent;
        opening
    }

    /// Moves bytes both ways; gives how it ended.
    async fn pump(&mut self, out: &mut Way, visit: &mut Visit) -> EgressEnd {
        let Self { io, upstream, worker, limits } = self;
        let until = limits.until;
        let mut deadline = Deadline::new(limits.idle);
        let mut back = Way::default();
        let mut moved = 0;
        let end = poll_fn(|cx| {
            if worker.shared.is_killed() {
                return Poll::Ready(EgressEnd::Drained);
            }
            if matches!(out.poll(worker, io, upstream, cx), Poll::Ready(Err(()))) {
                return Poll::Ready(EgressEnd::ClientReset);
            }
            if matches!(back.poll(worker, upstream, io, cx), Poll::Ready(Err(()))) {
                return Poll::Ready(EgressEnd::UpstreamReset);
            }
            let all = visit.sent + out.moved + back.moved;
            if limits.bytes > 0 && all > limits.bytes {
                return Poll::Ready(EgressEnd::Bytes);
            }
            if out.shut && back.shut {
                return Poll::Ready(EgressEnd::Complete);
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Poll::Ready(EgressEnd::Lifetime);
            }
            if all > moved {
                moved = all;
                let next = now + limits.idle;
                deadline.set(until.map_or(next, |until| until.min(next)));
            }
            deadline.poll(cx).map(|()| {
                let late = until.is_some_and(|until| Instant::now() >= until);
                if late { EgressEnd::Lifetime } else { EgressEnd::Idle }
            })
        })
        .await;
        visit.sent += out.moved;
        visit.received += back.moved;
        end
    }
}

impl Way {
    fn poll<R, W>(
        &mut self,
        worker: &Worker,
        from: &mut R,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, rest)).map_err(|_| ())?;
                self.at += n;
                self.moved += n as u64;
            }
            self.bytes.clear();
            self.at = 0;
            if self.ended {
                if !self.shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| ())?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| ())?;
            ready!(poll_read(worker, from, &mut self.bytes, cx)).map_err(|_| ())?;
            self.ended = self.bytes.is_empty();
        }
    }
}
