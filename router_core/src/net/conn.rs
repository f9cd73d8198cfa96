//! A byte stream to a peer, plain or TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to an upstream.
#[derive(Debug)]
pub enum Conn {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Conn {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Reads what has arrived, at most `buf.len()` bytes; 0 at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        match self {
            Self::Plain(tcp) => ready!(Pin::new(tcp).poll_read(cx, &mut buf))?,
            Self::Tls(tls) => ready!(Pin::new(tls).poll_read(cx, &mut buf))?,
        }
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Writes what fits now of `pieces`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match (self, pieces) {
            // send(2) costs less than writev(2).
            (Self::Plain(tcp), [piece]) => Pin::new(tcp).poll_write(cx, piece),
            (Self::Plain(tcp), _) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            (Self::Tls(tls), _) => Pin::new(tls).poll_write_vectored(cx, pieces),
        }
    }

    /// Pushes buffered TLS records out; nothing to do on TCP.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Whether an idle connection has become readable: the peer closed it, or sent bytes nobody asked for.
    /// (TLS session tickets are read and kept; they make nothing stale.)
    pub fn is_stale(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll_read(cx, &mut [0; 1]).is_ready()
    }

    /// Whether the peer's kernel refuses what was written, as it does (with RST, RFC 9293 §3.10.7.4) once its
    /// program has closed: then nobody has read it. A close in good order may come first, so `wait` for it.
    pub async fn was_refused(&self, wait: Duration) -> bool {
        // The timeout is the answer "no".
        let _ = tokio::time::timeout(wait, self.tcp().ready(Interest::ERROR)).await;
        !matches!(self.tcp().take_error(), Ok(None))
    }

    /// Acknowledges what was read at once, so that an upstream with Nagle's algorithm on sends its next
    /// small segment without waiting for our delayed ACK (RFC 1122 §4.2.3.2). Linux clears it by itself.
    pub fn quick_ack(&self) {
        // A refusal costs latency only.
        let _ = SockRef::from(self.tcp()).set_tcp_quickack(true);
    }
}

/// Makes dropping the connection send RST: the peer stops at once instead of writing into a void.
pub fn reset_on_drop(tcp: &TcpStream) {
    // A refusal leaves the ordinary FIN, which the peer notices at its next write.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Conn::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
