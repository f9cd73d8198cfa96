//! What a load of tunnels found, and its line of JSON.

use std::collections::BTreeMap;

use crate::histogram::Histogram;

/// Bytes of the first refusal kept for people to read.
const REFUSAL_BYTES: usize = 300;

/// Everything counted.
#[derive(Debug)]
pub struct Report {
    /// When the clock began to run.
    pub started: u64,
    /// Tunnels that stood.
    pub opened: u64,
    /// Bytes that came back, in all and before the deadline.
    ops: u64,
    ops_in_time: u64,
    /// Bytes received, in all and before the deadline, and those of a stream that were compared.
    bytes: u64,
    bytes_in_time: u64,
    pub compared: u64,
    reads: u64,
    /// Dialling to open; an operation's beginning to its byte: of a ping its sending, of `connects` the dialling.
    setup: Histogram,
    op: Histogram,
    /// Tunnels that broke off, bytes or stretches unlike those sent, streams that ended before their end.
    pub broken: u64,
    pub differing: u64,
    pub incomplete: u64,
    /// Answers by status, other than 2xx, and the first one's text.
    refusals: BTreeMap<String, u64>,
    refusal: String,
}

impl Report {
    /// An empty one.
    pub fn new(started: u64) -> Self {
        Self {
            started,
            opened: 0,
            ops: 0,
            ops_in_time: 0,
            bytes: 0,
            bytes_in_time: 0,
            compared: 0,
            reads: 0,
            setup: Histogram::new(),
            op: Histogram::new(),
            broken: 0,
            differing: 0,
            incomplete: 0,
            refusals: BTreeMap::new(),
            refusal: String::new(),
        }
    }

    /// Counts a tunnel that stands.
    pub fn stands(&mut self, took: u64) {
        self.opened += 1;
        self.setup.record(took);
    }

    /// Counts a byte that came back.
    pub fn completed(&mut self, took: u64, in_time: bool) {
        self.ops += 1;
        self.ops_in_time += u64::from(in_time);
        self.op.record(took);
    }

    /// Counts one read.
    pub fn received(&mut self, len: usize, in_time: bool) {
        self.reads += 1;
        self.bytes += len as u64;
        self.bytes_in_time += if in_time { len as u64 } else { 0 };
    }

    /// Counts an answer other than 2xx.
    pub fn refused(&mut self, answer: &[u8]) {
        let text = String::from_utf8_lossy(answer.get(..REFUSAL_BYTES).unwrap_or(answer));
        let text: String = text.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
        let status = text.split(' ').nth(1).unwrap_or("none").to_owned();
        *self.refusals.entry(status).or_default() += 1;
        if self.refusal.is_empty() {
            self.refusal = text;
        }
    }

    /// Tunnels that came to nothing.
    pub fn failed(&self) -> u64 {
        self.broken + self.refusals.values().sum::<u64>()
    }

    /// One JSON object; latencies in microseconds, `mb` in millions of bytes. `unfinished`: tunnels still under way.
    pub fn json(&self, ended: u64, unfinished: usize) -> String {
        let seconds = ended.saturating_sub(self.started) as f64 / 1e9;
        let refusals: Vec<String> = self.refusals.iter().map(|(code, n)| format!("\"{code}\":{n}")).collect();
        let fields = [
            ("seconds", format!("{seconds:.3}")),
            ("tunnels", self.opened.to_string()),
            ("ops", self.ops.to_string()),
            ("ops_per_s", format!("{:.1}", self.ops_in_time as f64 / seconds)),
            ("bytes", self.bytes.to_string()),
            ("mb", format!("{:.6}", self.bytes as f64 / 1e6)),
            ("gb_per_s", format!("{:.4}", self.bytes_in_time as f64 / 1e9 / seconds)),
            ("compared", self.compared.to_string()),
            ("reads", self.reads.to_string()),
            ("setup_us", self.setup.json()),
            ("op_us", self.op.json()),
            ("refused", self.refusals.values().sum::<u64>().to_string()),
            ("refusals", format!("{{{}}}", refusals.join(","))),
            ("refusal", format!("\"{}\"", self.refusal)),
            ("broken", self.broken.to_string()),
            ("unfinished", unfinished.to_string()),
            ("differing", self.differing.to_string()),
            ("incomplete", self.incomplete.to_string()),
        ];
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}
