//! The floor: the least a reverse proxy can do, two receives and two sends a call.
//!
//! It swaps the credential, pools upstream connections and forwards every read as one write. It checks
//! nothing, bounds nothing but its buffers and is the kernel's share of what any proxy costs.

use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::net::sockopt;

use crate::args::{Args, Fallible};
use crate::http::{self, Body};
use crate::poll::{self, Interest, LISTENER, Poll, READ_BYTES, Slab, Token};

const CREDENTIAL: &[u8] = b"Bearer sk-upstream-secret";

/// Serves until it is killed.
pub fn run(mut args: Args) -> Fallible<()> {
    let (port, upstream) = (args.required("--port")?, args.required("--upstream")?);
    let quickack = args.flag("--quickack");
    args.finish()?;
    let (poll, listener) = (Poll::new()?, poll::listen(port)?);
    poll.add(&listener, LISTENER, Interest::Read)?;
    Floor { poll, listener, upstream, quickack, sides: Slab::new(), idle: Vec::new() }.serve()
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    upstream: u16,
    /// Re-arms `TCP_QUICKACK` around every upstream read, so that a sender with Nagle's algorithm never waits.
    quickack: bool,
    sides: Slab<Side>,
    /// Upstream connections without a call, the latest used last.
    idle: Vec<Token>,
}

/// One connection; a call joins two of them.
struct Side {
    socket: TcpStream,
    peer: Option<Token>,
    is_upstream: bool,
    /// A head that is not complete.
    partial: Vec<u8>,
    /// Where the message being read ends, once its head has been seen.
    body: Option<Body>,
    /// Bytes the socket did not take yet.
    unsent: Vec<u8>,
}

impl Floor {
    fn serve(mut self) -> Fallible<()> {
        let mut ready = Vec::with_capacity(256);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.poll.wait(&mut ready, None)?;
            for event in &ready {
                match event.data.u64() {
                    LISTENER => {
                        while let Some(socket) = poll::accept(&self.listener) {
                            self.adopt(socket, false)?;
                        }
                    }
                    token => {
                        if self.step(token, &mut buffer).is_none() {
                            self.end(token);
                        }
                    }
                }
            }
        }
    }

    fn adopt(&mut self, socket: TcpStream, is_upstream: bool) -> Fallible<Token> {
        let (partial, unsent) = (Vec::new(), Vec::new());
        let token = self.sides.insert(Side { socket, peer: None, is_upstream, partial, body: None, unsent });
        if let Some(side) = self.sides.get(token) {
            self.poll.add(&side.socket, token, Interest::Read)?;
        }
        Ok(token)
    }

    /// Serves one wake-up; `None` when the connection is over.
    fn step(&mut self, token: Token, buffer: &mut [u8]) -> Option<()> {
        let Some(side) = self.sides.get(token) else { return Some(()) };
        if !side.unsent.is_empty() {
            return self.resume(token);
        }
        let rearm = self.quickack && side.is_upstream;
        if rearm {
            sockopt::set_tcp_quickack(&side.socket, true).ok()?;
        }
        let len = match side.socket.read(buffer) {
            Ok(0) => return None,
            Ok(len) => len,
            Err(error) => return (error.kind() == ErrorKind::WouldBlock).then_some(()),
        };
        if rearm {
            sockopt::set_tcp_quickack(&side.socket, true).ok()?;
        }
        let bytes = buffer.get_mut(..len)?;
        if side.is_upstream { self.response(token, bytes) } else { self.request(token, bytes) }
    }

    /// Bytes from a client: forwarded as they come, once the head is complete.
    fn request(&mut self, token: Token, bytes: &mut [u8]) -> Option<()> {
        let side = self.sides.get(token)?;
        if let (Some(body), Some(upstream)) = (&mut side.body, side.peer) {
            body.feed(bytes, &mut |_| {});
            if body.is_done() {
                side.body = None;
            }
            return self.send(upstream, &[bytes]);
        }
        let mut joined = std::mem::take(&mut side.partial);
        let message = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &mut joined
        };
        let Some(head_len) = http::head_len(message) else {
            side.partial = message.to_vec();
            return Some(());
        };
        let (head, rest) = message.split_at_mut(head_len);
        let mut body = Body::of(head).ok()?;
        body.feed(rest, &mut |_| {});
        side.body = (!body.is_done()).then_some(body);
        let credential = http::header(head, "authorization")?;
        let upstream = match self.idle.pop() {
            Some(upstream) => upstream,
            None => self.adopt(poll::dial(self.upstream).ok()?, true).ok()?,
        };
        self.sides.get(token)?.peer = Some(upstream);
        self.sides.get(upstream)?.peer = Some(token);
        let (before, after) = (head.get(..credential.start)?, head.get(credential.end..)?);
        self.send(upstream, &[before, CREDENTIAL, after, rest])
    }

    /// Bytes from an upstream: forwarded at once, and watched for the response's end.
    fn response(&mut self, token: Token, bytes: &mut [u8]) -> Option<()> {
        let side = self.sides.get(token)?;
        let client = side.peer?;
        let held = std::mem::take(&mut side.partial);
        let mut start = 0;
        if side.body.is_none() {
            let Some((body, head_len)) = opened(&held, bytes) else {
                side.partial = [&held, &*bytes].concat();
                return Some(());
            };
            side.body = Some(body);
            start = head_len;
        }
        let body = side.body.as_mut()?;
        body.feed(bytes.get_mut(start..)?, &mut |_| {});
        let done = body.is_done();
        let pieces: &[&[u8]] = if held.is_empty() { &[bytes] } else { &[&held, bytes] };
        self.send(client, pieces)?;
        if done {
            self.part(client, token)?;
        }
        Some(())
    }

    /// Ends a call: the client may ask again, the upstream is free.
    fn part(&mut self, client: Token, upstream: Token) -> Option<()> {
        let side = self.sides.get(client)?;
        side.peer = None;
        if !side.unsent.is_empty() {
            self.watch(Some(upstream), Interest::Read);
        }
        let side = self.sides.get(upstream)?;
        (side.peer, side.body) = (None, None);
        self.idle.push(upstream);
        Some(())
    }

    /// Writes the pieces; what the socket refuses is kept, and the other side waits for it.
    fn send(&mut self, token: Token, pieces: &[&[u8]]) -> Option<()> {
        let side = self.sides.get(token)?;
        let slices: [IoSlice; 4] =
            std::array::from_fn(|at| IoSlice::new(pieces.get(at).unwrap_or(&&b""[..])));
        let sent = match side.socket.write_vectored(slices.get(..pieces.len())?) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return None,
        };
        let mut skip = sent;
        for piece in pieces {
            side.unsent.extend_from_slice(piece.get(skip.min(piece.len())..)?);
            skip = skip.saturating_sub(piece.len());
        }
        if !side.unsent.is_empty() {
            let peer = side.peer;
            self.poll.change(&side.socket, token, Interest::Write).ok()?;
            self.watch(peer, Interest::Nothing);
        }
        Some(())
    }

    /// There is room again.
    fn resume(&mut self, token: Token) -> Option<()> {
        let side = self.sides.get(token)?;
        let sent = match side.socket.write(&side.unsent) {
            Ok(len) => len,
            Err(error) => return (error.kind() == ErrorKind::WouldBlock).then_some(()),
        };
        side.unsent.drain(..sent);
        if side.unsent.is_empty() {
            let peer = side.peer;
            self.watch(Some(token), Interest::Read);
            self.watch(peer, Interest::Read);
        }
        Some(())
    }

    fn watch(&mut self, token: Option<Token>, interest: Interest) {
        let Some(token) = token else { return };
        if let Some(side) = self.sides.get(token) {
            // A socket that cannot be watched is closing and says so itself.
            let _ = self.poll.change(&side.socket, token, interest);
        }
    }

    /// Closes a connection, and the one it was joined to.
    fn end(&mut self, token: Token) {
        let Some(side) = self.sides.remove(token) else { return };
        self.idle.retain(|idle| *idle != token);
        if let Some(peer) = side.peer {
            self.sides.remove(peer);
        }
    }
}

/// How the body of a response is framed and where in `bytes` it begins, once its head is complete.
fn opened(held: &[u8], bytes: &[u8]) -> Option<(Body, usize)> {
    let joined;
    let answer = if held.is_empty() {
        bytes
    } else {
        joined = [held, bytes].concat();
        &joined
    };
    let len = http::head_len(answer)?;
    Some((Body::of(answer.get(..len)?).ok()?, len.checked_sub(held.len())?))
}
