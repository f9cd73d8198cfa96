//! Readiness, the clock and the table of connections: what an epoll loop is made of.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::time::{ClockId, Timespec};

/// Bytes one read may bring; large enough that a burst or a long prompt arrives in one or two.
pub const READ_BYTES: usize = 256 * 1024;

/// Nanoseconds of the monotonic clock: one clock for every process of a machine.
pub fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Names a connection in a [`Slab`]; one that has gone is never confused with its successor.
pub type Token = u64;

/// The token of the listener, which is in no slab.
pub const LISTENER: Token = u64::MAX;

/// An epoll instance.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
}

/// What to be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the end.
    Read,
    /// Room to write; nothing is read meanwhile.
    Write,
    /// Either: one direction has bytes to come, the other waits for room.
    Both,
    /// Nothing but errors: the other side has to catch up first.
    Nothing,
}

impl From<Interest> for EventFlags {
    fn from(interest: Interest) -> Self {
        match interest {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
            Interest::Both => EventFlags::IN | EventFlags::OUT,
            Interest::Nothing => EventFlags::empty(),
        }
    }
}

impl Poll {
    /// Makes an empty instance.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Watches a socket; closing it ends the watch.
    pub fn add(&self, socket: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), interest.into())?)
    }

    /// Changes what a socket is watched for.
    pub fn change(&self, socket: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), interest.into())?)
    }

    /// Waits, at most until `until` (monotonic nanoseconds), and fills `ready` with the sockets that woke it.
    pub fn wait(&self, ready: &mut Vec<Event>, until: Option<u64>) -> io::Result<()> {
        let timeout = until.map(|at| {
            let left = at.saturating_sub(now_ns()).cast_signed();
            Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 }
        });
        ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(ready), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A listener on loopback, and nothing else, with a queue that fits a thousand clients at once.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&socket, 4096)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection to a loopback port: non-blocking once made, with Nagle's algorithm off.
pub fn dial(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// The next waiting connection, if there is one.
pub fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let (stream, _) = listener.accept().ok()?;
    stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).ok()?;
    Some(stream)
}

/// Things by token, in slots that are used again.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// An empty table.
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Puts a thing in; the token names it until it is removed.
    pub fn insert(&mut self, thing: T) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let mut generation = 0;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            generation = slot.0;
            slot.1 = Some(thing);
        }
        u64::from(generation) << 32 | u64::from(index)
    }

    /// The thing, unless it has gone.
    pub fn get(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(token as u32 as usize)?;
        if u64::from(slot.0) == token >> 32 { slot.1.as_mut() } else { None }
    }

    /// Takes the thing out.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slots.get_mut(token as u32 as usize)?;
        if u64::from(slot.0) != token >> 32 {
            return None;
        }
        let thing = slot.1.take()?;
        // The highest generation belongs to `LISTENER`.
        slot.0 = (slot.0 + 1) % u32::MAX;
        self.free.push(token as u32);
        Some(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_a_token_when_its_slot_is_used_again() {
        let mut slab = Slab::new();
        let old = slab.insert('a');
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b');
        assert_ne!(old, new);
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&mut 'b'));
    }
}
