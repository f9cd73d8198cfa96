//! Every bound on what a peer controls, each with its reason.

/// Largest request or response head. Node, Envoy and nginx cap between 8 and 60 KiB; SDK heads with long
/// bearer tokens and trace baggage stay below 16 KiB.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Most header fields in one head: above what any SDK sends, small enough to parse on the stack.
pub const HEAD_FIELDS: usize = 96;
/// Largest chunk-size line with its extensions (RFC 9112 §7.1.1 asks for a bound).
pub const CHUNK_LINE_BYTES: usize = 4 * 1024;
/// Largest trailer section of a chunked body; trailers are dropped, so only a bound matters.
pub const TRAILER_BYTES: usize = 16 * 1024;
/// Default cap on a request body: vision and audio requests fit, a flood does not.
pub const BODY_BYTES: usize = 32 * 1024 * 1024;
/// Largest single SSE event that is inspected whole; `response.completed` echoes the whole answer.
pub const EVENT_BYTES: usize = 1024 * 1024;
/// Largest `usage` object: real ones are below 1 KiB.
pub const USAGE_BYTES: usize = 8 * 1024;
/// Longest model name: deployment names are at most 64, Hugging Face paths below 200.
pub const MODEL_BYTES: usize = 256;
/// Longest client-chosen trace id (`x-kars-trace-id`).
pub const TRACE_ID_BYTES: usize = 128;
/// Largest policy file: an etcd object is at most 1.5 MiB.
pub const POLICY_BYTES: usize = 2 * 1024 * 1024;
/// Largest value kept of `last_error` in the policy status, as the controller expects.
pub const STATUS_ERROR_BYTES: usize = 512;
/// Model labels in metrics before `other` takes the rest: dashboards stay readable, scrapes small.
pub const MODEL_LABELS: usize = 64;
/// Largest TLS client hello: post-quantum key shares take 2 KiB, and no client comes near four full records.
pub const CLIENT_HELLO_BYTES: usize = 64 * 1024;
/// Addresses of one name that are looked at: more are no more reachable.
pub const ADDRESSES: usize = 16;
/// Rows of destinations that learn mode keeps: an agent's real ones are tens, a scan's are not worth keeping.
pub const LEARNED_ROWS: usize = 4096;
/// Rows of blocked destinations, and new ones that one source may add per minute (the reference's numbers).
pub const BLOCKED_ROWS: usize = 1024;
/// See [`BLOCKED_ROWS`].
pub const BLOCKED_NEW_PER_MINUTE: usize = 100;
/// Names of one blocklist feed, and bytes of its text (the reference's bounds).
pub const FEED_NAMES: usize = 1_000_000;
/// See [`FEED_NAMES`].
pub const FEED_BYTES: usize = 50 * 1024 * 1024;
/// Calls that can hold a budget reservation at one time.
pub const RESERVATIONS: usize = 8192;
/// Bytes of a kernel pipe, and so of what one direction of a tunnel holds for a slow reader: the most that
/// an unprivileged process may ask for (pipe-max-size). Half of it does; with less, splicing costs more than copying.
pub const PIPE_BYTES: usize = 1024 * 1024;
/// Pipes of one thread: a quarter of what pipe(7) lets all processes of a user hold (pipe-user-pages-soft).
/// A pipe is lent for one turn unless its reader stalls, so few are needed. Beyond them bulk is copied.
pub const PIPES: usize = 16;
/// Empty pipes that a thread keeps.
pub const PIPES_SPARE: usize = 4;
