//! What a client speaks inside the tunnel it asked for, from its first bytes: the names in there must be the one that
//! was decided about. Pure.

use crate::error::Error;
use crate::ids::{EgressReason, Host};
use crate::limits;
use crate::wire::sni;

/// A TLS record of the handshake type (RFC 8446 §5.1).
pub const TLS_HANDSHAKE: u8 = 0x16;
/// Longest request line that is waited for; a longer first line is refused.
const LINE_BYTES: usize = 16 * 1024;
/// How HTTP/2 with prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2";
/// What every request line has at its end (RFC 9112 §2.3).
const VERSION: &[u8] = b"HTTP/";

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
    match bytes.first() {
        None => Look::Pass,
        Some(&TLS_HANDSHAKE) => tls(bytes, host),
        Some(_) => text(bytes),
    }
}

/// What is no TLS. Anything that a lenient server could take for a request line is one: empty lines before it (RFC 9112
/// §2.2), any method, any white space between its parts (§3).
fn text(bytes: &[u8]) -> Look {
    let start = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let line = bytes.get(start..).unwrap_or(&[]);
    let method = line.iter().take_while(|b| is_token(**b)).count();
    let line = match line.get(method) {
        // A word that is longer than a method is none.
        _ if method > limits::EGRESS_METHOD_BYTES => return Look::Opaque,
        None => return unended(bytes),
        Some(b) if method > 0 && is_blank(*b) => line,
        Some(_) => return Look::Opaque,
    };
    let end = memchr::memchr(b'\n', line);
    let line = end.map_or(line, |end| line.get(..end).unwrap_or(line));
    if line.starts_with(PREFACE) {
        let what = "cleartext HTTP/2 inside a tunnel hides its authorities; use TLS or HTTP/1.1";
        return Look::Refuse(EgressReason::Fronting, what.to_owned());
    }
    let mut words = line.windows(VERSION.len() + 1);
    match words.any(|w| w.split_first().is_some_and(|(b, w)| is_blank(*b) && w.eq_ignore_ascii_case(VERSION)))
    {
        // The preface ends in such a word, too.
        true if begins(line, PREFACE) => Look::Pass,
        true => Look::Http,
        false if end.is_some() || line.contains(&0) => Look::Opaque,
        false => unended(bytes),
    }
}

/// A line whose end is still to come.
fn unended(bytes: &[u8]) -> Look {
    if bytes.len() <= LINE_BYTES {
        return Look::Pass;
    }
    Look::Refuse(EgressReason::Malformed, "the first line inside the tunnel has no end".to_owned())
}

/// Whether one of the two begins with the other.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    bytes.iter().zip(word).all(|(a, b)| a == b)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// White space to lenient parsers (RFC 9112 §3); a CR before its LF is passed over, for no version follows it.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
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
    fn what_cannot_be_http_or_tls_is_left_alone_as_soon_as_that_shows() {
        for bytes in [
            &b"\0"[..],
            b"\x80\x2e",
            b"\r\n\0",
            b"SSH-2.0-OpenSSH\r\n",
            b"EHLO me\r\n",
            b"\x17\x03\x03",
            b"GET key\r\n",
            b"PUT a\0b",
            b"get: x",
            b"0032git-upload-pack /x\0host=y",
            &[b'G'; 33],
        ] {
            assert_eq!(look(bytes, &host()), Look::Opaque, "{bytes:?}");
        }
    }

    #[test]
    fn what_may_become_a_request_goes_on_until_it_says_what_it_is() {
        for bytes in [
            &b"G"[..],
            b"",
            b"x",
            b"\r\n\r\n",
            b"GET /a",
            b"GET /a HTTP",
            b"\nPRI * H",
            b"PRI * HTTP/",
            b"EHLO me\r",
        ] {
            assert_eq!(look(bytes, &host()), Look::Pass, "{bytes:?}");
        }
        for bytes in [[b"GET /".as_slice(), &[b'a'; LINE_BYTES]].concat(), vec![b'\n'; LINE_BYTES + 1]] {
            assert!(matches!(look(&bytes, &host()), Look::Refuse(EgressReason::Malformed, _)));
        }
    }

    #[test]
    fn everything_that_a_lenient_server_takes_for_a_request_is_one() {
        for before in ["", "\n", "\r\n\r\n", "\r\r\n"] {
            for line in [
                "GET /a HTTP/1.1",
                "get /a http/1.0\r\n",
                "PROPFIND  /a b  HTTP/9",
                "X\t/a\tHTTP/1.1\n",
                "M-SEARCH\r*\x0bHTTP/1.1",
                "PRI / HTTP/1.1\r\n",
                "PRI * HTTP/1.1\r\n",
                "GET / HTTP/1.1\rHost: evil",
            ] {
                let bytes = [before, line].concat();
                assert_eq!(look(bytes.as_bytes(), &host()), Look::Http, "{bytes:?}");
            }
        }
    }

    #[test]
    fn cleartext_http2_is_refused() {
        for bytes in [&b"PRI * HTTP/2.0\r\n"[..], b"PRI * HTTP/2", b"\r\nPRI * HTTP/2.0"] {
            assert!(matches!(look(bytes, &host()), Look::Refuse(EgressReason::Fronting, _)), "{bytes:?}");
        }
    }
}
