//! One HTTP/1.1 exchange of the router's own with a destination: a request out, an answer in, then the connection ends.

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::error::{Error, Kind, Result, Step};
use crate::net::conn::{Conn, reset_on_drop};
use crate::net::tls::Tls;
use crate::proxy::worker::{Shared, Worker};
use crate::wire::authority::Url;
use crate::wire::body::Walker;
use crate::wire::head;

/// What is asked of the destination. The names and values of `fields` are valid ones (RFC 9110 §5); those of framing, of
/// the connection, `host` and `accept-encoding` are not among them.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Where it goes.
    pub url: &'a Url<'a>,
    /// Header fields.
    pub fields: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// An answer's head, freed from the buffer it was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The fields, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
}

/// What an exchange has moved so far, in bytes of HTTP.
#[derive(Debug, Default, Clone, Copy)]
pub struct Traffic {
    /// To the destination.
    pub sent: u64,
    /// From the destination.
    pub received: u64,
    /// Both ways together at most; 0 for no bound.
    pub max: u64,
    /// When the answer's head was there.
    pub first_byte: Option<Instant>,
}

/// An exchange whose answer has begun. Dropping it resets the connection.
#[derive(Debug)]
pub struct Exchange {
    conn: Conn,
    walker: Walker,
    /// Bytes read behind the head.
    rest: Vec<u8>,
}

impl Head {
    /// The first value of `name` (lower case).
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// Where the answer redirects to, when it does.
    pub fn redirect(&self) -> Option<&[u8]> {
        self.value("location").filter(|_| matches!(self.status, 301 | 302 | 303 | 307 | 308))
    }
}

impl Traffic {
    /// Whether so many bytes more may move.
    fn allows(&self, more: usize) -> Result<()> {
        let got = self.sent.saturating_add(self.received).saturating_add(more as u64);
        let max = self.max;
        if max == 0 || got <= max {
            return Ok(());
        }
        Err(Error::new(Kind::TooLarge { got, max }, format!("it moves more than the {max} bytes allowed")))
    }

    fn receive(&mut self, bytes: usize) -> Result<()> {
        self.allows(bytes)?;
        self.received = self.received.saturating_add(bytes as u64);
        Ok(())
    }
}

/// Makes a dialled socket what the URL's scheme asks for: as it is, or TLS with the URL's host as its name. Dropping the
/// future resets the connection.
///
/// # Errors
/// [`Kind::Config`] without certificate authorities; else [`Step::Tls`].
pub async fn secure(worker: &Worker, url: &Url<'_>, tcp: TcpStream) -> Result<Conn> {
    reset_on_drop(&tcp);
    if !url.tls {
        return Ok(Conn::Plain(tcp));
    }
    let host = &url.authority.host;
    // As certificates have it: an address without brackets.
    let name = host.ip().map_or_else(|| host.to_string(), |ip| ip.to_string());
    let tls = tls(&worker.shared).await?;
    let shaken = timeout(worker.shared.settings.timeouts.tls, tls.connect(&name, tcp)).await;
    let late = |_| Error::new(Kind::Timeout(Step::Tls), format!("TLS handshake with {host} timed out"));
    Ok(Conn::Tls(Box::new(shaken.map_err(late)??)))
}

/// TLS that offers HTTP/1.1, made when it is first needed: reading the system's authorities takes milliseconds and memory.
async fn tls(shared: &Arc<Shared>) -> Result<Tls> {
    if let Some(tls) = shared.egress_tls.get() {
        return Ok(tls.clone());
    }
    let loaded = match &shared.tls {
        Some(tls) if !shared.settings.upstream_h2 => tls.clone(),
        _ => {
            let shared = Arc::clone(shared);
            let load = move || Tls::load(shared.settings.upstream_ca.as_deref(), false);
            let lost = |e| Error::new(Kind::Bug, format!("loading certificate authorities: {e}"));
            tokio::task::spawn_blocking(load).await.map_err(lost)??
        }
    };
    Ok(shared.egress_tls.get_or_init(|| loaded).clone())
}

/// Sends a request and reads the answer's head; interim answers are passed over. Writing and reading go on together, since
/// a server may answer without reading all of a request. Dropping the future resets the connection.
pub async fn begin(
    worker: &Worker,
    mut conn: Conn,
    request: &Request<'_>,
    traffic: &mut Traffic,
) -> Result<(Head, Exchange)> {
    let bytes = write(request);
    traffic.allows(bytes.len())?;
    let mut buffer = Vec::new();
    let mut unsent = bytes.as_slice();
    let (head, framing) = poll_fn(|cx| {
        match poll_write(&mut conn, cx, &mut unsent, traffic) {
            // What it had to say may have been said before it stopped listening.
            Poll::Ready(Err(_)) => unsent = &[],
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        loop {
            let n = ready!(poll_read(worker, &mut conn, cx, &mut buffer))?;
            if n == 0 {
                let detail = "the connection ended before the answer's head did";
                return Poll::Ready(Err(Error::new(Kind::Upstream(Step::Reset), detail)));
            }
            traffic.receive(n)?;
            if let Some(found) = parse(&mut buffer, request.method)? {
                return Poll::Ready(Ok(found));
            }
        }
    })
    .await?;
    traffic.first_byte = Some(Instant::now());
    Ok((head, Exchange { conn, walker: Walker::new(framing), rest: buffer }))
}

impl Exchange {
    /// Appends the content that has arrived to `content`; `true` once the answer has ended. Nothing is lost when the
    /// future is dropped between two reads.
    pub async fn more(
        &mut self,
        worker: &Worker,
        content: &mut Vec<u8>,
        traffic: &mut Traffic,
    ) -> Result<bool> {
        if self.rest.is_empty() && !self.walker.done() {
            let Self { conn, rest, .. } = self;
            let n = poll_fn(|cx| poll_read(worker, conn, cx, rest)).await?;
            traffic.receive(n)?;
            if n == 0 {
                let detail = "the connection ended before the answer did";
                let broken = || Error::new(Kind::Upstream(Step::Reset), detail);
                return if self.walker.may_end() { Ok(true) } else { Err(broken()) };
            }
        }
        let fed = self.walker.feed(&self.rest, |run| content.extend_from_slice(run)).map_err(protocol)?;
        self.rest.clear();
        Ok(fed.done)
    }
}

/// The request as it goes out.
fn write(request: &Request<'_>) -> Vec<u8> {
    let Request { method, url, fields, body } = *request;
    let default = if url.tls { 443 } else { 80 };
    let port = Some(url.port()).filter(|port| *port != default);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let host = &url.authority.host;
    // A coded answer could not be shown as text.
    let mut head = format!(
        "{method} {} HTTP/1.1\r\nhost: {host}{port}\r\nconnection: close\r\naccept-encoding: identity\r\n",
        url.target
    );
    for (name, value) in fields {
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head.push_str("content-length: ");
        head.push_str(itoa::Buffer::new().format(body.len()));
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn poll_write(
    conn: &mut Conn,
    cx: &mut Context<'_>,
    unsent: &mut &[u8],
    traffic: &mut Traffic,
) -> Poll<std::io::Result<()>> {
    while !unsent.is_empty() {
        let n = ready!(conn.poll_write(cx, &[IoSlice::new(unsent)]))?;
        if n == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
        }
        traffic.sent = traffic.sent.saturating_add(n as u64);
        *unsent = unsent.get(n..).unwrap_or(&[]);
    }
    conn.poll_flush(cx)
}

fn poll_read(
    worker: &Worker,
    conn: &mut Conn,
    cx: &mut Context<'_>,
    buffer: &mut Vec<u8>,
) -> Poll<Result<usize>> {
    worker.with_scratch(|scratch| match ready!(conn.poll_read(cx, scratch)) {
        Ok(n) => {
            buffer.extend_from_slice(scratch.get(..n).unwrap_or(&[]));
            Poll::Ready(Ok(n))
        }
        Err(e) => Poll::Ready(Err(Error::new(Kind::Upstream(Step::Reset), format!("read: {e}")))),
    })
}

/// A final head at the start of the buffer, which is left with what follows it.
fn parse(buffer: &mut Vec<u8>, method: &str) -> Result<Option<(Head, crate::wire::body::Framing)>> {
    loop {
        let Some(head) = head::response(buffer, method).map_err(protocol)? else { return Ok(None) };
        if head.status == 101 {
            return Err(protocol(Error::bad_request("it switches protocols unasked")));
        }
        let field = |f: head::Field<'_>| (f.name.to_ascii_lowercase(), f.value.to_vec());
        let found = (head.status >= 200).then(|| {
            let fields = head.fields.iter().map(field).collect();
            (Head { status: head.status, fields }, head.framing)
        });
        let len = head.len;
        buffer.drain(..len);
        if found.is_some() {
            return Ok(found);
        }
    }
}

fn protocol(e: Error) -> Error {
    match e.kind() {
        Kind::Upstream(_) => e,
        _ => Error::new(Kind::Upstream(Step::Protocol), format!("the answer is not acceptable: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::authority;

    fn text(method: &str, url: &str, body: &[u8]) -> String {
        let url = authority::url(url).unwrap();
        let fields = [("x-a".to_owned(), "1".to_owned())];
        String::from_utf8(write(&Request { method, url: &url, fields: &fields, body })).unwrap()
    }

    #[test]
    fn a_request_names_its_host_and_frames_its_body() {
        assert_eq!(
            text("GET", "http://a.example/p?q=1", b""),
            "GET /p?q=1 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\naccept-encoding: identity\r\nx-a: 1\r\n\r\n"
        );
        assert!(text("GET", "https://a.example:443", b"").contains("host: a.example\r\n"));
        assert!(text("GET", "https://a.example:80", b"").contains("host: a.example:80\r\n"));
        assert!(text("GET", "http://[::1]:8080", b"").starts_with("GET / HTTP/1.1\r\nhost: [::1]:8080\r\n"));
        assert!(text("POST", "http://a.example", b"").ends_with("content-length: 0\r\n\r\n"));
        assert!(text("DELETE", "http://a.example", b"xy").ends_with("content-length: 2\r\n\r\nxy"));
    }

    #[test]
    fn an_interim_head_is_passed_over_and_a_switch_refused() {
        let mut buffer =
            b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 2\r\n\r\nhi"
                .to_vec();
        let (head, _) = parse(&mut buffer, "GET").unwrap().unwrap();
        assert_eq!((head.status, head.value("a"), buffer.as_slice()), (200, Some(&b"b"[..]), &b"hi"[..]));
        let error = parse(&mut b"HTTP/1.1 101 Switch\r\n\r\n".to_vec(), "GET").unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream(Step::Protocol));
    }

    #[test]
    fn traffic_stops_at_its_bound() {
        let mut traffic = Traffic { max: 10, sent: 4, ..Traffic::default() };
        traffic.receive(6).unwrap();
        assert_eq!(traffic.receive(1).unwrap_err().kind(), Kind::TooLarge { got: 11, max: 10 });
        Traffic::default().receive(usize::MAX).unwrap();
    }
}
