//! The floor: the least a CONNECT proxy can do, by copies through one shared buffer or by splice(2).
//!
//! It dials whatever loopback port is asked for, checks nothing and keeps no half-closed tunnel: the end of either side
//! is the end of both, as soon as what that side had said is written.

mod mover;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use rustix::event::epoll::EventFlags;

use super::{ESTABLISHED, HEAD_BYTES, asked};
use crate::args::{Args, Fallible};
use crate::poll::{self, Interest, LISTENER, Poll, Slab, Token};
use mover::{Mover, Stuck};

/// Serves until it is killed.
pub fn run(mut args: Args) -> Fallible<()> {
    let port = args.required("--port")?;
    let splice = args.flag("--splice");
    args.finish()?;
    let (poll, listener) = (Poll::new()?, poll::listen(port)?);
    poll.add(&listener, LISTENER, Interest::Read)?;
    Floor { poll, listener, sides: Slab::new(), mover: Mover::new(splice) }.serve()
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    sides: Slab<Side>,
    mover: Mover,
}

/// One of the two connections of a tunnel.
struct Side {
    socket: Rc<TcpStream>,
    interest: Interest,
    peer: Option<Token>,
    /// A head that is not complete.
    head: Vec<u8>,
    /// What this side said and the other did not take yet; nothing more is read until it did.
    stuck: Option<Stuck>,
}

impl Floor {
    fn serve(mut self) -> Fallible<()> {
        let mut ready = Vec::with_capacity(256);
        loop {
            self.poll.wait(&mut ready, None)?;
            for event in &ready {
                match event.data.u64() {
                    LISTENER => {
                        while let Some(socket) = poll::accept(&self.listener) {
                            self.adopt(socket, None)?;
                        }
                    }
                    token => {
                        if self.step(token, event.flags).is_none() {
                            self.end(token);
                        }
                    }
                }
            }
        }
    }

    fn adopt(&mut self, socket: TcpStream, peer: Option<Token>) -> Fallible<Token> {
        let socket = Rc::new(socket);
        let side = Side { socket, interest: Interest::Read, peer, head: Vec::new(), stuck: None };
        let token = self.sides.insert(side);
        if let Some(side) = self.sides.get(token) {
            self.poll.add(&*side.socket, token, Interest::Read)?;
        }
        Ok(token)
    }

    /// Serves one wake-up; `None` when the tunnel is over.
    fn step(&mut self, token: Token, flags: EventFlags) -> Option<()> {
        let Some(side) = self.sides.get(token) else { return Some(()) };
        let Some(peer) = side.peer else { return self.open(token) };
        if flags.contains(EventFlags::OUT) {
            self.unstick(peer, token)?;
        }
        // Everything but room to write is found out by reading.
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.carry(token, peer)?;
        }
        Some(())
    }

    /// Reads the head of a client and opens what it asks for.
    fn open(&mut self, token: Token) -> Option<()> {
        let side = self.sides.get(token)?;
        let mut client = &*side.socket;
        let mut bytes = [0; HEAD_BYTES];
        let len = match client.read(&mut bytes) {
            Ok(0) => return None,
            Ok(len) => len,
            Err(error) => return (error.kind() == ErrorKind::WouldBlock).then_some(()),
        };
        side.head.extend_from_slice(bytes.get(..len)?);
        let Some((port, head_len)) = asked(&side.head) else {
            return (side.head.len() < HEAD_BYTES).then_some(());
        };
        let rest = std::mem::take(&mut side.head).split_off(head_len);
        let mut upstream = poll::dial(port).ok()?;
        client.write_all(ESTABLISHED).ok()?;
        upstream.write_all(&rest).ok()?;
        let peer = self.adopt(upstream, Some(token)).ok()?;
        self.sides.get(token)?.peer = Some(peer);
        Some(())
    }

    /// Moves what one side has said to the other.
    fn carry(&mut self, from: Token, to: Token) -> Option<()> {
        let source = self.sides.get(from)?;
        if source.stuck.is_some() {
            return Some(());
        }
        let source = Rc::clone(&source.socket);
        let sink = Rc::clone(&self.sides.get(to)?.socket);
        let stuck = self.mover.carry(&source, &sink).ok()?;
        if stuck.is_some() {
            self.sides.get(from)?.stuck = stuck;
            self.watch(from)?;
            self.watch(to)?;
        }
        Some(())
    }

    /// There is room at `to` for what `from` said.
    fn unstick(&mut self, from: Token, to: Token) -> Option<()> {
        let Some(stuck) = self.sides.get(from)?.stuck.take() else { return Some(()) };
        let sink = Rc::clone(&self.sides.get(to)?.socket);
        let stuck = self.mover.push(stuck, &sink).ok()?;
        let is_free = stuck.is_none();
        self.sides.get(from)?.stuck = stuck;
        if is_free {
            self.watch(from)?;
            self.watch(to)?;
        }
        Some(())
    }

    /// A side is read unless what it said is stuck, and waits for room while what its peer said is.
    fn watch(&mut self, token: Token) -> Option<()> {
        let side = self.sides.get(token)?;
        let (reads, peer) = (side.stuck.is_none(), side.peer?);
        let writes = self.sides.get(peer)?.stuck.is_some();
        let interest = match (reads, writes) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Nothing,
        };
        let side = self.sides.get(token)?;
        if side.interest != interest {
            side.interest = interest;
            self.poll.change(&*side.socket, token, interest).ok()?;
        }
        Some(())
    }

    /// Closes a connection, and the one it was joined to.
    fn end(&mut self, token: Token) {
        let Some(side) = self.sides.remove(token) else { return };
        if let Some(peer) = side.peer {
            self.sides.remove(peer);
        }
    }
}
