//! Every bound on what a peer controls, each with its reason.

use std::time::Duration;

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
/// Entries of one egress list: above any list that people review, small enough to compile in milliseconds.
pub const EGRESS_ENDPOINTS: usize = 20_000;
/// Rules of one egress list for one host and port: a decision looks at each of them.
pub const EGRESS_RULES_PER_PLACE: usize = 64;
/// Address blocks that one endpoint may grant: every address of a connection is held against each.
pub const EGRESS_GRANTS: usize = 32;
/// Methods of one endpoint: HTTP's registry has fewer than 40, most of them `WebDAV`'s.
pub const EGRESS_METHODS: usize = 40;
/// Longest method: the registry's longest has 17 letters.
pub const EGRESS_METHOD_BYTES: usize = 32;
/// Longest path prefix of an endpoint.
pub const EGRESS_PREFIX_BYTES: usize = 1024;
/// Length of a nonce that a question for the policy status bears: 128 bits in hex, and room for other clients' habits.
pub const PROOF_NONCE_BYTES: std::ops::RangeInclusive<usize> = 32..=128;
/// Largest value kept of `last_error` in the policy status, as the controller expects.
pub const STATUS_ERROR_BYTES: usize = 512;
/// Model labels in metrics before `other` takes the rest: dashboards stay readable, scrapes small.
pub const MODEL_LABELS: usize = 64;
/// Largest TLS client hello: post-quantum key shares take 2 KiB, and no client comes near four full records.
pub const CLIENT_HELLO_BYTES: usize = 64 * 1024;
/// Most extensions of a client hello: browsers send below 20, and IANA has some 70 kinds.
pub const CLIENT_HELLO_EXTENSIONS: usize = 128;
/// Addresses of one name that are looked at: more are no more reachable.
pub const ADDRESSES: usize = 16;
/// Names whose addresses one thread remembers: an agent's real ones are tens, and a row is below 1 KiB.
pub const RESOLVED_NAMES: usize = 1024;
/// Names that one thread asks for at one time. One that nobody answers holds up to 16 sockets (two record types, two
/// servers, four sendings), and the usual soft limit of open files is 1024.
pub const LOOKUPS: usize = 64;
/// Shortest and longest time that addresses are remembered: a burst of connections is one query, and a destination that
/// moves is followed within minutes whatever its zone says.
pub const RESOLVED_SHORTEST: Duration = Duration::from_secs(1);
/// See [`RESOLVED_SHORTEST`].
pub const RESOLVED_LONGEST: Duration = Duration::from_secs(300);
/// Longest time that a missing name is remembered (RFC 2308 §5 allows hours): a service that was just made appears soon.
pub const MISSING_LONGEST: Duration = Duration::from_secs(5);
/// How long a failed resolution is remembered (RFC 9520 §3.2: at least one second), so that a dead server is not stormed.
pub const FAILED_LOOKUP: Duration = Duration::from_secs(1);
/// Connections above the bound of the egress port that are being told so at one time; more wait in the kernel's queue.
pub const EGRESS_REFUSALS: usize = 1024;
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
/// Memory that the kept copy of one feed may take where no directory can hold it: 400 000 names as they are written.
pub const FEED_MEMORY_BYTES: usize = 8 * 1024 * 1024;
/// Redirects that a feed may answer with: a mirror and its mirror.
pub const FEED_REDIRECTS: u8 = 3;
/// Largest body of a request to the egress routes, `/egress/fetch` aside: they hold one short member.
pub const EGRESS_REQUEST_BYTES: usize = 64 * 1024;
/// Largest `POST /egress/fetch` request (the reference's bound on every JSON body).
pub const FETCH_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// Content of a fetched answer that is passed on; the rest is cut off and said so (the reference's bound).
pub const FETCH_BODY_BYTES: usize = 2_097_152;
/// Longest URL to fetch: browsers and servers stop at 8 to 16 KiB.
pub const FETCH_URL_BYTES: usize = 16 * 1024;
/// Header fields that a fetch may bring, below what a head may have.
pub const FETCH_FIELDS: usize = 64;
/// Bytes of their names and values together, so that the head stays below [`HEAD_BYTES`].
pub const FETCH_FIELD_BYTES: usize = 32 * 1024;
/// Redirects that a fetch may follow.
pub const FETCH_REDIRECTS: u8 = 5;
/// Rows of one page of blocked destinations (the reference's number).
pub const BLOCKED_PAGE: usize = 4096;
/// Rows of the most blocked destinations (the reference's number).
pub const BLOCKED_TOP: usize = 100;
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
