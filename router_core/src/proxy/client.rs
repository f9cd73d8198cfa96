//! The answer's way back: frames content for the client's HTTP version and writes it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::net::pipe;
use crate::proxy::worker::Worker;

/// How an answer's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, all pushed by the caller.
    Length(u64),
    /// Until [`Client::end`].
    Stream,
}

/// A client that waits for one answer.
#[derive(Debug)]
pub enum Client {
    /// On its own HTTP/1.1 connection.
    H1(H1),
    /// As one HTTP/2 stream.
    H2(H2),
}

/// An HTTP/1.1 connection, answer side.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is its own fact of the exchange")]
pub struct H1 {
    /// The socket; the server reads requests from it.
    pub tcp: TcpStream,
    /// Bytes that the socket has not taken yet, from `at` on.
    out: Vec<u8>,
    at: usize,
    chunked: bool,
    /// Whether the client speaks HTTP/1.0 (no chunked coding).
    pub http10: bool,
    /// Whether the request was HEAD: the head alone goes out.
    pub head_only: bool,
    /// Whether the connection stays open after this answer.
    pub keep_alive: bool,
    committed: bool,
    watch: bool,
    worker: Rc<Worker>,
}

/// An HTTP/2 stream, answer side.
#[derive(Debug)]
pub struct H2 {
    head: Option<oneshot::Sender<(u16, HeaderMap, pipe::Reader)>>,
    body: pipe::Writer,
    reader: Option<pipe::Reader>,
}

/// An answer's head under construction.
pub enum Head<'a> {
    /// Text for HTTP/1.1.
    H1(&'a mut Vec<u8>),
    /// A map for HTTP/2.
    H2(&'a mut HeaderMap),
}

impl Head<'_> {
    /// Adds a field; one that HTTP cannot carry is left out.
    pub fn field(&mut self, name: &str, value: &[u8]) {
        match self {
            Self::H1(out) => {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
            Self::H2(map) => {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                    map.append(name, value);
                }
            }
        }
    }
}

impl Client {
    /// An HTTP/2 stream: the receiver gets status, fields and body once the answer starts.
    pub fn h2() -> (Self, oneshot::Receiver<(u16, HeaderMap, pipe::Reader)>) {
        let (head, receiver) = oneshot::channel();
        let (body, reader) = pipe::pipe();
        (Self::H2(H2 { head: Some(head), body, reader: Some(reader) }), receiver)
    }

    /// Whether a status has been given out, so that a failure can only be told inside the body.
    pub fn committed(&self) -> bool {
        match self {
            Self::H1(h1) => h1.committed,
            Self::H2(h2) => h2.head.is_none(),
        }
    }

    /// Starts the answer; `fields` adds the head's fields, framing fields are added here.
    pub fn start(&mut self, status: u16, body: Body, fields: impl FnOnce(&mut Head<'_>)) {
        match self {
            Self::H1(h1) => h1.start(status, body, fields),
            Self::H2(h2) => h2.start(status, body, fields),
        }
    }

    /// Adds content.
    pub fn push(&mut self, content: &[u8]) {
        match self {
            Self::H1(h1) => h1.push(content),
            Self::H2(h2) => h2.body.push(content),
        }
    }

    /// Ends the answer whole.
    pub fn end(&mut self) {
        match self {
            Self::H1(h1) => {
                if h1.chunked && !h1.head_only {
                    h1.reserve();
                    h1.out.extend_from_slice(b"0\r\n\r\n");
                }
                h1.chunked = false;
            }
            Self::H2(h2) => h2.body.finish(),
        }
    }

    /// Makes this the connection's last answer.
    pub fn close_after(&mut self) {
        if let Self::H1(h1) = self {
            h1.keep_alive = false;
        }
    }

    /// Ready when everything pushed has been taken by the transport.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(h1) => h1.poll_flush(cx),
            Self::H2(h2) => h2.body.poll_ready(cx).map(Ok),
        }
    }

    /// Ready when the client has left: it closed its connection (or half of it), or reset the stream.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(h1) => h1.poll_gone(cx),
            Self::H2(h2) => h2.body.poll_gone(cx),
        }
    }
}

impl H1 {
    /// A connection before its first request.
    pub fn new(tcp: TcpStream, worker: Rc<Worker>) -> Self {
        Self {
            tcp,
            out: Vec::new(),
            at: 0,
            chunked: false,
            http10: false,
            head_only: false,
            keep_alive: true,
            committed: false,
            watch: true,
            worker,
        }
    }

    /// Readies the connection for the next request; `watch` is off while the client has already sent more,
    /// since then readable does not mean gone.
    #[expect(clippy::fn_params_excessive_bools, reason = "each is its own fact of the exchange")]
    pub fn reset(&mut self, http10: bool, head_only: bool, keep_alive: bool, watch: bool) {
        self.http10 = http10;
        self.head_only = head_only;
        self.keep_alive = keep_alive;
        self.committed = false;
        self.chunked = false;
        self.watch = watch;
    }

    /// Whether an answer has been started since the last reset.
    pub fn committed(&self) -> bool {
        self.committed
    }

    /// Puts bytes out as they are, outside any answer (`100 Continue`).
    pub fn interim(&mut self, bytes: &[u8]) {
        self.reserve();
        self.out.extend_from_slice(bytes);
    }

    /// Buffers belong to the thread: one is held only while there is something to write.
    fn reserve(&mut self) {
        if self.out.capacity() == 0 {
            self.out = self.worker.take_buffer();
        }
    }

    fn start(&mut self, status: u16, body: Body, fields: impl FnOnce(&mut Head<'_>)) {
        self.reserve();
        self.committed = true;
        self.out.extend_from_slice(status_line(status));
        if status_line(status).is_empty() {
            self.out.extend_from_slice(format!("HTTP/1.1 {status} \r\n").as_bytes());
        }
        fields(&mut Head::H1(&mut self.out));
        match body {
            Body::Length(n) => {
                self.out.extend_from_slice(b"content-length: ");
                self.out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
            Body::Stream if self.http10 => self.keep_alive = false,
            Body::Stream => {
                self.chunked = true;
                self.out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
        }
        if !self.keep_alive {
            self.out.extend_from_slice(b"connection: close\r\n");
        } else if self.http10 {
            self.out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn push(&mut self, content: &[u8]) {
        if content.is_empty() || self.head_only {
            return;
        }
        self.reserve();
        if !self.chunked {
            self.out.extend_from_slice(content);
            return;
        }
        push_hex(&mut self.out, content.len());
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(content);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Ready when the socket has taken everything.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.at..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += n;
        }
        if self.out.capacity() > 0 {
            self.worker.give_buffer(std::mem::take(&mut self.out));
            self.at = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.watch {
            return Poll::Pending;
        }
        let mut byte = [0; 1];
        match ready!(self.tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
            Ok(n) if n > 0 => {
                // The next request is already here: its bytes wait in the socket until this answer ends.
                self.watch = false;
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl H2 {
    fn start(&mut self, status: u16, body: Body, fields: impl FnOnce(&mut Head<'_>)) {
        let mut map = HeaderMap::new();
        fields(&mut Head::H2(&mut map));
        if let Body::Length(n) = body {
            map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(n));
        }
        if let (Some(head), Some(reader)) = (self.head.take(), self.reader.take()) {
            // A receiver that is gone means a client that is gone: `poll_gone` tells.
            let _ = head.send((status, map, reader));
        }
    }
}

/// Lower-case hex without leading zeros, as a chunk size.
fn push_hex(out: &mut Vec<u8>, n: usize) {
    let digits = (usize::BITS - n.leading_zeros()).div_ceil(4).max(1);
    for i in (0..digits).rev() {
        let nibble = u32::try_from((n >> (4 * i)) & 0xf).unwrap_or(0);
        out.push(char::from_digit(nibble, 16).map_or(b'0', |c| c as u8));
    }
}

/// The status lines of ordinary answers; empty for the others.
fn status_line(status: u16) -> &'static [u8] {
    match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        401 => b"HTTP/1.1 401 Unauthorized\r\n",
        403 => b"HTTP/1.1 403 Forbidden\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        405 => b"HTTP/1.1 405 Method Not Allowed\r\n",
        408 => b"HTTP/1.1 408 Request Timeout\r\n",
        413 => b"HTTP/1.1 413 Content Too Large\r\n",
        429 => b"HTTP/1.1 429 Too Many Requests\r\n",
        431 => b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
        500 => b"HTTP/1.1 500 Internal Server Error\r\n",
        502 => b"HTTP/1.1 502 Bad Gateway\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\n",
        504 => b"HTTP/1.1 504 Gateway Timeout\r\n",
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::push_hex;

    #[test]
    fn chunk_sizes_have_no_leading_zeros() {
        for n in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 20] {
            let mut out = Vec::new();
            push_hex(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{n:x}"));
        }
    }
}
