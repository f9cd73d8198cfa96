//! A request's head as the relay needs it: where it goes, and the bytes to send there. Pure.

use std::borrow::Cow;

use crate::error::{Error, Kind};
use crate::gate::egress::Refusal;
use crate::ids::{Destination, EgressDoor};
use crate::limits;
use crate::proxy::forward::connect::{agrees, destination};
use crate::wire::authority;
use crate::wire::body::Framing;
use crate::wire::head::{self, Field, Fields, RequestHead};

/// How requests come.
pub enum Form {
    /// To a proxy, or redirected: then the port is the one that the client connected to.
    Proxy {
        /// The port of a redirected connection.
        redirected: Option<u16>,
        /// Whether `Host` must agree with the target.
        strict: bool,
    },
    /// Inside a tunnel.
    Inside {
        /// Where the tunnel goes.
        destination: Destination,
    },
}

/// Why a request is not served.
#[derive(Debug)]
pub enum Problem {
    /// Its bytes break their grammar.
    Malformed {
        /// The answer's status.
        status: u16,
        /// What is wrong.
        what: String,
    },
    /// It may not leave, whatever the policy.
    Refused {
        /// How it asked.
        door: EgressDoor,
        /// Where to.
        destination: String,
        /// Why.
        refusal: Refusal,
    },
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Where it goes.
    pub destination: Destination,
    /// The method.
    pub method: String,
    /// The path, without the query; `*` for `OPTIONS *`.
    pub path: String,
    /// The head to send.
    pub out: Vec<u8>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client keeps the connection.
    pub keep: bool,
    /// Whether the connection may become a `WebSocket`'s. Any other protocol would hide what follows.
    pub switches: bool,
    /// Bytes of the head in the buffer.
    pub len: usize,
    /// The client's trace id.
    pub trace: Option<Vec<u8>>,
}

/// Reads a head from the start of `bytes`; `None` when more bytes are needed.
pub fn read(bytes: &[u8], form: &Form) -> Result<Option<Request>, Problem> {
    let Some(head) = head::request(bytes).map_err(|e| unreadable(&e))? else { return Ok(None) };
    let (destination, target) = locate(&head, form)?;
    let path = target.split('?').next().unwrap_or("/").to_owned();
    let switches = head.fields.lists("connection", "upgrade") && head.fields.lists("upgrade", "websocket");
    let out = match form {
        Form::Inside { .. } => bytes.get(..head.len).unwrap_or(&[]).to_vec(),
        Form::Proxy { .. } => rewrite(&head, &target, &destination, switches),
    };
    Ok(Some(Request {
        destination,
        method: head.method.to_owned(),
        path,
        out,
        framing: head.framing,
        keep: head.keep_alive && !head.http10,
        switches,
        len: head.len,
        trace: head.fields.value("x-kars-trace-id").map(<[u8]>::to_vec),
    }))
}

fn unreadable(error: &Error) -> Problem {
    let status = match error.kind() {
        Kind::TooLarge { max, .. } if max == limits::HEAD_BYTES as u64 => 431,
        _ => 400,
    };
    // The reference's words, which clients may know.
    let what = if error.detail() == "Host is missing" { "Missing Host header" } else { error.detail() };
    Problem::status(status, what)
}

fn malformed(error: &Error) -> Problem {
    Problem::status(400, error.detail())
}

/// Where a request goes, and its target in origin-form.
fn locate<'b>(head: &RequestHead<'b>, form: &Form) -> Result<(Destination, Cow<'b, str>), Problem> {
    let host = head.fields.value("host");
    if head.method == "CONNECT" {
        let Form::Proxy { strict, .. } = form else {
            return Err(Problem::status(400, "a CONNECT inside a tunnel"));
        };
        let to = destination(head.target).map_err(|e| malformed(&e))?;
        check_host(EgressDoor::Connect, host, &to, *strict)?;
        return Ok((to, "".into()));
    }
    let absolute = !head.target.starts_with('/') && head.target != "*";
    match form {
        Form::Inside { destination } => {
            if absolute {
                return Err(Problem::status(400, "an absolute URL inside a tunnel: send the path alone"));
            }
            check_host(EgressDoor::Http, host, destination, true)?;
            Ok((destination.clone(), head.target.into()))
        }
        Form::Proxy { strict, .. } if absolute => {
            let url = authority::url(head.target).map_err(|e| malformed(&e))?;
            if url.tls {
                return Err(Problem::status(400, "an https URL in a plain request: use CONNECT"));
            }
            let port = url.port();
            let to = Destination { host: url.authority.host, port };
            check_host(EgressDoor::Http, host, &to, *strict)?;
            Ok((to, url.target))
        }
        Form::Proxy { redirected, .. } => {
            let host = host.ok_or_else(|| Problem::status(400, "Missing Host header"))?;
            let named = authority::authority(host).map_err(|e| malformed(&e))?;
            let to = Destination { host: named.host, port: redirected.or(named.port).unwrap_or(80) };
            // The client believes that it speaks to the port it connected to.
            check_host(EgressDoor::Http, Some(host), &to, true)?;
            Ok((to, head.target.into()))
        }
    }
}

fn check_host(door: EgressDoor, host: Option<&[u8]>, to: &Destination, strict: bool) -> Result<(), Problem> {
    match host {
        Some(host) if strict => agrees(host, to).map_err(|refusal| Problem::refused(door, to, refusal)),
        _ => Ok(()),
    }
}

/// The head for the destination: origin-form, the fields as sent, without those that concern this hop alone (RFC 9110
/// §7.6.1). Only a WebSocket handshake keeps its upgrade: anything else would hide what follows.
fn rewrite(head: &RequestHead<'_>, target: &str, to: &Destination, upgrade: bool) -> Vec<u8> {
    let version = if head.http10 { "1.0" } else { "1.1" };
    let mut out = Vec::with_capacity(head.len + 32);
    out.extend_from_slice(format!("{} {target} HTTP/{version}\r\n", head.method).as_bytes());
    let named = if to.port == 80 { to.host.to_string() } else { to.to_string() };
    push(&mut out, "Host", named.as_bytes());
    for Field { name, value } in head.fields.iter() {
        if !name.eq_ignore_ascii_case("host") && !is_hop(&head.fields, &HOP, name) {
            push(&mut out, name, value);
        }
    }
    if upgrade {
        push(&mut out, "Connection", b"Upgrade");
        push(&mut out, "Upgrade", b"websocket");
    }
    out.extend_from_slice(b"\r\n");
    out
}

const HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "upgrade",
    "http2-settings",
];

/// Whether a field concerns one hop alone: it is one of `hops`, or `Connection` names it. That cannot take the framing
/// away.
pub fn is_hop(fields: &Fields<'_>, hops: &[&str], name: &str) -> bool {
    let framing =
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding");
    hops.iter().any(|hop| name.eq_ignore_ascii_case(hop)) || (!framing && fields.lists("connection", name))
}

/// Appends a field line.
pub fn push(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: Form = Form::Proxy { redirected: None, strict: true };

    fn out(bytes: &str, form: &Form) -> (String, String) {
        let request = read(bytes.as_bytes(), form).unwrap().unwrap();
        (request.destination.to_string(), String::from_utf8(request.out).unwrap())
    }

    fn status(bytes: &str, form: &Form) -> u16 {
        match read(bytes.as_bytes(), form).unwrap_err() {
            Problem::Malformed { status, .. } => status,
            Problem::Refused { .. } => 403,
        }
    }

    #[test]
    fn an_absolute_request_leaves_in_origin_form_without_what_concerns_the_proxy() {
        let (to, text) = out(
            "GET http://a.com/x?y=1 HTTP/1.1\r\nHost: a.com\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\
             Connection: close, X-Hop\r\nX-Hop: 1\r\nAccept: */*\r\n\r\n",
            &PROXY,
        );
        assert_eq!(to, "a.com:80");
        assert_eq!(text, "GET /x?y=1 HTTP/1.1\r\nHost: a.com\r\nAccept: */*\r\n\r\n");
    }

    #[test]
    fn a_websocket_keeps_its_upgrade_and_h2c_does_not() {
        let ask = |protocol: &str| {
            format!(
                "GET http://a.com:81/ HTTP/1.1\r\nHost: a.com:81\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
                 HTTP2-Settings: x\r\n\r\n"
            )
        };
        assert_eq!(
            out(&ask("websocket"), &PROXY).1,
            "GET / HTTP/1.1\r\nHost: a.com:81\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        assert_eq!(out(&ask("h2c"), &PROXY).1, "GET / HTTP/1.1\r\nHost: a.com:81\r\n\r\n");
    }

    #[test]
    fn framing_cannot_be_named_away() {
        let (_, text) = out(
            "POST http://a.com/ HTTP/1.1\r\nHost: a.com\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\n",
            &PROXY,
        );
        assert!(text.contains("Content-Length: 3\r\n"));
    }

    #[test]
    fn names_that_differ_are_refused() {
        assert_eq!(status("GET http://a.com/ HTTP/1.1\r\nHost: b.com\r\n\r\n", &PROXY), 403);
        assert_eq!(status("CONNECT a.com:443 HTTP/1.1\r\nHost: b.com\r\n\r\n", &PROXY), 403);
        let redirected = Form::Proxy { redirected: Some(80), strict: true };
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a.com:81\r\n\r\n", &redirected), 403);
        let inside = Form::Inside { destination: destination("a.com:80").unwrap() };
        assert_eq!(status("GET / HTTP/1.1\r\nHost: b.com\r\n\r\n", &inside), 403);
    }

    #[test]
    fn a_redirected_request_goes_to_its_host_on_the_port_it_was_sent_to() {
        let redirected = Form::Proxy { redirected: Some(80), strict: true };
        assert_eq!(out("GET /a HTTP/1.1\r\nHost: A.com\r\n\r\n", &redirected).0, "a.com:80");
        assert_eq!(status("GET / HTTP/1.0\r\n\r\n", &redirected), 400);
    }

    #[test]
    fn https_by_plain_request_and_connect_inside_a_tunnel_are_refused() {
        assert_eq!(status("GET https://a.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n", &PROXY), 400);
        let inside = Form::Inside { destination: destination("a.com:80").unwrap() };
        assert_eq!(status("CONNECT b.com:1 HTTP/1.1\r\nHost: b.com:1\r\n\r\n", &inside), 400);
    }
}
