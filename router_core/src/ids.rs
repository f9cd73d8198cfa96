//! Parsed names: each newtype's only constructor is `parse`, so that holding one means it is valid.

mod egress;
mod host;

use std::fmt;

use crate::error::Error;
use crate::limits;

pub use egress::{EgressDoor, EgressReason};
pub use host::{Destination, Host, HostFault};

/// The shape in which a client expects its errors and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `{"error":{"message","type","param","code"}}` and `data:` events (OpenAI).
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}` and named events (Anthropic).
    Anthropic,
}

/// What a call does at the provider; decides metering, rewrites and error shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `POST chat/completions`.
    Chat,
    /// `POST responses`.
    Responses,
    /// `POST completions`.
    Completions,
    /// `POST embeddings`.
    Embeddings,
    /// `POST images/generations`.
    Images,
    /// `POST messages` (Anthropic).
    Messages,
    /// `POST messages/count_tokens` (Anthropic).
    CountTokens,
    /// Reads that bill nothing: model and deployment lists, stored responses.
    Read,
}

impl Operation {
    /// All operations, in the order of their metric label values.
    pub const ALL: [Self; 8] = [
        Self::Chat,
        Self::Responses,
        Self::Completions,
        Self::Embeddings,
        Self::Images,
        Self::Messages,
        Self::CountTokens,
        Self::Read,
    ];

    /// The name in audit records, metrics and action strings (`inference:<name>:<model>`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat_completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Images => "image_generation",
            Self::Messages => "anthropic_messages",
            Self::CountTokens => "anthropic_count_tokens",
            Self::Read => "read",
        }
    }

    /// The dialect its clients speak.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }

    /// Whether the model writes text for it, so that model preference and output caps apply.
    pub fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Responses | Self::Completions | Self::Messages)
    }
}

/// A sandbox's name: 1 to 63 bytes of `[a-z0-9-]`, the first alphanumeric (a DNS label).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SandboxName(Box<str>);

impl SandboxName {
    /// Parses a name; the error says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let label = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let valid = (1..=63).contains(&bytes.len())
            && bytes.iter().all(label)
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(Error::bad_request(
                "a sandbox name is 1 to 63 characters of a-z, 0-9 and '-', starting with a letter or digit",
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A trace id as it travels in `x-kars-trace-id`: at most 128 bytes of `[A-Za-z0-9_-]`, held inline.
#[derive(Clone, Copy)]
pub struct TraceId {
    bytes: [u8; limits::TRACE_ID_BYTES],
    len: u8,
}

impl TraceId {
    /// Takes a client's id when it is well formed.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-';
        if bytes.is_empty() || bytes.len() > limits::TRACE_ID_BYTES || !bytes.iter().all(word) {
            return None;
        }
        let mut id = Self { bytes: [0; limits::TRACE_ID_BYTES], len: u8::try_from(bytes.len()).ok()? };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(id)
    }

    /// Makes an id of 16 lowercase hex digits from 64 bits that the caller drew at random.
    pub fn from_bits(bits: u64) -> Self {
        let mut id = Self { bytes: [0; limits::TRACE_ID_BYTES], len: 16 };
        for (i, slot) in id.bytes.iter_mut().take(16).enumerate() {
            let nibble = (bits >> (60 - 4 * i)) & 0xf;
            *slot = char::from_digit(u32::try_from(nibble).unwrap_or(0), 16).map_or(b'0', |c| c as u8);
        }
        id
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or(&[]);
        std::str::from_utf8(bytes).unwrap_or("")
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
