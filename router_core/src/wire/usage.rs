//! Token usage as providers report it, found without parsing the answer.

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

/// Collects the usage of one answer.
#[derive(Debug, Default)]
pub struct Meter {
    seen: Option<Usage>,
}

impl Meter {
    /// A meter that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one whole SSE event; cheap when it holds no usage. Anthropic's `message_start` and
    /// `message_delta` merge (the delta's numbers are cumulative and win), others replace.
    pub fn event(&mut self, _block: &[u8]) {}

    /// Takes the next bytes of a buffered JSON answer, split anywhere.
    pub fn json(&mut self, _bytes: &[u8]) {}

    /// What was seen.
    pub fn usage(&self) -> Option<Usage> {
        self.seen
    }
}

/// Whether a whole SSE event is the extra chunk that `stream_options.include_usage` asks for: `choices` is
/// an empty array and `usage` an object, both at the top level.
pub fn is_usage_chunk(_block: &[u8]) -> bool {
    false
}
