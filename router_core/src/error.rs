//! One opaque error with a [`Kind`]: what went wrong, whether trying again can help, what to tell.

use std::fmt;

/// What went wrong, coarse enough to decide a status, a retry and a log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The peer's bytes break their own grammar (HTTP head, JSON body, SSE framing).
    BadRequest,
    /// The peer sent more than a bound of `limits` or of the settings allows.
    TooLarge {
        /// Size seen or announced, in bytes.
        got: u64,
        /// The bound, in bytes.
        max: u64,
    },
    /// Not ready to serve: no policy, or draining.
    NotReady,
    /// The upstream failed in the given step.
    Upstream(Step),
    /// A deadline of the given step passed.
    Timeout(Step),
    /// The client left.
    Canceled,
    /// The settings are wrong. Never on the wire.
    Config,
    /// A policy file is wrong. Never on the wire.
    Policy,
    /// Reading or writing a file of ours failed.
    Io,
    /// An invariant of ours does not hold. Its counter must be 0.
    Bug,
}

/// The step of an upstream exchange in which something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Name resolution.
    Resolve,
    /// TCP connect.
    Connect,
    /// TLS handshake.
    Tls,
    /// Writing the request.
    Write,
    /// Waiting for the response head.
    FirstByte,
    /// A silence between two reads of a body.
    Idle,
    /// The whole exchange.
    Total,
    /// The connection broke before the response ended.
    Reset,
    /// The upstream's bytes are not HTTP as RFC 9112 and RFC 9113 have it.
    Protocol,
}

impl Step {
    /// The step's name in metrics, audit records and error codes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Write => "write",
            Self::FirstByte => "first_byte",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
        }
    }
}

/// An error of the core. Its text names what was wrong and never holds a secret or a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    detail: Box<str>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error; `detail` is shown to people and must not hold secrets or content.
    pub fn new(kind: Kind, detail: impl Into<Box<str>>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// A [`Kind::BadRequest`] with what was wrong.
    pub fn bad_request(detail: impl Into<Box<str>>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// A [`Kind::Io`] that names the file and the operation.
    pub fn io(what: impl fmt::Display, cause: &std::io::Error) -> Self {
        Self::new(Kind::Io, format!("{what}: {cause}"))
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}
