//! The client: keeps a number of connections busy with one kind of call and measures every answer.

mod answer;
mod plan;
mod report;
mod request;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use crate::args::{Args, Fallible};
use crate::poll::{self, Interest, Poll, READ_BYTES, Slab, Token, now_ns};
use answer::{Answer, Reference, Step};
use plan::{Plan, Until};
use report::Report;

/// How long answers that are under way at the end are waited for.
const DRAIN_NS: u64 = 20_000_000_000;

/// Runs the load and prints what it found as one line of JSON.
pub fn run(args: Args) -> Fallible<()> {
    let plan = Plan::from_args(args)?;
    let load = Load::new(plan)?;
    println!("{}", load.run()?);
    Ok(())
}

struct Load {
    plan: Plan,
    request: Vec<u8>,
    poll: Poll,
    conns: Slab<Conn>,
    /// Connections without a call, when the rate is fixed.
    idle: VecDeque<Token>,
    reference: Reference,
    report: Report,
    /// Calls begun.
    begun: u64,
    busy: usize,
    /// When the next call of a fixed rate is due, and when no more are begun.
    due: u64,
    deadline: u64,
    unannounced: usize,
}

struct Conn {
    socket: TcpStream,
    /// Bytes of the request the socket has taken.
    sent: usize,
    /// When the call began: was sent, or was due.
    began: u64,
    busy: bool,
    answer: Answer,
}

impl Load {
    fn new(plan: Plan) -> Fallible<Self> {
        let now = now_ns();
        Ok(Self {
            request: request::render(&plan),
            poll: Poll::new()?,
            conns: Slab::new(),
            idle: VecDeque::new(),
            reference: Reference::default(),
            report: Report::new(now),
            begun: 0,
            busy: 0,
            due: now,
            deadline: u64::MAX,
            unannounced: plan.connections,
            plan,
        })
    }

    fn run(mut self) -> Fallible<String> {
        let tokens = (0..self.plan.connections).map(|_| self.connect()).collect::<Fallible<Vec<Token>>>()?;
        let now = now_ns();
        self.report.start(now);
        self.due = now;
        if let Until::Seconds(seconds) = self.plan.until {
            self.deadline = now + (seconds * 1e9) as u64;
        }
        for token in tokens {
            self.next(token)?;
        }
        let mut ready = Vec::with_capacity(512);
        let mut buffer = vec![0; READ_BYTES];
        while !self.is_over() {
            self.poll.wait(&mut ready, Some(self.wake_at()))?;
            self.begin_due()?;
            for event in &ready {
                self.handle(event.data.u64(), &mut buffer)?;
            }
        }
        let late = self.busy as u64;
        Ok(self.report.json(
            now_ns().min(self.deadline),
            if self.plan.hold { 0 } else { late },
            &self.reference,
        ))
    }

    fn is_over(&self) -> bool {
        let now = now_ns();
        let ended = match self.plan.until {
            Until::Seconds(_) => now >= self.deadline,
            Until::Count(count) => self.begun >= count,
        };
        let drained = self.plan.hold || self.plan.stall || self.busy == 0;
        ended && (drained || now >= self.deadline.saturating_add(DRAIN_NS))
    }

    fn wake_at(&self) -> u64 {
        let tick = now_ns() + 100_000_000;
        if self.plan.interval_ns > 0 && !self.idle.is_empty() { tick.min(self.due) } else { tick }
    }

    fn connect(&mut self) -> Fallible<Token> {
        let socket = poll::dial(self.plan.port)?;
        let answer = Answer::default();
        let token = self.conns.insert(Conn { socket, sent: 0, began: 0, busy: false, answer });
        if let Some(conn) = self.conns.get(token) {
            self.poll.add(&conn.socket, token, Interest::Read)?;
        }
        Ok(token)
    }

    fn may_begin(&self) -> bool {
        match self.plan.until {
            Until::Seconds(_) => now_ns() < self.deadline,
            Until::Count(count) => self.begun < count,
        }
    }

    /// A connection is free: begins a call on it, or keeps it until one is due.
    fn next(&mut self, token: Token) -> Fallible<()> {
        if self.plan.interval_ns > 0 {
            self.idle.push_back(token);
            return self.begin_due();
        }
        if self.may_begin() { self.begin(token, now_ns()) } else { Ok(()) }
    }

    /// Begins the calls a fixed rate has due; those no connection was free for count from when they were due.
    fn begin_due(&mut self) -> Fallible<()> {
        while self.plan.interval_ns > 0 && self.due <= now_ns() && self.may_begin() {
            let Some(token) = self.idle.pop_front() else { return Ok(()) };
            let due = self.due;
            self.due += self.plan.interval_ns;
            self.begin(token, due)?;
        }
        Ok(())
    }

    fn begin(&mut self, token: Token, began: u64) -> Fallible<()> {
        let Some(conn) = self.conns.get(token) else { return Ok(()) };
        (conn.began, conn.sent, conn.busy) = (began, 0, true);
        conn.answer.expect(&self.plan, &self.reference);
        self.begun += 1;
        self.busy += 1;
        self.send(token)
    }

    fn send(&mut self, token: Token) -> Fallible<()> {
        let Some(conn) = self.conns.get(token) else { return Ok(()) };
        let Some(rest) = self.request.get(conn.sent..) else { return Ok(()) };
        let partly_sent = conn.sent > 0;
        match conn.socket.write(rest) {
            Ok(len) => conn.sent += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The peer closed a connection that was idle; reading says so and begins again.
            Err(_) => return Ok(()),
        }
        if conn.sent < self.request.len() {
            self.poll.change(&conn.socket, token, Interest::Write)?;
        } else if self.plan.stall {
            self.poll.change(&conn.socket, token, Interest::Nothing)?;
            self.announce();
        } else if partly_sent {
            self.poll.change(&conn.socket, token, Interest::Read)?;
        }
        Ok(())
    }

    fn handle(&mut self, token: Token, buffer: &mut [u8]) -> Fallible<()> {
        let Some(conn) = self.conns.get(token) else { return Ok(()) };
        if conn.busy && conn.sent > 0 && conn.sent < self.request.len() {
            return self.send(token);
        }
        let len = match conn.socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(0) | Err(_) => return self.reconnect(token),
            Ok(len) => len,
        };
        let now = now_ns();
        self.report.reads += 1;
        let first = conn.answer.is_untouched();
        let Some(bytes) = buffer.get_mut(..len) else { return Ok(()) };
        match conn.answer.feed(bytes, now, conn.began, &mut self.report, &self.reference) {
            Ok(Step::Done) => {
                conn.busy = false;
                self.busy -= 1;
                let began = conn.began;
                conn.answer.settle(&self.plan, &mut self.reference, &mut self.report);
                self.report.completed(began, now, now < self.deadline);
                self.next(token)?;
            }
            Ok(Step::More) => {}
            Err(_) => {
                self.report.broken += 1;
                self.reconnect(token)?;
            }
        }
        if first {
            self.announce();
        }
        Ok(())
    }

    /// The peer closed: with an answer half given that is a failure, before one it is the end of an idle connection.
    fn reconnect(&mut self, token: Token) -> Fallible<()> {
        let Some(conn) = self.conns.remove(token) else { return Ok(()) };
        self.report.reconnects += 1;
        if self.report.reconnects > 1_000_000 {
            return Err("the peer closes every connection".into());
        }
        self.idle.retain(|idle| *idle != token);
        let fresh = self.connect()?;
        if conn.busy && !conn.answer.is_untouched() {
            self.report.broken += 1;
            self.busy -= 1;
            return self.next(fresh);
        }
        if conn.busy {
            self.begun -= 1;
            self.busy -= 1;
            return self.begin(fresh, conn.began);
        }
        self.next(fresh)
    }

    /// Says once that every connection has been heard from (or, when stalled, has asked).
    fn announce(&mut self) {
        self.unannounced = self.unannounced.saturating_sub(1);
        if self.unannounced == 0 && std::mem::take(&mut self.plan.announce) {
            println!("{{\"ready\":true}}");
        }
    }
}
