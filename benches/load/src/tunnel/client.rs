//! The client of tunnels: opens them, and checks and times every byte that has a meaning.

mod plan;
mod report;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use memchr::memmem;
use rustix::event::epoll::Event;
use rustix::net::RecvFlags;

use super::{ECHO, HEAD_BYTES, PERIOD, Pattern, STOP, STREAM, ask};
use crate::args::{Args, Fallible};
use crate::poll::{self, Interest, Poll, READ_BYTES, Slab, Token, now_ns};
use plan::{Mode, Plan};
use report::Report;

/// How long tunnels that are under way at the end are waited for, and all of them at the beginning.
const DRAIN_NS: u64 = 20_000_000_000;

/// Of so many reads of a stream one is compared with the pattern; the kernel drops the others' bytes where they lie.
/// A byte lost, doubled or moved shows in every later comparison of its tunnel, and comparing all of them would
/// make this client the bottleneck.
const COMPARED: u64 = 8;

/// Tunnels refused or broken after which there is no point in going on.
const HOPELESS: u64 = 10_000;

/// Runs the load and prints what it found as one line of JSON.
pub fn run(args: Args) -> Fallible<()> {
    let plan = Plan::from_args(args)?;
    println!("{}", Load::new(plan)?.run()?);
    Ok(())
}

struct Load {
    plan: Plan,
    /// The head that asks for a tunnel; empty when the port itself is one.
    head: Vec<u8>,
    poll: Poll,
    tunnels: Slab<Tunnel>,
    /// Those that are opened before the clock runs.
    standing: Vec<Token>,
    alive: usize,
    /// Tunnels that neither stand nor have failed, where the clock waits for them; idle ones nothing came back through.
    awaited: usize,
    unheard: usize,
    pattern: Pattern,
    report: Report,
    deadline: u64,
}

struct Tunnel {
    socket: TcpStream,
    /// When what is timed began.
    began: u64,
    stage: Stage,
    /// What it says next; tunnels differ in it, so that mixing up two of them is noticed.
    next: u8,
}

enum Stage {
    /// The proxy's answer so far.
    Asking(Vec<u8>),
    /// Open, with nothing to come.
    Open,
    /// This byte has to come back.
    Pinging(u8),
    /// Bytes of the pattern and reads so far.
    Streaming { received: u64, reads: u64 },
}

/// What a wake-up of a tunnel meant.
enum Step {
    More,
    /// It ended as it should have.
    Done,
    Broken,
}

impl Load {
    fn new(plan: Plan) -> Fallible<Self> {
        Ok(Self {
            head: plan.target.map(ask).unwrap_or_default(),
            poll: Poll::new()?,
            tunnels: Slab::new(),
            standing: Vec::new(),
            alive: 0,
            awaited: plan.tunnels,
            unheard: plan.tunnels,
            pattern: Pattern::new(READ_BYTES),
            report: Report::new(now_ns()),
            deadline: u64::MAX,
            plan,
        })
    }

    fn run(mut self) -> Fallible<String> {
        let mut ready = Vec::with_capacity(512);
        let mut buffer = vec![0; READ_BYTES];
        if self.plan.mode == Mode::Connects {
            self.start();
        }
        for _ in 0..self.plan.tunnels {
            self.open()?;
            // In step with the proxy: in a short queue, the thousandth would wait for seconds.
            self.turn(&mut ready, &mut buffer, now_ns())?;
        }
        let mut has_stopped = false;
        while !self.is_over() {
            self.turn(&mut ready, &mut buffer, now_ns() + 50_000_000)?;
            if now_ns() >= self.deadline && !std::mem::replace(&mut has_stopped, true) {
                self.stop();
            }
        }
        let unfinished = if self.plan.mode == Mode::Idle { 0 } else { self.alive };
        Ok(self.report.json(now_ns().min(self.deadline), unfinished))
    }

    fn turn(&mut self, ready: &mut Vec<Event>, buffer: &mut [u8], until: u64) -> Fallible<()> {
        self.poll.wait(ready, Some(until))?;
        ready.iter().try_for_each(|event| self.handle(event.data.u64(), buffer))
    }

    fn is_over(&self) -> bool {
        let now = now_ns();
        let patience = if self.deadline == u64::MAX { self.report.started } else { self.deadline };
        let is_late = now >= patience.saturating_add(DRAIN_NS);
        let is_idle = self.plan.mode == Mode::Idle && now >= self.deadline;
        self.alive == 0 || is_late || is_idle
    }

    /// The clock runs.
    fn start(&mut self) {
        self.report.started = now_ns();
        self.deadline = self.report.started + (self.plan.seconds * 1e9) as u64;
    }

    fn open(&mut self) -> Fallible<()> {
        let began = now_ns();
        let mut socket = poll::dial(self.plan.port)?;
        socket.write_all(&self.head)?;
        let stage = if self.head.is_empty() { Stage::Open } else { Stage::Asking(Vec::new()) };
        let next = ECHO | self.report.opened as u8;
        let token = self.tunnels.insert(Tunnel { socket, began, stage, next });
        self.alive += 1;
        if let Some(tunnel) = self.tunnels.get(token) {
            self.poll.add(&tunnel.socket, token, Interest::Read)?;
        }
        if self.head.is_empty() {
            self.stands(token);
        }
        Ok(())
    }

    /// A tunnel is open: it speaks at once, or when all of them are.
    fn stands(&mut self, token: Token) {
        let Some(tunnel) = self.tunnels.get(token) else { return };
        self.report.stands(now_ns() - tunnel.began);
        if self.plan.mode == Mode::Connects {
            self.speak(token);
        } else {
            self.standing.push(token);
            self.settled();
        }
    }

    /// One more of the tunnels the clock waits for stands, or has failed.
    fn settled(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited > 0 || self.deadline != u64::MAX {
            return;
        }
        self.start();
        for token in self.standing.clone() {
            if let Some(tunnel) = self.tunnels.get(token) {
                tunnel.began = self.report.started;
            }
            self.speak(token);
        }
    }

    /// Says the byte that begins an operation.
    fn speak(&mut self, token: Token) {
        let Some(tunnel) = self.tunnels.get(token) else { return };
        let byte = if self.plan.mode == Mode::Bulk { STREAM } else { tunnel.next };
        tunnel.stage = match byte {
            STREAM => Stage::Streaming { received: 0, reads: 0 },
            byte => Stage::Pinging(byte),
        };
        tunnel.next = ECHO | tunnel.next.wrapping_add(1);
        // A broken one says so when it is read.
        let _ = tunnel.socket.write(&[byte]);
    }

    /// The time is over: streams are told to end; what echoes ends by itself.
    fn stop(&mut self) {
        for token in self.standing.clone() {
            let Some(tunnel) = self.tunnels.get(token) else { continue };
            if matches!(tunnel.stage, Stage::Streaming { .. }) {
                let _ = tunnel.socket.write(&[STOP]);
            }
        }
    }

    fn handle(&mut self, token: Token, buffer: &mut [u8]) -> Fallible<()> {
        let Some(tunnel) = self.tunnels.get(token) else { return Ok(()) };
        let step = match &mut tunnel.stage {
            Stage::Asking(_) => self.answered(token, buffer),
            Stage::Pinging(_) => self.echoed(token, buffer),
            Stage::Streaming { .. } => self.streamed(token, buffer),
            // Nothing was asked for.
            Stage::Open => Some(Step::Broken),
        };
        match step.unwrap_or(Step::Broken) {
            Step::More => return Ok(()),
            Step::Done => {}
            Step::Broken => self.report.broken += 1,
        }
        self.ended(token)
    }

    /// A tunnel is no more; another takes its place where their number is what is measured.
    fn ended(&mut self, token: Token) -> Fallible<()> {
        let was_asking =
            self.tunnels.remove(token).is_some_and(|gone| matches!(gone.stage, Stage::Asking(_)));
        self.alive -= 1;
        if self.report.failed() > HOPELESS {
            return Err(format!("{HOPELESS} tunnels refused or broken").into());
        }
        if self.plan.mode != Mode::Connects {
            if was_asking {
                self.settled();
            }
            return Ok(());
        }
        if now_ns() < self.deadline { self.open() } else { Ok(()) }
    }

    /// Reads the proxy's answer; `None` when it broke off or said more than it may.
    fn answered(&mut self, token: Token, buffer: &mut [u8]) -> Option<Step> {
        let tunnel = self.tunnels.get(token)?;
        let Stage::Asking(head) = &mut tunnel.stage else { return None };
        let len = tunnel.socket.read(buffer).unwrap_or(0);
        head.extend_from_slice(buffer.get(..len).unwrap_or_default());
        let Some(end) = memmem::find(head, b"\r\n\r\n") else {
            return (len > 0 && head.len() < HEAD_BYTES).then_some(Step::More);
        };
        if !head.get(9..).is_some_and(|status| status.starts_with(b"2")) {
            self.report.refused(head);
            return Some(Step::Done);
        }
        if head.len() > end + 4 {
            return None;
        }
        tunnel.stage = Stage::Open;
        self.stands(token);
        Some(Step::More)
    }

    /// Reads the byte that has to come back.
    fn echoed(&mut self, token: Token, buffer: &mut [u8]) -> Option<Step> {
        let tunnel = self.tunnels.get(token)?;
        let Stage::Pinging(byte) = tunnel.stage else { return None };
        let len = tunnel.socket.read(buffer).unwrap_or(0);
        if len == 0 {
            return None;
        }
        let now = now_ns();
        if buffer.get(..len) != Some(&[byte]) {
            self.report.differing += 1;
        }
        self.report.completed(now - tunnel.began, now < self.deadline);
        self.report.received(len, now < self.deadline);
        match self.plan.mode {
            Mode::PingPong if now < self.deadline => {
                tunnel.began = now;
                self.speak(token);
                Some(Step::More)
            }
            Mode::Idle => {
                tunnel.stage = Stage::Open;
                self.unheard = self.unheard.saturating_sub(1);
                if self.unheard == 0 {
                    println!("{{\"ready\":true}}");
                }
                Some(Step::More)
            }
            _ => Some(Step::Done),
        }
    }

    /// Takes bytes of a stream; `None` when it broke off.
    fn streamed(&mut self, token: Token, buffer: &mut [u8]) -> Option<Step> {
        let tunnel = self.tunnels.get(token)?;
        let Stage::Streaming { received, reads } = &mut tunnel.stage else { return None };
        let compares = reads.is_multiple_of(COMPARED);
        let flags = if compares { RecvFlags::empty() } else { RecvFlags::TRUNC };
        let (_, len) = rustix::net::recv(&tunnel.socket, &mut *buffer, flags).ok()?;
        let now = now_ns();
        if len == 0 {
            // Told to stop, the server stops at the end of a period, and not before.
            let is_whole = received.is_multiple_of(PERIOD as u64) && now >= self.deadline;
            self.report.incomplete += u64::from(!is_whole);
            return Some(Step::Done);
        }
        if compares {
            let (came, expected) = (buffer.get(..len), self.pattern.at(*received, len));
            self.report.differing += u64::from(came != expected);
            self.report.compared += len as u64;
        }
        *received += len as u64;
        *reads += 1;
        self.report.received(len, now < self.deadline);
        Some(Step::More)
    }
}
