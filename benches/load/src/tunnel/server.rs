//! The far end of every tunnel: echoes, or streams the pattern until it is told to stop.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use super::{PERIOD, Pattern, STOP, STREAM};
use crate::args::{Args, Fallible};
use crate::poll::{self, Interest, LISTENER, Poll, READ_BYTES, Slab, Token};

/// Serves until it is killed.
pub fn run(mut args: Args) -> Fallible<()> {
    let port = args.required("--port")?;
    args.finish()?;
    let (poll, listener) = (Poll::new()?, poll::listen(port)?);
    poll.add(&listener, LISTENER, Interest::Read)?;
    let (ends, pattern) = (Slab::new(), Pattern::new(READ_BYTES));
    Server { poll, listener, ends, pattern, totals: Totals::default() }.serve()
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    ends: Slab<End>,
    pattern: Pattern,
    totals: Totals,
}

/// What went through all tunnels, counted here and nowhere between.
#[derive(Default)]
struct Totals {
    tunnels: u64,
    received: u64,
    sent: u64,
}

struct End {
    socket: TcpStream,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was said yet.
    Silent,
    Echoing,
    /// Bytes sent so far; with `stop`, only up to the end of a period.
    Streaming {
        sent: u64,
        stop: bool,
    },
    /// All is said; the other side's end is waited for.
    Ended,
}

impl Server {
    fn serve(mut self) -> Fallible<()> {
        let mut ready = Vec::with_capacity(512);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.poll.wait(&mut ready, None)?;
            for event in &ready {
                match event.data.u64() {
                    LISTENER => self.accept_all()?,
                    token => {
                        if self.step(token, &mut buffer).is_none() {
                            self.ends.remove(token);
                        }
                    }
                }
            }
        }
    }

    fn accept_all(&mut self) -> Fallible<()> {
        while let Some(socket) = poll::accept(&self.listener) {
            let token = self.ends.insert(End { socket, stage: Stage::Silent });
            if let Some(end) = self.ends.get(token) {
                self.poll.add(&end.socket, token, Interest::Read)?;
            }
        }
        Ok(())
    }

    /// Serves one wake-up; `None` when the tunnel is over.
    fn step(&mut self, token: Token, buffer: &mut [u8]) -> Option<()> {
        let end = self.ends.get(token)?;
        match end.socket.read(buffer) {
            Ok(0) => return None,
            Ok(len) => self.heard(token, buffer.get(..len)?)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        self.stream(token)
    }

    fn heard(&mut self, token: Token, bytes: &[u8]) -> Option<()> {
        let end = self.ends.get(token)?;
        if end.stage == Stage::Silent {
            let first = *bytes.first()?;
            if first == b'G' {
                return self.totals.answer(&mut end.socket);
            }
            self.totals.tunnels += 1;
            end.stage = match first {
                STREAM => Stage::Streaming { sent: 0, stop: false },
                _ => Stage::Echoing,
            };
            if first == STREAM {
                self.poll.change(&end.socket, token, Interest::Both).ok()?;
            }
        }
        self.totals.received += bytes.len() as u64;
        match &mut end.stage {
            Stage::Echoing => {
                end.socket.write_all(bytes).ok()?;
                self.totals.sent += bytes.len() as u64;
            }
            Stage::Streaming { stop, .. } => *stop |= bytes.contains(&STOP),
            Stage::Silent | Stage::Ended => {}
        }
        Some(())
    }

    /// Sends as much as one write takes of what is asked for.
    fn stream(&mut self, token: Token) -> Option<()> {
        let end = self.ends.get(token)?;
        let Stage::Streaming { sent, stop } = &mut end.stage else { return Some(()) };
        let in_period = (*sent % PERIOD as u64) as usize;
        let most = match (*stop, in_period) {
            (false, _) => READ_BYTES,
            (true, 0) => 0,
            (true, part) => PERIOD - part,
        };
        if most == 0 {
            end.stage = Stage::Ended;
            end.socket.shutdown(Shutdown::Write).ok()?;
            return self.poll.change(&end.socket, token, Interest::Read).ok();
        }
        match end.socket.write(self.pattern.at(*sent, most)?) {
            Ok(len) => {
                *sent += len as u64;
                self.totals.sent += len as u64;
                Some(())
            }
            Err(error) => (error.kind() == ErrorKind::WouldBlock).then_some(()),
        }
    }
}

impl Totals {
    /// Answers `GET /totals`; `None`, since that connection is over then.
    fn answer(&self, socket: &mut TcpStream) -> Option<()> {
        let Self { tunnels, received, sent } = self;
        let body = format!("{{\"tunnels\":{tunnels},\"received\":{received},\"sent\":{sent}}}");
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).ok()?;
        None
    }
}
