//! Where an answer's content goes: whole events forwarded as they complete, bytes as they come, or held back
//! to be judged; usage, floor and echoed secrets are seen to on the way.

use memchr::memmem;
use tokio::time::Instant;

use crate::error::{Error, Kind, Step};
use crate::policy::safety::{self, Floor, Violation};
use crate::proxy::client::Client;
use crate::proxy::respond::Failure;
use crate::wire::sse::{self, Splitter};
use crate::wire::usage::{self, EventKind, Meter};

/// Why an exchange ended early.
#[derive(Debug)]
pub enum Stop {
    /// The client left, or stopped reading for too long.
    Gone,
    /// The upstream failed, or a deadline passed, or the grace is over.
    Failed(Error),
    /// A content rule forbids what the model said.
    Content(Box<Failure>),
    /// The call was not sent.
    Refused(Box<Failure>),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(failure))
    }
}

/// Starts the client's answer, once.
pub type Start<'s> = Box<dyn FnOnce(&mut Client) + 's>;

/// Where an answer's content goes, and what is read from it on the way.
pub struct Sink<'s> {
    mode: Mode,
    /// The provider's key, to blot out should the upstream echo it.
    secret: Option<&'s [u8]>,
    /// The end of the last read, held back while it may be the beginning of the key.
    suspect: Vec<u8>,
    floor: Option<&'s Floor>,
    /// Takes the usage chunk out that the client did not ask for.
    strip_usage: bool,
    start: Option<Start<'s>>,
    meter: Meter,
    events: u64,
    bytes: u64,
    first_content: Option<Instant>,
}

impl std::fmt::Debug for Sink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("mode", &self.mode).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Mode {
    /// Whole events, forwarded as they complete.
    Events(Splitter),
    /// Bytes, forwarded as they come; `true` for JSON with usage in it.
    Bytes(bool),
    /// Held back up to a bound, for inspection.
    Held(Vec<u8>, usize),
}

impl<'s> Sink<'s> {
    fn new(mode: Mode, secret: Option<&'s [u8]>) -> Self {
        Self {
            mode,
            secret,
            suspect: Vec::new(),
            floor: None,
            strip_usage: false,
            start: None,
            meter: Meter::new(),
            events: 0,
            bytes: 0,
            first_content: None,
        }
    }

    /// Forwards an event stream; with a floor the answer starts only once its first event has passed.
    pub fn events(
        secret: Option<&'s [u8]>,
        floor: Option<&'s Floor>,
        strip_usage: bool,
        start: Option<Start<'s>>,
    ) -> Self {
        Self { floor, strip_usage, start, ..Self::new(Mode::Events(Splitter::new()), secret) }
    }

    /// Forwards bytes of an answer that has been started.
    pub fn bytes(secret: Option<&'s [u8]>, json: bool) -> Self {
        Self::new(Mode::Bytes(json), secret)
    }

    /// Holds at most `bound` bytes for [`Sink::into_held`].
    pub fn held(secret: Option<&'s [u8]>, bound: usize) -> Self {
        Self::new(Mode::Held(Vec::new(), bound), secret)
    }

    /// What the provider said the call cost.
    pub fn usage(&self) -> Option<usage::Usage> {
        self.meter.usage()
    }

    /// Output tokens that must have been generated for what was seen: one per event, or four bytes each.
    pub fn seen_output(&self) -> u64 {
        if self.events > 0 { self.events } else { self.bytes / 4 }
    }

    /// When the first content went to the client.
    pub fn first_content(&self) -> Option<Instant> {
        self.first_content
    }

    /// The bytes that were held.
    pub fn into_held(self) -> Vec<u8> {
        match self.mode {
            Mode::Held(bytes, _) => bytes,
            _ => Vec::new(),
        }
    }

    /// Takes the next content. The client gets what of it may pass.
    pub fn take(&mut self, content: &mut Vec<u8>, client: &mut Client) -> Result<(), Stop> {
        if content.is_empty() {
            return Ok(());
        }
        if let Some(secret) = self.secret {
            if !self.suspect.is_empty() {
                content.splice(0..0, self.suspect.drain(..));
            }
            blot(content, secret);
            let kept = content.len() - begun(content, secret);
            self.suspect.extend(content.drain(kept..));
        }
        self.pass(content, client)
    }

    /// Takes content in which no secret is.
    fn pass(&mut self, content: &[u8], client: &mut Client) -> Result<(), Stop> {
        self.bytes += content.len() as u64;
        match &mut self.mode {
            Mode::Held(held, bound) => {
                if held.len() + content.len() > *bound {
                    let detail = format!(
                        "the upstream's answer is larger than the {bound} bytes that can be inspected"
                    );
                    return Err(Stop::Failed(Error::new(Kind::Upstream(Step::Protocol), detail)));
                }
                held.extend_from_slice(content);
                self.meter.json(content);
                Ok(())
            }
            Mode::Bytes(json) => {
                if *json {
                    self.meter.json(content);
                }
                self.first_content.get_or_insert_with(Instant::now);
                client.push(content);
                Ok(())
            }
            Mode::Events(splitter) => {
                let torn = splitter.is_torn();
                let split = splitter.feed(content);
                let mut flow = Flow {
                    floor: self.floor,
                    strip_usage: self.strip_usage,
                    start: &mut self.start,
                    meter: &mut self.meter,
                    events: &mut self.events,
                };
                if torn {
                    flow.oversized(content.get(..split.carried_used).unwrap_or(&[]), client)?;
                }
                flow.forward(split.carried, client)?;
                flow.forward(split.whole, client)?;
                if split.overflow {
                    flow.oversized(split.spilled, client)?;
                    flow.oversized(split.rest, client)?;
                }
                if *flow.events > 0 {
                    self.first_content.get_or_insert_with(Instant::now);
                }
                Ok(())
            }
        }
    }

    /// The answer ended well.
    pub fn end(&mut self, client: &mut Client) -> Result<(), Stop> {
        let suspect = std::mem::take(&mut self.suspect);
        self.pass(&suspect, client)?;
        match &mut self.mode {
            Mode::Held(..) => return Ok(()),
            Mode::Bytes(_) => {}
            Mode::Events(splitter) => {
                let rest = splitter.pending().to_vec();
                let mut flow = Flow {
                    floor: self.floor,
                    strip_usage: self.strip_usage,
                    start: &mut self.start,
                    meter: &mut self.meter,
                    events: &mut self.events,
                };
                flow.forward(&rest, client)?;
                flow.started(client);
            }
        }
        client.end();
        Ok(())
    }

    /// Whether the client has been sent part of an event.
    pub fn is_torn(&self) -> bool {
        matches!(&self.mode, Mode::Events(splitter) if splitter.is_torn())
    }

    /// Fills a silence, where the client's answer is an event stream that has begun; never inside an event.
    pub fn keepalive(&mut self, client: &mut Client, bytes: &[u8]) {
        if (matches!(self.mode, Mode::Events(_)) || client.committed()) && !self.is_torn() {
            if let Some(start) = self.start.take() {
                start(client);
            }
            client.push(bytes);
        }
    }
}

/// The parts of a sink that see whole events.
struct Flow<'f, 's> {
    floor: Option<&'s Floor>,
    strip_usage: bool,
    start: &'f mut Option<Start<'s>>,
    meter: &'f mut Meter,
    events: &'f mut u64,
}

impl Flow<'_, '_> {
    fn started(&mut self, client: &mut Client) {
        if let Some(start) = self.start.take() {
            start(client);
        }
    }

    /// Forwards whole events, unchanged; looks closer only where a needle says there is something to see.
    fn forward(&mut self, whole: &[u8], client: &mut Client) -> Result<(), Stop> {
        if whole.is_empty() {
            return Ok(());
        }
        if self.floor.is_some() {
            return self.inspect(whole, client);
        }
        *self.events += sse::count(whole);
        let mut kept = 0;
        for range in sse::around(whole, usage::mentions(whole)) {
            if self.is_kept(whole.get(range.clone()).unwrap_or(&[])) {
                continue;
            }
            *self.events = self.events.saturating_sub(1);
            self.push(whole.get(kept..range.start), client);
            kept = range.end;
        }
        self.push(whole.get(kept..), client);
        Ok(())
    }

    /// The same where a floor must see each event before it leaves.
    fn inspect(&mut self, whole: &[u8], client: &mut Client) -> Result<(), Stop> {
        // Runs of kept events leave as one piece each.
        let (mut kept, mut end) = (0, 0);
        for event in sse::events(whole) {
            let start = end;
            end += event.len();
            let is_kept = self.is_kept(event);
            self.check_floor(event)?;
            if is_kept {
                *self.events += 1;
            } else {
                self.push(whole.get(kept..start), client);
                kept = end;
            }
        }
        self.push(whole.get(kept..), client);
        Ok(())
    }

    /// Meters an event; false when it is the usage chunk that the client did not ask for.
    fn is_kept(&mut self, event: &[u8]) -> bool {
        self.meter.event(event) == EventKind::Other || !self.strip_usage
    }

    fn push(&mut self, piece: Option<&[u8]>, client: &mut Client) {
        if let Some(piece) = piece.filter(|p| !p.is_empty()) {
            self.started(client);
            client.push(piece);
        }
    }

    fn check_floor(&self, event: &[u8]) -> Result<(), Stop> {
        let Some(floor) = self.floor else { return Ok(()) };
        let first = *self.events == 0;
        let unannotated = first && floor.require_prompt_shields;
        if !unannotated && !safety::mentions(event) {
            return Ok(());
        }
        let parsed = sse::event(event);
        let findings = floor.inspect(&parsed.data);
        if findings.unreadable {
            return Err(Stop::Failed(unreadable()));
        }
        if let Some(found) = findings.violation {
            return Err(Stop::Content(Box::new(violation(&found))));
        }
        if unannotated && !findings.prompt_annotated {
            return Err(Stop::Content(Box::new(violation(&Violation::shields_required()))));
        }
        Ok(())
    }

    /// Passes part of an event that is too large to be seen whole, unless a floor must see it.
    fn oversized(&mut self, rest: &[u8], client: &mut Client) -> Result<(), Stop> {
        if self.floor.is_some() && !rest.is_empty() {
            let detail = "the upstream sent an event larger than can be inspected";
            return Err(Stop::Failed(Error::new(Kind::Upstream(Step::Protocol), detail)));
        }
        self.push(Some(rest), client);
        Ok(())
    }
}

/// Annotations are mentioned and cannot be read: with a floor, what cannot be judged does not pass.
pub fn unreadable() -> Error {
    let detail = "the upstream's content annotations cannot be read, and a content floor must judge them";
    Error::new(Kind::Upstream(Step::Protocol), detail)
}

/// A content rule's verdict as a failure for the client.
pub fn violation(found: &Violation) -> Failure {
    Failure::content(found.code, found.message.clone(), found.reason())
}

/// Overwrites a secret with stars: same length, so that lengths already announced stay true.
pub fn blot(content: &mut [u8], secret: &[u8]) {
    let mut from = 0;
    while let Some(found) = content.get(from..).and_then(|rest| memmem::find(rest, secret)) {
        let start = from + found;
        let end = start + secret.len();
        if let Some(place) = content.get_mut(start..end) {
            place.fill(b'*');
        }
        from = end;
    }
}

/// How many bytes at the end of `content` may be the beginning of `secret`.
fn begun(content: &[u8], secret: &[u8]) -> usize {
    let Some((first, rest)) = secret.split_first() else { return 0 };
    let end = content.get(content.len().saturating_sub(rest.len())..).unwrap_or(&[]);
    let mut candidates = memchr::memchr_iter(*first, end);
    candidates.find_map(|at| end.get(at..).filter(|tail| secret.starts_with(tail))).map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_secret_is_blotted_out_everywhere() {
        let mut content = b"a sk-secret b sk-secret".to_vec();
        blot(&mut content, b"sk-secret");
        assert_eq!(content, b"a ********* b *********");
    }

    #[test]
    fn the_beginning_of_a_secret_is_seen_at_the_end_of_a_read() {
        for (content, held) in
            [("abc", 0), ("abc s", 1), ("abc sk-se", 5), ("sk-sk-", 3), ("sk-secret", 0), ("", 0)]
        {
            assert_eq!(begun(content.as_bytes(), b"sk-secret"), held, "{content}");
        }
    }
}
