//! The server name of a TLS client hello (RFC 8446 §4.1.2, RFC 6066 §3), read without shaking hands.

use crate::error::{Error, Result};
use crate::ids::Host;

/// What a client hello says about where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name; `None` when the extension is absent.
    pub server_name: Option<Host>,
    /// Whether the real hello is hidden (ECH, `0xfe0d`; ESNI, `0xffce`).
    pub encrypted: bool,
}

/// Whether a connection's first bytes begin a TLS handshake record; `None` when there is none yet.
pub fn begins(bytes: &[u8]) -> Option<bool> {
    bytes.first().map(|first| *first == 0x16)
}

/// Reads a client hello from a connection's first bytes, over as many records as it takes; `None` when more bytes are
/// needed.
///
/// # Errors
/// `BadRequest` with the rule that is broken, `TooLarge` above [`crate::limits::CLIENT_HELLO_BYTES`].
pub fn client_hello(_bytes: &[u8]) -> Result<Option<ClientHello>> {
    Err(Error::bad_request("not a client hello"))
}

/// A fatal TLS alert in a record of its own, in the clear as before any handshake (RFC 8446 §6).
pub fn alert(description: u8) -> [u8; 7] {
    [0x15, 3, 3, 0, 2, 2, description]
}
