//! The words that decisions about egress are told in: metrics, audit records and denials share them.

/// How a connection asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressDoor {
    /// `CONNECT`, over HTTP/1.1 or HTTP/2.
    Connect,
    /// A plain HTTP request.
    Http,
    /// A redirected TLS connection, known by its SNI.
    Tls,
    /// `POST /egress/fetch`.
    Fetch,
}

impl EgressDoor {
    /// All doors, in the order of their metric label values.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Http, Self::Tls, Self::Fetch];

    /// The name in audit records (`egress:<name>:<host>:<port>`) and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Fetch => "fetch",
        }
    }
}

/// Why a connection may leave, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressReason {
    /// An endpoint of the allowlist matches.
    Allowlist,
    /// A live approval matches.
    Approval,
    /// Learn mode lets it pass and remembers it.
    Learn,
    /// The host is on a blocklist.
    Blocklist,
    /// A deny rule matches.
    DenyRule,
    /// Nothing allows it.
    Unlisted,
    /// No allowlist is mounted.
    NoPolicy,
    /// Only addresses that are not to be dialled.
    Address,
    /// The names that the client gave for one destination differ.
    Fronting,
    /// The client hello hides the name (ECH, ESNI).
    EncryptedHello,
    /// The client hello has no server name.
    NoServerName,
    /// The bytes break their grammar.
    Malformed,
    /// Too many connections at one time.
    Slots,
}

impl EgressReason {
    /// All reasons, in the order of their metric label values.
    pub const ALL: [Self; 13] = [
        Self::Allowlist,
        Self::Approval,
        Self::Learn,
        Self::Blocklist,
        Self::DenyRule,
        Self::Unlisted,
        Self::NoPolicy,
        Self::Address,
        Self::Fronting,
        Self::EncryptedHello,
        Self::NoServerName,
        Self::Malformed,
        Self::Slots,
    ];

    /// The name in metrics, audit records and machine-readable denials.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowlist => "allowlist",
            Self::Approval => "approval",
            Self::Learn => "learn",
            Self::Blocklist => "blocklist",
            Self::DenyRule => "deny_rule",
            Self::Unlisted => "unlisted",
            Self::NoPolicy => "no_policy",
            Self::Address => "address",
            Self::Fronting => "fronting",
            Self::EncryptedHello => "encrypted_hello",
            Self::NoServerName => "no_server_name",
            Self::Malformed => "malformed",
            Self::Slots => "slots",
        }
    }

    /// Whether the connection may leave.
    pub fn allows(self) -> bool {
        matches!(self, Self::Allowlist | Self::Approval | Self::Learn)
    }
}
