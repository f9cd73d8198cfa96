//! The mock model server: answers any POST, as JSON or as a stream of stamped events, at a pace the call asks for.

mod answers;
mod profile;
mod request;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use crate::args::{Args, Fallible};
use crate::poll::{self, Interest, LISTENER, Poll, READ_BYTES, Slab, Token, now_ns};
use answers::{Answers, Stream};
use profile::{Pace, Profile};
use request::Request;

/// Bytes of a burst rendered per write: a whole stream of usual size, a slice of a huge one.
const BURST_BYTES: usize = 64 * 1024;

/// Serves until it is killed.
pub fn run(mut args: Args) -> Fallible<()> {
    let port = args.required("--port")?;
    let defaults = Profile::from_args(&mut args)?;
    args.finish()?;
    Mock::new(port, defaults)?.serve()
}

struct Mock {
    poll: Poll,
    listener: TcpListener,
    conns: Slab<Conn>,
    timers: BinaryHeap<Reverse<(u64, Token)>>,
    server: Server,
}

/// What all connections share.
struct Server {
    defaults: Profile,
    answers: Answers,
    totals: Totals,
    /// A cheap generator for the phases of paced streams.
    seed: u64,
}

#[derive(Default)]
struct Totals {
    requests: u64,
    streams: u64,
    input_tokens: u64,
    output_tokens: u64,
}

struct Conn {
    socket: TcpStream,
    nodelay: bool,
    /// Bytes of a request that is not complete.
    input: Vec<u8>,
    /// Bytes not written yet.
    output: Vec<u8>,
    playing: Option<Playing>,
    blocked: bool,
}

/// A stream on its way out.
struct Playing {
    stream: Rc<Stream>,
    pace: Pace,
    /// The next event.
    next: u32,
    /// When a paced one is due, and whether a timer stands for it.
    due: u64,
    armed: bool,
}

impl Mock {
    fn new(port: u16, defaults: Profile) -> Fallible<Self> {
        let (poll, listener) = (Poll::new()?, poll::listen(port)?);
        poll.add(&listener, LISTENER, Interest::Read)?;
        let server = Server { defaults, answers: Answers::default(), totals: Totals::default(), seed: 1 };
        Ok(Self { poll, listener, conns: Slab::new(), timers: BinaryHeap::new(), server })
    }

    fn serve(mut self) -> Fallible<()> {
        let mut ready = Vec::with_capacity(512);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.poll.wait(&mut ready, self.timers.peek().map(|Reverse((due, _))| *due))?;
            self.play_due();
            for event in &ready {
                match event.data.u64() {
                    LISTENER => self.accept_all()?,
                    token => self.handle(token, &mut buffer),
                }
            }
        }
    }

    fn accept_all(&mut self) -> Fallible<()> {
        while let Some(socket) = poll::accept(&self.listener) {
            let token = self.conns.insert(Conn::new(socket));
            if let Some(conn) = self.conns.get(token) {
                self.poll.add(&conn.socket, token, Interest::Read)?;
            }
        }
        Ok(())
    }

    /// Sends the events whose time has come.
    fn play_due(&mut self) {
        let now = now_ns();
        while let Some(&Reverse((due, token))) = self.timers.peek() {
            if due > now {
                return;
            }
            self.timers.pop();
            let Some(conn) = self.conns.get(token) else { continue };
            let alive = conn.tick(now, &mut self.server);
            self.settle(token, alive);
        }
    }

    fn handle(&mut self, token: Token, buffer: &mut [u8]) {
        let Some(conn) = self.conns.get(token) else { return };
        let alive =
            if conn.blocked { conn.flush(&mut self.server) } else { conn.read(buffer, &mut self.server) };
        self.settle(token, alive);
    }

    /// After any step: closes a dead connection, waits for room or for time.
    fn settle(&mut self, token: Token, alive: bool) {
        let Some(conn) = self.conns.get(token) else { return };
        if !alive {
            self.conns.remove(token);
            return;
        }
        let blocked = !conn.output.is_empty();
        if blocked != conn.blocked {
            conn.blocked = blocked;
            let interest = if blocked { Interest::Write } else { Interest::Read };
            if self.poll.change(&conn.socket, token, interest).is_err() {
                self.conns.remove(token);
                return;
            }
        }
        if let Some(playing) = &mut conn.playing
            && let Pace::Every(_) = playing.pace
            && !std::mem::replace(&mut playing.armed, true)
        {
            self.timers.push(Reverse((playing.due, token)));
        }
    }
}

impl Conn {
    fn new(socket: TcpStream) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        Self { socket, nodelay: true, input, output, playing: None, blocked: false }
    }

    /// Reads what has come and answers it; false when the connection is over.
    fn read(&mut self, buffer: &mut [u8], server: &mut Server) -> bool {
        let len = match self.socket.read(buffer) {
            Ok(0) => return false,
            Ok(len) => len,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let Some(bytes) = buffer.get(..len) else { return false };
        if self.input.is_empty() {
            let Some(used) = self.answer(bytes, server) else { return false };
            self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return true;
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let Some(used) = self.answer(&input, server) else { return false };
        input.drain(..used);
        self.input = input;
        true
    }

    /// Answers the first request in `bytes`, if it is complete; returns how many bytes it had.
    fn answer(&mut self, bytes: &[u8], server: &mut Server) -> Option<usize> {
        let Some(request) = Request::parse(bytes).ok()? else { return Some(0) };
        if request.is_get {
            self.output.extend_from_slice(&server.totals.answer());
            return self.flush(server).then_some(request.len);
        }
        let profile = Profile::of_model(request.model(), &server.defaults);
        server.totals.requests += 1;
        if request.wants_stream() {
            let stream = server.answers.stream(request.dialect, profile.tokens);
            self.output.extend_from_slice(&stream.head);
            let nodelay = !profile.nagle;
            if nodelay != self.nodelay {
                self.socket.set_nodelay(nodelay).ok()?;
                self.nodelay = nodelay;
            }
            let due = now_ns() + profile.ttft_ns;
            self.playing = Some(Playing { stream, pace: profile.pace, next: 0, due, armed: false });
        } else {
            let answer = server.answers.json(request.dialect, profile.bytes);
            server.totals.input_tokens += answers::INPUT_TOKENS;
            server.totals.output_tokens += answers::OUTPUT_TOKENS;
            self.output.extend_from_slice(&answer);
        }
        self.flush(server).then_some(request.len)
    }

    /// Writes what is pending, then whatever of the stream needs no waiting; false when the client has gone.
    fn flush(&mut self, server: &mut Server) -> bool {
        loop {
            if let Some(Playing { pace: Pace::Burst, .. }) = self.playing {
                self.render_burst(server);
            }
            while !self.output.is_empty() {
                match self.socket.write(&self.output) {
                    Ok(len) => drop(self.output.drain(..len)),
                    Err(error) => return error.kind() == ErrorKind::WouldBlock,
                }
            }
            match self.playing {
                Some(Playing { pace: Pace::Burst | Pace::PerEvent, .. }) => self.render_event(server),
                _ => return true,
            }
        }
    }

    fn render_burst(&mut self, server: &mut Server) {
        while self.playing.is_some() && self.output.len() < BURST_BYTES {
            self.render_event(server);
        }
    }

    /// Renders the next event; the last one brings the end of the stream with it.
    fn render_event(&mut self, server: &mut Server) {
        let Some(playing) = &mut self.playing else { return };
        let stamp = server.answers.stamp();
        playing.stream.event(playing.next, stamp, &mut self.output);
        playing.next += 1;
        if playing.next >= playing.stream.tokens {
            self.output.extend_from_slice(&playing.stream.tail);
            server.totals.streams += 1;
            server.totals.input_tokens += answers::INPUT_TOKENS;
            server.totals.output_tokens += u64::from(playing.stream.tokens);
            self.playing = None;
        }
    }

    /// The time of a paced event has come.
    fn tick(&mut self, now: u64, server: &mut Server) -> bool {
        let Some(playing) = &mut self.playing else { return true };
        let Pace::Every(interval) = playing.pace else { return true };
        // A random phase behind the first event keeps streams that began together apart.
        let phase = if playing.next == 0 { server.random() % interval.max(1) } else { 0 };
        playing.due = (playing.due + interval + phase).max(now);
        playing.armed = false;
        if !self.output.is_empty() {
            return true;
        }
        self.render_event(server);
        self.flush(server)
    }
}

impl Server {
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }
}

impl Totals {
    fn answer(&self) -> Vec<u8> {
        let Self { requests, streams, input_tokens, output_tokens } = self;
        let body = format!(
            "{{\"requests\":{requests},\"streams\":{streams},\"input_tokens\":{input_tokens},\"output_tokens\":{output_tokens}}}"
        );
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}
