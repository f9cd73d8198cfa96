//! The same exchange over HTTP/2: one connection per upstream and thread, framed by hyper.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;

use super::fields::{forward_fields, keep_fields};
use super::{Outbound, Response, Source, dial};
use crate::error::{Error, Kind, Result, Step};
use crate::gate::Permit;
use crate::limits;
use crate::proxy::inbound::FieldsRef;
use crate::proxy::worker::Worker;

/// Sends one request and reads the answer's head.
pub(super) async fn send(worker: &Rc<Worker>, permit: &mut Permit, out: &Outbound<'_>) -> Result<Response> {
    let protocol =
        |e: &dyn std::fmt::Display| Error::new(Kind::Upstream(Step::Protocol), format!("HTTP/2: {e}"));
    let mut sender = sender(worker, out).await?;
    let scheme = if out.provider.origin().tls { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}", out.provider.origin().authority, out.target);
    let mut request = http::Request::builder().method(out.method).uri(uri).version(http::Version::HTTP_2);
    forward_fields(out, |name, value| {
        if name != "host"
            && let Some(map) = request.headers_mut()
            && let (Ok(name), Ok(value)) =
                (http::HeaderName::from_bytes(name.as_bytes()), http::HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    });
    let mut body = Vec::with_capacity(out.edits.len_of(out.body));
    out.edits.pieces(out.body).for_each(|piece| body.extend_from_slice(piece));
    let request = request.body(Full::new(Bytes::from(body))).map_err(|e| protocol(&e))?;
    permit.mark_sent();
    let response = sender.send_request(request).await.map_err(|e| protocol(&e))?;
    let (parts, incoming) = response.into_parts();
    let mut lines = worker.take_buffer();
    let (media, encoded) = keep_fields(FieldsRef::H2(&parts.headers), &mut lines);
    Ok(Response {
        status: parts.status.as_u16(),
        lines,
        media,
        encoded,
        length: incoming.size_hint().exact(),
        body: Source::H2(incoming),
    })
}

/// The thread's HTTP/2 connection to the upstream, made when there is none that is usable.
async fn sender(worker: &Rc<Worker>, out: &Outbound<'_>) -> Result<SendRequest<Full<Bytes>>> {
    let slot = worker.pool.h2.get(out.upstream);
    if let Some(sender) = slot.and_then(|s| s.borrow().clone()).filter(|s| !s.is_closed()) {
        return Ok(sender);
    }
    let conn = dial(worker, out.provider).await?;
    let (sender, driver) = hyper::client::conn::http2::Builder::new(LocalExecutor)
        .max_header_list_size(u32::try_from(limits::HEAD_BYTES).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(conn))
        .await
        .map_err(|e| Error::new(Kind::Upstream(Step::Protocol), format!("HTTP/2 handshake: {e}")))?;
    tokio::task::spawn_local(async move {
        // The connection's end shows in the senders.
        let _ = driver.await;
    });
    if let Some(slot) = slot {
        *slot.borrow_mut() = Some(sender.clone());
    }
    Ok(sender)
}

/// Appends the content of the next frame; ready with `true` at the end.
pub(super) fn poll_incoming(
    incoming: &mut Incoming,
    cx: &mut Context<'_>,
    content: &mut Vec<u8>,
) -> Poll<Result<bool>> {
    match ready!(std::pin::Pin::new(incoming).poll_frame(cx)) {
        None => Poll::Ready(Ok(true)),
        Some(Ok(frame)) => {
            if let Ok(data) = frame.into_data() {
                content.extend_from_slice(&data);
            }
            Poll::Ready(Ok(false))
        }
        Some(Err(e)) => Poll::Ready(Err(Error::new(Kind::Upstream(Step::Reset), format!("HTTP/2: {e}")))),
    }
}

/// Runs hyper's tasks on the serving thread; they end with their connection.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
