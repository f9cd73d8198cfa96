//! The thread's kernel pipes, through which splice(2) moves bytes between sockets.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::limits::{PIPE_BYTES, PIPES, PIPES_SPARE};

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { spare: Vec::new(), made: 0 }) };
}

struct Pool {
    spare: Vec<Ends>,
    /// Pipes there are, lent ones included.
    made: usize,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe lent by the thread. On drop it goes back if it is empty, and is closed if not.
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// An empty pipe, unless the thread has lent as many as it may or the system gives none worth having.
    pub fn lend() -> Option<Self> {
        let spare = POOL.with_borrow_mut(|pool| {
            let spare = pool.spare.pop();
            if spare.is_none() && pool.made < PIPES {
                pool.made += 1;
                return Some(None);
            }
            spare.map(Some)
        })?;
        // From here on its drop keeps the count.
        let mut pipe = Self { ends: spare, held: 0 };
        if pipe.ends.is_none() {
            pipe.ends = Some(Ends::open().ok()?);
        }
        Some(pipe)
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `most` bytes from a socket. Only an empty pipe is filled: so `WouldBlock` speaks of the socket.
    pub fn fill(&mut self, from: impl AsFd, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        debug_assert_eq!(self.held, 0);
        let n = splice(from, None, &ends.write, None, most, SpliceFlags::NONBLOCK)?;
        self.held = n;
        Ok(n)
    }

    /// Gives a socket what it takes now.
    pub fn drain(&mut self, into: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let n = splice(&ends.read, None, into, None, self.held, SpliceFlags::NONBLOCK)?;
        self.held -= n.min(self.held);
        Ok(n)
    }

    /// Takes everything out.
    pub fn take(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        let mut at = 0;
        while let (Some(ends), Some(rest)) = (&self.ends, bytes.get_mut(at..).filter(|rest| !rest.is_empty()))
        {
            let n = rustix::io::read(&ends.read, rest)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += n;
        }
        self.held = 0;
        Ok(bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let ends = self.ends.take().filter(|_| self.held == 0);
        // A thread that ends takes its pool with it.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            match ends {
                Some(ends) if pool.spare.len() < PIPES_SPARE => pool.spare.push(ends),
                _ => pool.made -= 1,
            }
        });
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused above pipe-max-size, and above the user's share (pipe(7)), where new pipes have two pages.
        let fits = fcntl_setpipe_size(&write, PIPE_BYTES).is_ok()
            || fcntl_setpipe_size(&write, PIPE_BYTES / 2).is_ok();
        if !fits {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { read, write })
    }
}

/// Pipes that the thread has lent, and those it keeps.
#[cfg(test)]
pub fn count() -> (usize, usize) {
    POOL.with_borrow(|pool| (pool.made - pool.spare.len(), pool.spare.len()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn an_empty_pipe_is_used_again_and_a_full_one_is_closed() {
        let (mut near, far) = pair();
        drop(Pipe::lend().unwrap());
        assert_eq!(count(), (0, 1));
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(count(), (1, 0));
        near.write_all(b"abc").unwrap();
        assert_eq!(pipe.fill(&far, PIPE_BYTES).unwrap(), 3);
        drop(pipe);
        assert_eq!(count(), (0, 0));
    }

    #[test]
    fn a_thread_lends_so_many_and_keeps_few() {
        let lent: Vec<_> = std::iter::from_fn(Pipe::lend).collect();
        assert_eq!(lent.len(), PIPES);
        drop(lent);
        assert_eq!(count(), (0, PIPES_SPARE));
        assert!(Pipe::lend().is_some());
    }

    #[test]
    fn what_a_pipe_holds_goes_on_or_comes_out() {
        let (mut near, far) = pair();
        let (mut end, sink) = pair();
        near.write_all(b"abcdef").unwrap();
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(pipe.fill(&far, 4).unwrap(), 4);
        assert_eq!((pipe.drain(&sink).unwrap(), pipe.held()), (4, 0));
        assert_eq!(pipe.fill(&far, 4).unwrap(), 2);
        assert_eq!(pipe.take().unwrap(), b"ef");
        assert_eq!(count(), (0, 1), "emptied, it is kept");
        let mut got = [0; 4];
        end.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abcd");
    }
}
