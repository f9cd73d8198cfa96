//! The server name of a TLS client hello (RFC 8446 §4.1.2, RFC 6066 §3), read without shaking hands.
//!
//! A hello that two readers could understand differently is refused: the server behind us must see the name that we
//! decided about. What follows the hello (early data) is not looked at.

mod records;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::ids::Host;
use crate::limits;

/// What a client hello says about where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name; `None` when the extension is absent.
    pub server_name: Option<Host>,
    /// Whether the real hello is, or may be, hidden (ECH, `0xfe0d`; ESNI, `0xffce`). Browsers send an empty ECH to
    /// everybody (GREASE, RFC 9849 §6.2), which nobody but the server can tell from a real one.
    pub encrypted: bool,
}

/// Reads a client hello from a connection's first bytes, over as many records as it takes; `None` when more bytes are
/// needed. Longer input never changes a verdict. Costs a look at each record's header until the hello is complete.
///
/// # Errors
/// `BadRequest` with the rule that is broken, `TooLarge` above [`crate::limits::CLIENT_HELLO_BYTES`].
pub fn client_hello(bytes: &[u8]) -> Result<Option<ClientHello>> {
    let Some(body) = records::message(bytes)? else { return Ok(None) };
    hello(&body).map(Some)
}

/// A fatal alert in the clear, as a server sends it instead of its hello (RFC 8446 §6; the numbers are in its §6.2).
pub fn alert(description: u8) -> [u8; 7] {
    [0x15, 3, 3, 0, 2, 2, description]
}

const SERVER_NAME: u16 = 0;
const ESNI: u16 = 0xffce;
/// Encrypted client hello (RFC 9849), and its drafts 8 to 12 before it.
const ECH: std::ops::RangeInclusive<u16> = 0xfe08..=0xfe0d;
/// Kinds of extension that one hello has, in order not to take two of a kind.
type Kinds = [u16; limits::CLIENT_HELLO_EXTENSIONS];

/// The body of the message, behind its four-byte header.
fn hello(body: &[u8]) -> Result<ClientHello> {
    let mut reader = Reader(body);
    let version = reader.short("version")?;
    if !(0x0300..=0x0303).contains(&version) {
        return Err(broken("a version that is not SSL 3.0 to TLS 1.2 (TLS 1.3 calls itself 1.2 here)"));
    }
    reader.take(32, "random")?;
    let session = reader.byte_vector("session id")?;
    let suites = reader.short_vector("cipher suites")?;
    let compressions = reader.byte_vector("compression methods")?;
    if session.len() > 32 {
        return Err(broken("a session id above 32 bytes"));
    }
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(broken("a list of cipher suites that is empty or odd"));
    }
    if !compressions.contains(&0) {
        return Err(broken("no null compression"));
    }
    let mut hello = ClientHello { server_name: None, encrypted: false };
    if reader.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Reader(reader.short_vector("extensions")?);
    if !reader.0.is_empty() {
        return Err(broken("bytes behind its extensions"));
    }
    let mut seen: Kinds = [0; limits::CLIENT_HELLO_EXTENSIONS];
    for count in 0_usize.. {
        if extensions.0.is_empty() {
            break;
        }
        let kind = extensions.short("extension")?;
        let data = extensions.short_vector("extension")?;
        if seen.get(..count).is_some_and(|seen| seen.contains(&kind)) {
            return Err(broken("two extensions of one kind"));
        }
        *seen.get_mut(count).ok_or_else(|| broken("more extensions than any client has"))? = kind;
        hello.encrypted |= kind == ESNI || ECH.contains(&kind);
        if kind == SERVER_NAME {
            hello.server_name = Some(server_name(data)?);
        }
    }
    Ok(hello)
}

/// The one name of a `ServerNameList` (RFC 6066 §3). Names of other types have no defined length, so that nobody could
/// read on behind them.
fn server_name(data: &[u8]) -> Result<Host> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.short_vector("server name list")?);
    let kind = list.take(1, "server name list")?;
    let name = list.short_vector("server name")?;
    if kind != [0] || !list.0.is_empty() || !reader.0.is_empty() {
        return Err(broken("a server name list that is not one host name"));
    }
    match Host::read(name) {
        Ok(host @ Host::Name(_)) => Ok(host),
        Ok(Host::Ip(_)) => Err(broken("an IP address for a server name, which RFC 6066 forbids")),
        Err(fault) => Err(Error::bad_request(format!("the server name of the client hello {fault}"))),
    }
}

fn broken(what: &str) -> Error {
    Error::bad_request(format!("the client hello has {what}"))
}

/// The bytes not read yet.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'b [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| Error::bad_request(format!("the client hello ends within its {what}")))?;
        self.0 = rest;
        Ok(taken)
    }

    fn short(&mut self, what: &str) -> Result<u16> {
        let bytes = self.take(2, what)?;
        Ok(bytes.iter().fold(0, |n, b| n << 8 | u16::from(*b)))
    }

    /// A vector with a length of one byte.
    fn byte_vector(&mut self, what: &str) -> Result<&'b [u8]> {
        let len = self.take(1, what)?.iter().fold(0, |n, b| n + usize::from(*b));
        self.take(len, what)
    }

    /// A vector with a length of two bytes.
    fn short_vector(&mut self, what: &str) -> Result<&'b [u8]> {
        let len = usize::from(self.short(what)?);
        self.take(len, what)
    }
}
