//! Relays cold routes to the control plane over a Unix socket, behind the admin token.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::ids::TraceId;
use crate::proxy::client::{Body, Client};
use crate::proxy::inbound::Inbound;
use crate::proxy::local::authorize;
use crate::proxy::respond;
use crate::proxy::worker::Worker;
use crate::telemetry::metrics::Route;
use crate::wire::body::Walker;
use crate::wire::head;

/// How long the control plane may take to start serving, and to answer.
const START: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
/// Largest cold answer.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Serves one cold request.
pub async fn serve(
    worker: &Rc<Worker>,
    client: &mut Client,
    inbound: &Inbound<'_>,
    peer: SocketAddr,
    trace: TraceId,
) {
    let shared = &worker.shared;
    shared.metrics.http_begun();
    let status = match authorize(shared, inbound, peer, false) {
        Err((status, message)) => {
            respond::plain(client, status, "text/plain; charset=utf-8", message.as_bytes(), trace.as_str());
            status
        }
        Ok(()) => match timeout(ANSWER, relay(worker, client, inbound, trace)).await {
            Ok(Ok(status)) => status,
            Ok(Err(message)) => {
                respond::flat(client, 502, &message, trace.as_str());
                502
            }
            Err(_) => {
                respond::flat(client, 504, "the control plane did not answer in time", trace.as_str());
                504
            }
        },
    };
    shared.metrics.http_done(Route::Cold, status);
}

async fn relay(
    worker: &Worker,
    client: &mut Client,
    inbound: &Inbound<'_>,
    trace: TraceId,
) -> Result<u16, String> {
    let failed = |e: std::io::Error| format!("the control plane is not reachable: {e}");
    let mut stream = connect(worker).await.map_err(failed)?;
    let query = inbound.query.map(|q| format!("?{q}")).unwrap_or_default();
    let head = format!(
        "{} {}{query} HTTP/1.1\r\nhost: kars\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\nx-kars-trace-id: {}\r\n\r\n",
        inbound.method,
        inbound.path,
        inbound.body.len(),
        trace.as_str()
    );
    stream.write_all(head.as_bytes()).await.map_err(failed)?;
    stream.write_all(inbound.body).await.map_err(failed)?;
    let mut bytes = Vec::new();
    let bound = u64::try_from(ANSWER_BYTES).unwrap_or(u64::MAX);
    (&mut stream).take(bound).read_to_end(&mut bytes).await.map_err(failed)?;
    answer(client, &bytes, inbound.method, trace)
        .ok_or_else(|| "the control plane's answer is not readable".to_owned())
}

fn answer(client: &mut Client, bytes: &[u8], method: &str, trace: TraceId) -> Option<u16> {
    let head = head::response(bytes, method).ok()??;
    let mut content = Vec::new();
    let mut walker = Walker::new(head.framing);
    walker.feed(bytes.get(head.len..)?, |run| content.extend_from_slice(run)).ok()?;
    let kind = head.fields.value("content-type").unwrap_or(b"application/json").to_vec();
    client.start(head.status, Body::Length(content.len() as u64), |out| {
        out.field("content-type", &kind);
        out.field("x-kars-trace-id", trace.as_str().as_bytes());
    });
    client.push(&content);
    client.end();
    Some(head.status)
}

/// Connects to the control plane; it is asked to start when nobody serves yet, or nobody does any more.
async fn connect(worker: &Worker) -> std::io::Result<UnixStream> {
    let shared = &worker.shared;
    let until = Instant::now() + START;
    loop {
        let mut failure = std::io::Error::from(std::io::ErrorKind::TimedOut);
        if let Some(path) = shared.cold_socket.load_full() {
            match UnixStream::connect(path.as_str()).await {
                Ok(stream) => return Ok(stream),
                Err(e) => failure = e,
            }
            shared.cold_socket.store(None);
        }
        if Instant::now() >= until {
            return Err(failure);
        }
        shared.cold_wanted.store(true, Ordering::Relaxed);
        shared.events.wake();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
