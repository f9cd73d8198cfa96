//! What a load found, and its line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::answer::Reference;
use crate::histogram::Histogram;

/// Bytes of the first refusal kept for people to read.
const REFUSAL_BYTES: usize = 300;

/// Everything counted.
#[derive(Debug)]
pub struct Report {
    started: u64,
    /// Calls completed, in all and before the deadline.
    calls: u64,
    in_time: u64,
    /// Reads made and payload bytes in them.
    pub reads: u64,
    pub bytes: u64,
    /// Call to last byte; call to first stamped event; stamp to read, of the events behind the first.
    call: Histogram,
    pub first_event: Histogram,
    pub event: Histogram,
    /// Answers cut off; connections the peer closed.
    pub broken: u64,
    pub reconnects: u64,
    /// Streams with stamps out of order or doubled; streams without all their events; answers unlike the first.
    pub disordered: u64,
    pub incomplete: u64,
    pub differing: u64,
    /// Answers by status, other than 2xx, and the first one's text.
    refusals: BTreeMap<u16, u64>,
    refusal: String,
}

impl Report {
    /// An empty one.
    pub fn new(started: u64) -> Self {
        Self {
            started,
            calls: 0,
            in_time: 0,
            reads: 0,
            bytes: 0,
            call: Histogram::new(),
            first_event: Histogram::new(),
            event: Histogram::new(),
            broken: 0,
            reconnects: 0,
            disordered: 0,
            incomplete: 0,
            differing: 0,
            refusals: BTreeMap::new(),
            refusal: String::new(),
        }
    }

    /// The connections stand; the clock runs.
    pub fn start(&mut self, now: u64) {
        self.started = now;
    }

    /// Counts a complete answer.
    pub fn completed(&mut self, began: u64, now: u64, in_time: bool) {
        self.calls += 1;
        self.in_time += u64::from(in_time);
        self.call.record(now - began);
    }

    /// Counts an answer other than 2xx.
    pub fn refused(&mut self, status: u16, body: &[u8]) {
        *self.refusals.entry(status).or_default() += 1;
        if self.refusal.is_empty() {
            let text = String::from_utf8_lossy(body.get(..REFUSAL_BYTES).unwrap_or(body));
            self.refusal = text.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
        }
    }

    /// One JSON object; latencies in microseconds. `unfinished`: calls still under way.
    pub fn json(&self, ended: u64, unfinished: u64, reference: &Reference) -> String {
        let seconds = ended.saturating_sub(self.started) as f64 / 1e9;
        let events = self.event.total() + self.first_event.total();
        let hash = Sha256::digest(&reference.bytes).iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let refusals: Vec<String> = self.refusals.iter().map(|(code, n)| format!("\"{code}\":{n}")).collect();
        let fields = [
            ("seconds", format!("{seconds:.3}")),
            ("calls", self.calls.to_string()),
            ("calls_per_s", format!("{:.1}", self.in_time as f64 / seconds)),
            ("events", events.to_string()),
            ("events_per_s", format!("{:.1}", events as f64 / seconds)),
            ("reads", self.reads.to_string()),
            ("bytes", self.bytes.to_string()),
            ("call_us", self.call.json()),
            ("first_event_us", self.first_event.json()),
            ("event_us", self.event.json()),
            ("refused", self.refusals.values().sum::<u64>().to_string()),
            ("refusals", format!("{{{}}}", refusals.join(","))),
            ("refusal", format!("\"{}\"", self.refusal)),
            ("broken", self.broken.to_string()),
            ("reconnects", self.reconnects.to_string()),
            ("unfinished", unfinished.to_string()),
            ("disordered", self.disordered.to_string()),
            ("incomplete", self.incomplete.to_string()),
            ("differing", self.differing.to_string()),
            ("body_bytes", reference.bytes.len().to_string()),
            ("body_sha256", format!("\"{hash}\"")),
        ];
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}
