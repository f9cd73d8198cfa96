//! One `usage` object, in any provider's shape.

use serde_json::value::RawValue;

use super::{Usage, quick};
use crate::wire::members::{Repeats, members};

/// The numbers of a `usage` object, as far as they are there.
///
/// Shapes: `OpenAI` chat, completions and embeddings (`prompt_tokens`, `completion_tokens`, `total_tokens`,
/// details), `OpenAI` responses (`input_tokens`, `output_tokens`, details), Anthropic messages (`input_tokens`
/// without the cached ones, `cache_read_input_tokens`, `cache_creation_input_tokens`, `output_tokens`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    prompt: Option<u64>,
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    /// Cached tokens that are part of `prompt` or `input`.
    cached: Option<u64>,
    /// Cached tokens that Anthropic counts beside `input`.
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
}

/// The numbers of a `usage` object by their place in it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) prompt: Option<u64>,
    pub(super) input: Option<u64>,
    pub(super) completion: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) cache_read: Option<u64>,
    pub(super) cache_write: Option<u64>,
    pub(super) prompt_cached: Option<u64>,
    pub(super) input_cached: Option<u64>,
    pub(super) completion_reasoning: Option<u64>,
    pub(super) output_reasoning: Option<u64>,
}

impl Numbers {
    /// What they say together; `None` when none is known.
    pub(super) fn report(self) -> Option<Report> {
        let report = Report {
            prompt: self.prompt,
            input: self.input,
            output: self.completion.or(self.output),
            total: self.total,
            cached: self.prompt_cached.or(self.input_cached),
            cache_read: self.cache_read,
            cache_write: self.cache_write,
            reasoning: self.completion_reasoning.or(self.output_reasoning),
        };
        (report != Report::default()).then_some(report)
    }
}

impl Report {
    /// Reads a whole `usage` value; `None` when it is no object or has no number that is known.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        match quick::read(json) {
            Some((report, len)) if len == json.len() => report,
            _ => Self::parse(std::str::from_utf8(json).ok()?),
        }
    }

    /// The same of any JSON text.
    pub(super) fn parse(json: &str) -> Option<Self> {
        const NAMES: [&str; 11] = [
            "prompt_tokens",
            "input_tokens",
            "completion_tokens",
            "output_tokens",
            "total_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "prompt_tokens_details",
            "input_tokens_details",
            "completion_tokens_details",
            "output_tokens_details",
        ];
        let [prompt, input, completion, output, total, read, write, details @ ..] =
            members(json, NAMES, Repeats::Last).ok()?;
        let [prompt_in, input_in, completion_in, output_in] = details;
        let numbers = Numbers {
            prompt: count(prompt),
            input: count(input),
            completion: count(completion),
            output: count(output),
            total: count(total),
            cache_read: count(read),
            cache_write: count(write),
            prompt_cached: detail(prompt_in, "cached_tokens"),
            input_cached: detail(input_in, "cached_tokens"),
            completion_reasoning: detail(completion_in, "reasoning_tokens"),
            output_reasoning: detail(output_in, "reasoning_tokens"),
        };
        numbers.report()
    }

    /// These numbers, and those of `before` where these are absent.
    pub(super) fn over(self, before: Self) -> Self {
        Self {
            prompt: self.prompt.or(before.prompt),
            input: self.input.or(before.input),
            output: self.output.or(before.output),
            total: self.total.or(before.total),
            cached: self.cached.or(before.cached),
            cache_read: self.cache_read.or(before.cache_read),
            cache_write: self.cache_write.or(before.cache_write),
            reasoning: self.reasoning.or(before.reasoning),
        }
    }

    pub(super) fn usage(self) -> Usage {
        let (cache_read, cache_write) = (self.cache_read.unwrap_or(0), self.cache_write.unwrap_or(0));
        let beside = if self.cached.is_some() { 0 } else { cache_read.saturating_add(cache_write) };
        let input = match (self.prompt, self.input, self.output) {
            // `prompt_tokens` includes cached tokens, also where a gateway adds Anthropic's names.
            (Some(prompt), _, _) => prompt,
            (None, Some(input), _) => input.saturating_add(beside),
            (None, None, None) if beside == 0 => self.total.unwrap_or(0),
            (None, None, _) => beside,
        };
        Usage {
            input,
            output: self.output.unwrap_or(0),
            cache_read: self.cached.unwrap_or(cache_read),
            cache_write,
            reasoning: self.reasoning.unwrap_or(0),
        }
    }
}

fn detail(details: Option<&RawValue>, name: &'static str) -> Option<u64> {
    let [value] = members(details?.get(), [name], Repeats::Last).ok()?;
    count(value)
}

/// A token count: whole numbers saturate, fractions are cut off, all else is none.
fn count(value: Option<&RawValue>) -> Option<u64> {
    let text = value?.get();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(u64::MAX));
    }
    let number: f64 = text.parse().ok().filter(|n: &f64| *n >= 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, as is wanted"
    )]
    text.starts_with(|c: char| c.is_ascii_digit()).then_some(number as u64)
}
