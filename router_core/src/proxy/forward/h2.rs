//! CONNECT over HTTP/2 with prior knowledge (RFC 9113 §8.5): each stream is a tunnel.
//!
//! The frames are the `h2` crate's. (hyper's upgrades end a stream in good order when its tunnel is dropped, and read a
//! cancelled one as ended: a cut tunnel would pass for a whole one.)

mod stream;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::gate::egress::Passage;
use crate::ids::{Destination, EgressDoor};
use crate::limits;
use crate::net::deadline::Deadline;
use crate::net::rewind::Rewind;
use crate::proxy::forward::refuse::{self, Answer};
use crate::proxy::forward::visit::Visit;
use crate::proxy::forward::{Conn, Place, connect, full, tunnel_limits};
use crate::proxy::h2::{PENDING_RESETS, STREAMS};
use crate::proxy::worker::Worker;

use stream::Stream;

/// Bytes that a client may send ahead in one tunnel, and in all of a connection: a destination that reads nothing holds
/// its own tunnel up, and sixteen of them are needed to hold the connection up.
const STREAM_WINDOW: u32 = 256 * 1024;
/// See [`STREAM_WINDOW`].
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;
/// Bytes of one tunnel that wait for the client's socket.
const SEND_BYTES: usize = 64 * 1024;

/// How such a connection begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub async fn serve(conn: Conn) {
    let Conn { worker, tcp, buffer, deadline } = conn;
    let shaking = Builder::new()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits::HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BYTES)
        .handshake::<_, Bytes>(Rewind::new(tcp, buffer));
    // A client that breaks the protocol concerns itself alone, here and below, and is gone.
    let Ok(Ok(connection)) = timeout(worker.shared.settings.egress.head, shaking).await else { return };
    let mut tunnels = JoinSet::new();
    serve_streams(&worker, connection, &mut tunnels, deadline).await;
    // The connection is closed; its tunnels see that and end.
    while tunnels.join_next().await.is_some() {}
}

async fn serve_streams(
    worker: &Rc<Worker>,
    mut connection: Connection<Rewind, Bytes>,
    tunnels: &mut JoinSet<()>,
    mut deadline: Deadline,
) {
    let mut leaving = false;
    poll_fn(|cx| {
        loop {
            while matches!(tunnels.poll_join_next(cx), Poll::Ready(Some(_))) {}
            let shared = &worker.shared;
            if shared.is_draining() && !leaving {
                leaving = true;
                connection.graceful_shutdown();
            }
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    tunnels.spawn_local(answer(Rc::clone(worker), request, respond));
                    continue;
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if !tunnels.is_empty() {
                deadline.set_after(shared.settings.timeouts.client_idle);
            } else if shared.is_killed() {
                return Poll::Ready(());
            }
            return deadline.poll(cx);
        }
    })
    .await;
}

/// Serves one request to the end of its tunnel.
async fn answer(worker: Rc<Worker>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let _enlisted = worker.enlist(&waker);
    let mut visit = Visit::of(&worker, EgressDoor::Connect);
    visit.trace(request.headers().get("x-kars-trace-id").map(HeaderValue::as_bytes));
    let Some(_place) = Place::take(&worker) else {
        let refusal = full(&worker);
        visit.refused(&refusal);
        return refuse_stream(&mut respond, &refuse::denied(&refusal, &visit));
    };
    let destination = match destination(&request, &mut visit) {
        Ok(destination) => destination,
        Err(answer) => return refuse_stream(&mut respond, &answer),
    };
    let reached = tokio::select! {
        biased;
        reached = connect::leave(&worker, &mut visit, &destination, None) => reached,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    match reached {
        Ok((passage, upstream)) => {
            let body = request.into_body();
            open(&worker, visit, (passage, upstream, destination), body, &mut respond).await;
        }
        Err(answer) => refuse_stream(&mut respond, &answer),
    }
}

async fn open(
    worker: &Worker,
    mut visit: Visit,
    reached: (Passage, TcpStream, Destination),
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
) {
    let (passage, upstream, destination) = reached;
    visit.status = 200;
    let limits = tunnel_limits(worker, &passage);
    // A stream that is reset before its tunnel begins is a client that left.
    if let Ok(send) = respond.send_response(Response::new(()), false) {
        Stream::new(body, send, upstream, limits).run(worker, visit, &destination).await;
    }
}

fn destination(request: &Request<RecvStream>, visit: &mut Visit) -> Result<Destination, Answer> {
    let mut malformed = |status: u16, what: &str| {
        visit.malformed(status, what);
        refuse::malformed(status, what, visit)
    };
    if request.method() != Method::CONNECT || request.extensions().get::<h2::ext::Protocol>().is_some() {
        let what = "over HTTP/2 the egress proxy takes CONNECT alone; send plain requests over HTTP/1.1";
        return Err(malformed(501, what));
    }
    let target = request.uri().authority().map_or("", http::uri::Authority::as_str);
    connect::destination(target).map_err(|e| malformed(400, e.detail()))
}

/// Answers without a tunnel. (A failure is a client that has left.)
fn refuse_stream(respond: &mut SendResponse<Bytes>, answer: &Answer) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    for (name, value) in &answer.fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    if let Ok(mut send) = respond.send_response(response, false) {
        // It fits into any window but one that the client has closed.
        send.reserve_capacity(answer.body.len());
        let _ = send.send_data(Bytes::from(answer.body.clone()), true);
    }
}
