//! What a client speaks inside the tunnel it asked for, from its first bytes: the names in there must be the one that
//! was decided about. Pure.

use crate::error::Error;
use crate::ids::{EgressReason, Host};
use crate::wire::sni;

/// A TLS record of the handshake type (RFC 8446 §5.1).
pub const TLS_HANDSHAKE: u8 = 0x16;
/// Longest request line that is waited for; a longer first line is refused.
const LINE_BYTES: usize = 16 * 1024;
/// Methods that a server is likely to act on (RFC 9110 §9, RFC 5789, `WebDAV`'s own are the same risk and rarer).
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"PATCH ", b"OPTIONS ", b"TRACE ", b"CONNECT "];
/// How HTTP/2 with prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Not known yet, and nothing may go on before it is.
    Hold,
    /// Not known yet; what is there does no harm by itself and may go on.
    Pass,
    /// No name in it that we can read: a protocol of the client's own.
    Opaque,
    /// An HTTP/1 request line: each request is decided about.
    Http,
    /// A name that differs, or is hidden.
    Refuse(EgressReason, String),
}

/// Looks at the bytes a client has sent so far into a tunnel to `host`.
pub fn look(bytes: &[u8], host: &Host) -> Look {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return tls(bytes, host);
    }
    // Servers pass over empty lines before a request (RFC 9112 §2.2).
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let begun = bytes.get(blank..).unwrap_or(&[]);
    match begun.first() {
        None if blank > LINE_BYTES => Look::Refuse(EgressReason::Malformed, "only empty lines".to_owned()),
        None => Look::Pass,
        Some(_) if begins(begun, PREFACE) => {
            if begun.len() < PREFACE.len() {
                return Look::Hold;
            }
            let what = "cleartext HTTP/2 inside a tunnel hides its authorities; use TLS or HTTP/1.1";
            Look::Refuse(EgressReason::Fronting, what.to_owned())
        }
        Some(_) if METHODS.iter().any(|method| begins(begun, method)) => line(begun),
        Some(_) => Look::Opaque,
    }
}

/// Whether one of the two begins with the other.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    bytes.iter().zip(word).all(|(a, b)| a == b)
}

fn line(bytes: &[u8]) -> Look {
    match memchr::memchr(b'\n', bytes) {
        None if bytes.len() > LINE_BYTES => {
            Look::Refuse(EgressReason::Malformed, "the first line inside the tunnel has no end".to_owned())
        }
        None => Look::Pass,
        Some(end) => {
            let line = bytes.get(..end).unwrap_or(&[]).trim_ascii_end();
            let version = line.rsplit(|b| *b == b' ').next().unwrap_or(&[]);
            if version.starts_with(b"HTTP/") { Look::Http } else { Look::Opaque }
        }
    }
}

fn tls(bytes: &[u8], host: &Host) -> Look {
    match sni::client_hello(bytes) {
        Ok(None) => Look::Hold,
        Err(e) => Look::Refuse(EgressReason::Malformed, malformed(&e)),
        Ok(Some(hello)) if hello.encrypted => Look::Refuse(
            EgressReason::EncryptedHello,
            "the TLS client hello hides the server's name (ECH), so nobody can say where it goes".to_owned(),
        ),
        Ok(Some(hello)) => match hello.server_name {
            Some(name) if name != *host => Look::Refuse(
                EgressReason::Fronting,
                format!("the tunnel is for {host}, and the TLS client hello inside names {name}"),
            ),
            _ => Look::Opaque,
        },
    }
}

/// A client hello that cannot be read, for people.
pub fn malformed(error: &Error) -> String {
    format!("the TLS client hello is malformed: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host::parse("example.com").unwrap()
    }

    #[test]
    fn what_cannot_be_http_or_tls_is_left_alone_at_its_first_byte() {
        for bytes in
            [&b"\0"[..], b"x", b"SSH-2.0-OpenSSH\r\n", b"EHLO me\r\n", b"\x17\x03\x03", b"get / HTTP/1.1\r\n"]
        {
            assert_eq!(look(bytes, &host()), Look::Opaque, "{bytes:?}");
        }
    }

    #[test]
    fn a_method_by_itself_goes_on_until_its_line_says_what_it_is() {
        for (bytes, want) in [
            (&b"G"[..], Look::Pass),
            (b"GET /a HTTP/1.1", Look::Pass),
            (b"GET /a HTTP/1.1\r\n", Look::Http),
            (b"GET /a HTTP/1.1\n", Look::Http),
            (b"GET key\r\n", Look::Opaque),
            (b"GEX", Look::Opaque),
            (b"\r\n", Look::Pass),
            (b"\r\n\nGET / HTTP/1.1\r\n", Look::Http),
            (b"\r\nx", Look::Opaque),
        ] {
            assert_eq!(look(bytes, &host()), want, "{bytes:?}");
        }
        assert!(matches!(
            look(&[b"GET /".as_slice(), &[b'a'; LINE_BYTES]].concat(), &host()),
            Look::Refuse(..)
        ));
    }

    #[test]
    fn cleartext_http2_is_held_and_refused() {
        assert_eq!(look(b"PRI * H", &host()), Look::Hold);
        assert!(matches!(look(b"PRI * HTTP/2.0\r\n", &host()), Look::Refuse(EgressReason::Fronting, _)));
    }
}
