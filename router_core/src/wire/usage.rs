//! Token usage as providers report it, found without parsing the answer.

mod quick;
mod report;
#[cfg(test)]
mod tests;
mod walker;

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::value::RawValue;

use crate::wire::members::{Repeats, members};
use crate::wire::sse;
use report::Report;
use walker::Walker;

/// Tokens of one call. `input` includes cached input; `output` includes reasoning.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Input tokens read from the provider's prompt cache.
    pub cache_read: u64,
    /// Input tokens written to the provider's prompt cache.
    pub cache_write: u64,
    /// Output tokens spent on reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// What a budget counts.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// What [`Meter::event`] found an event to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The extra chunk that `stream_options.include_usage` asks for: `choices` is an empty array and `usage` an
    /// object, both at the top level.
    UsageChunk,
    /// Any other event.
    Other,
}

/// Collects the usage of one answer, streamed or buffered.
///
/// Counted is only an object named `usage` at the top level of an event or answer, or directly in its
/// `response` (Responses API) or `message` (Anthropic): a tool schema, metadata or text that is echoed
/// elsewhere cannot pass for it. Of several, the last one counts. Members that are null, negative or no number
/// are as if absent; numbers above 2^64 saturate.
#[derive(Debug, Default)]
pub struct Meter {
    seen: Option<Report>,
    walker: Walker,
}

impl Meter {
    /// A meter that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one whole SSE event and says what it is; cheap when it holds no usage. Anthropic's `message_start`
    /// and `message_delta` merge (the delta's numbers are cumulative and win), others replace.
    pub fn event(&mut self, block: &[u8]) -> EventKind {
        if mentions(block).next().is_none() {
            return EventKind::Other;
        }
        self.parsed(block).unwrap_or(EventKind::Other)
    }

    fn parsed(&mut self, block: &[u8]) -> Option<EventKind> {
        let event = sse::event(block);
        let json = std::str::from_utf8(&event.data).ok()?;
        let names = ["usage", "response", "message", "type", "choices"];
        let [usage, response, message, kind, choices] = members(json, names, Repeats::Last).ok()?;
        let within = |outer: Option<&RawValue>| {
            let [usage] = members(outer?.get(), ["usage"], Repeats::Last).ok()?;
            Report::read(usage?.get().as_bytes())
        };
        let report = usage
            .and_then(|u| Report::read(u.get().as_bytes()))
            .or_else(|| within(response))
            .or_else(|| within(message));
        if let Some(report) = report {
            let merges = kind.is_some_and(|k| k.get() == "\"message_delta\"");
            self.seen = Some(match self.seen {
                Some(before) if merges => report.over(before),
                _ => report,
            });
        }
        let extra = choices.is_some_and(is_empty_array) && usage.is_some_and(|u| u.get().starts_with('{'));
        Some(if extra { EventKind::UsageChunk } else { EventKind::Other })
    }

    /// Takes the next bytes of a buffered JSON answer, split anywhere. Memory is bounded by
    /// [`crate::limits::USAGE_BYTES`]; a larger `usage` is not counted.
    pub fn json(&mut self, bytes: &[u8]) {
        let seen = &mut self.seen;
        self.walker.feed(bytes, |report| *seen = report);
    }

    /// What was seen.
    pub fn usage(&self) -> Option<Usage> {
        self.seen.map(Report::usage)
    }
}

fn is_empty_array(value: &RawValue) -> bool {
    let inner = value.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|rest| rest.trim_ascii().is_empty())
}

/// Where in `bytes` a key `usage` stands with a value other than null, so that an event may be worth a look. A
/// key written with escapes is not found: no provider writes one.
pub fn mentions(bytes: &[u8]) -> impl Iterator<Item = usize> {
    static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
    let key = &*KEY;
    key.find_iter(bytes).filter(|at| {
        let after = bytes.get(at + key.needle().len()..).unwrap_or(&[]).trim_ascii_start();
        after.strip_prefix(b":").is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
    })
}
