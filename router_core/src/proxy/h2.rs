//! HTTP/2 with prior knowledge (h2c): hyper frames it, the same doors serve it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::limits;
use crate::net::deadline::Deadline;
use crate::net::pipe;
use crate::net::rewind::Rewind;
use crate::proxy::client::Client;
use crate::proxy::inbound::{FieldsRef, Inbound};
use crate::proxy::respond::{self, Failure};
use crate::proxy::routes;
use crate::proxy::server::{self, Door, Memory};
use crate::proxy::upstream::LocalExecutor;
use crate::proxy::worker::Worker;

/// Streams that one connection may have open: an agent's parallel calls, not a flood.
pub const STREAMS: u32 = 256;
/// Streams reset before they were served (rapid reset, CVE-2023-44487).
pub const PENDING_RESETS: usize = 20;

/// Serves one HTTP/2 connection to its end; `first` has been read from it already.
pub async fn serve(worker: Rc<Worker>, tcp: TcpStream, first: Vec<u8>, peer: SocketAddr, door: Door) {
    let io = TokioIo::new(Rewind::new(tcp, first));
    let service_worker = Rc::clone(&worker);
    let service = service_fn(move |request| {
        let worker = Rc::clone(&service_worker);
        async move { Ok::<_, Infallible>(answer(worker, request, (peer, door)).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits::HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .keep_alive_interval(Duration::from_secs(30))
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    std::future::poll_fn(|cx| {
        if worker.shared.is_draining() && !leaving {
            leaving = true;
            connection.as_mut().graceful_shutdown();
        }
        // A connection error concerns this client alone, and it is gone.
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// The body of an HTTP/2 answer. (The box asks for nothing but a thread of its own: the pipe stays on this one.)
type Answer = http::Response<AnswerBody>;

/// Either a call's pipe or a short text.
pub enum AnswerBody {
    /// A call writes it.
    Pipe(pipe::Reader),
    /// Known whole.
    Text(UnsyncBoxBody<Bytes, Infallible>),
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = pipe::Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, pipe::Broken>>> {
        match self.get_mut() {
            Self::Pipe(reader) => Pin::new(reader).poll_frame(cx),
            Self::Text(text) => Pin::new(text).poll_frame(cx).map_err(|never| match never {}),
        }
    }
}

async fn answer(worker: Rc<Worker>, request: http::Request<Incoming>, from: (SocketAddr, Door)) -> Answer {
    let (parts, incoming) = request.into_parts();
    let (body, memory) = match read_body(&worker, incoming).await {
        Ok(read) => read,
        Err(e) => {
            let dialect = routes::dialect(parts.uri.path(), parts.headers.contains_key("anthropic-version"));
            let failure = Failure::from(&e);
            return text(failure.status, respond::body(&failure, dialect, ""));
        }
    };
    let (client, started) = Client::h2();
    tokio::task::spawn_local(async move {
        let mut client = client;
        let waker = std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let _enlisted = worker.enlist(&waker);
        let mut deadline = Deadline::new(worker.shared.settings.timeouts.client_idle);
        let inbound = Inbound {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            fields: FieldsRef::H2(&parts.headers),
            body: &body,
        };
        let answer = server::dispatch(&worker, &mut client, &mut deadline, &inbound, from).await;
        drop((body, memory, parts));
        if let Some(answer) = answer {
            answer.deliver(&mut client, &mut deadline).await;
        }
    });
    match started.await {
        Ok((status, fields, reader)) => {
            let mut response = http::Response::new(AnswerBody::Pipe(reader));
            *response.headers_mut() = fields;
            *response.status_mut() =
                http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
            response
        }
        // The call ended without an answer: only a client that left makes it do so.
        Err(_) => text(499, String::new()),
    }
}

/// Reads a request's body, under the same bounds as over HTTP/1.1.
async fn read_body(worker: &Rc<Worker>, mut incoming: Incoming) -> Result<(Vec<u8>, Memory)> {
    let settings = &worker.shared.settings;
    let mut memory = Memory::new(worker);
    let mut body = Vec::new();
    loop {
        let frame =
            timeout(settings.timeouts.body, incoming.frame()).await.map_err(|_| server::too_slow())?;
        let Some(frame) = frame else { return Ok((body, memory)) };
        let frame = frame.map_err(|_| Error::bad_request("the request body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = body.len() + data.len();
        if length > settings.body_limit {
            return Err(server::too_large(length as u64, settings.body_limit));
        }
        memory.add(data.len())?;
        body.extend_from_slice(&data);
    }
}

fn text(status: u16, body: String) -> Answer {
    let mut response =
        http::Response::new(AnswerBody::Text(UnsyncBoxBody::new(Full::new(Bytes::from(body)))));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
    response
}
