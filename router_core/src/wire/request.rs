//! A borrowed view of a model request: the few fields that policy and metering read, with their spans.
//!
//! The body is parsed once. Strings that no policy reads (the prompt) are passed over, not decoded.

mod decode;
mod lists;
mod media;
mod quick;
mod rewrite;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Result;
use crate::ids::Operation;

pub use rewrite::Rewrite;

/// A JSON value and where it stands in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value, decoded.
    pub value: T,
    /// The bytes of the value as written (quotes included).
    pub span: Range<usize>,
}

/// A tool that the request offers to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool<'b> {
    /// `function.name`, else `name`; `None` for built-in tools without one.
    pub name: Option<Cow<'b, str>>,
    /// The element's bytes in `tools`, without the commas around it.
    pub span: Range<usize>,
}

/// What the client said about `stream_options.include_usage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamUsage {
    /// No `stream_options` key (or `null`, whose span is given to be replaced).
    Absent(Option<Range<usize>>),
    /// `stream_options` is an object without `include_usage`: `at` is just after its `{`, `empty` if it has no key.
    Unset {
        /// Offset just after the `{`.
        at: usize,
        /// Whether the object has no members.
        empty: bool,
    },
    /// `include_usage` is there and not `true`: the span of its value.
    Off(Range<usize>),
    /// `include_usage` is `true`.
    On,
}

/// The view. Every key it reads appears at most once in the body: duplicates are refused, because two
/// parsers may pick different ones. So are keys that differ from such a one only by case, which some
/// parsers (Go's `encoding/json`) take for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'b> {
    /// `model`, when it is a string.
    pub model: Option<Spanned<Cow<'b, str>>>,
    /// `stream` is `true`.
    pub stream: bool,
    /// Each output cap that is present: (key, value). Keys: `max_completion_tokens`, `max_tokens`, `max_output_tokens`.
    pub caps: Vec<(&'static str, Spanned<u64>)>,
    /// `n`, default 1; where `best_of` is larger, that: the provider writes and bills as many answers.
    pub choices: u64,
    /// `stream_options.include_usage`.
    pub stream_usage: StreamUsage,
    /// `tools`, empty when absent.
    pub tools: Vec<Tool<'b>>,
    /// The span of the `tools` value.
    pub tools_span: Option<Range<usize>>,
    /// `functions`, the older form of `tools` that chat completions still take; empty when absent.
    pub functions: Vec<Tool<'b>>,
    /// Responses only: spans of `input[]` elements whose `type` is `reasoning`, and of the
    /// `include[]` elements equal to `reasoning.encrypted_content` (the Azure quirk strips them).
    pub reasoning: Vec<Range<usize>>,
    /// The keys above whose value is `null`, which is as if absent, with the value's span.
    pub nulls: Vec<(&'static str, Range<usize>)>,
    /// Bytes of text a model reads: the body without the payload of its `data:` URLs and base64 `data` strings.
    pub text_bytes: u64,
    /// Images, audio and files in the request.
    pub media_parts: u64,
    /// Offset just after the opening `{`.
    pub open: usize,
    /// Whether the object has no members.
    pub empty: bool,
}

/// Reads a request body of `operation`. Fails with `BadRequest` when the body is not one JSON object, or
/// repeats a key it reads, or gives such a key a value of a wrong type; the text names the key.
pub fn read(operation: Operation, body: &[u8]) -> Result<Request<'_>> {
    decode::read(operation, body)
}
