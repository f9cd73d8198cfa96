//! Token usage as providers report it, found without parsing the answer.

mod report;
#[cfg(test)]
mod tests;
mod walker;

use std::sync::LazyLock;

use memchr::memmem::Finder;

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

    /// Takes one whole SSE event; cheap when it holds no usage. Anthropic's `message_start` and
    /// `message_delta` merge (the delta's numbers are cumulative and win), others replace.
    pub fn event(&mut self, block: &[u8]) {
        if !mentions_usage(block) {
            return;
        }
        let event = sse::event(block);
        let Ok(json) = std::str::from_utf8(&event.data) else { return };
        let Ok([usage, response, message, kind]) =
            members(json, ["usage", "response", "message", "type"], Repeats::Last)
        else {
            return;
        };
        let within = |outer: Option<&serde_json::value::RawValue>| {
            let [usage] = members(outer?.get(), ["usage"], Repeats::Last).ok()?;
            Report::read(usage?.get())
        };
        let report = usage
            .and_then(|u| Report::read(u.get()))
            .or_else(|| within(response))
            .or_else(|| within(message));
        let Some(report) = report else { return };
        let merges = kind.is_some_and(|k| k.get() == "\"message_delta\"");
        self.seen = Some(match self.seen {
            Some(before) if merges => report.over(before),
            _ => report,
        });
    }

    /// Takes the next bytes of a buffered JSON answer, split anywhere. Memory is bounded by
    /// [`crate::limits::USAGE_BYTES`]; a larger `usage` is not counted.
    pub fn json(&mut self, bytes: &[u8]) {
        let seen = &mut self.seen;
        self.walker.feed(bytes, |usage| {
            *seen = usage.and_then(|u| std::str::from_utf8(u).ok()).and_then(Report::read);
        });
    }

    /// What was seen.
    pub fn usage(&self) -> Option<Usage> {
        self.seen.map(Report::usage)
    }
}

/// Whether a whole SSE event is the extra chunk that `stream_options.include_usage` asks for: `choices` is
/// an empty array and `usage` an object, both at the top level.
pub fn is_usage_chunk(block: &[u8]) -> bool {
    if !mentions_usage(block) {
        return false;
    }
    let event = sse::event(block);
    let Ok(json) = std::str::from_utf8(&event.data) else { return false };
    let Ok([Some(choices), Some(usage)]) = members(json, ["choices", "usage"], Repeats::Last) else {
        return false;
    };
    let inner = choices.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|rest| rest.trim_ascii().is_empty()) && usage.get().starts_with('{')
}

/// Whether a key `usage` with a value other than null is somewhere in `bytes`. A key written with escapes is
/// not found: no provider writes one.
fn mentions_usage(bytes: &[u8]) -> bool {
    static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
    let key = &*KEY;
    key.find_iter(bytes).any(|at| {
        let after = bytes.get(at + key.needle().len()..).unwrap_or(&[]).trim_ascii_start();
        after.strip_prefix(b":").is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
    })
}
