//! How the egress proxy says no: the reference's reason phrases, and behind them everything needed to act on it.

use std::fmt::Write as _;

use crate::error::{Error, Kind, Step};
use crate::gate::egress::Refusal;
use crate::ids::EgressReason;
use crate::proxy::forward::visit::Visit;

/// TLS alerts (RFC 8446 §6.2).
pub const ACCESS_DENIED: u8 = 49;
/// See [`ACCESS_DENIED`].
pub const DECODE_ERROR: u8 = 50;
/// See [`ACCESS_DENIED`].
pub const INTERNAL_ERROR: u8 = 80;
/// See [`ACCESS_DENIED`].
pub const UNRECOGNIZED_NAME: u8 = 112;

/// What conformance checks look for in the reason phrase of a refused CONNECT.
const POLICY: &str = "host not in allowlist (kars egress policy)";

/// A fatal TLS alert in a record of its own, in the clear as before any handshake.
pub fn alert(description: u8) -> [u8; 7] {
    [0x15, 3, 3, 0, 2, 2, description]
}

/// The answer to a connection that may not leave.
pub fn denied(refusal: &Refusal, visit: &Visit) -> Vec<u8> {
    let (status, phrase) = match refusal.reason {
        EgressReason::Slots => (503, "too many connections (kars egress proxy)"),
        EgressReason::Malformed => (400, refusal.message.as_str()),
        EgressReason::Fronting | EgressReason::EncryptedHello | EgressReason::NoServerName => {
            (403, "names differ or are hidden (kars egress policy)")
        }
        EgressReason::Address => (403, "address not allowed (kars egress policy)"),
        _ => (403, POLICY),
    };
    let mut body = format!("{phrase}\n");
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(body, "{name}: {text}");
        }
    };
    line("destination", visit.destination());
    line("reason", &refusal.message);
    line("rule", &refusal.rule);
    line("to allow it", &refusal.hint);
    line("decision", &visit.decision());
    let mut fields = format!(
        "Proxy-Status: kars; error={}\r\nX-Kars-Decision: blocked\r\nX-Kars-Decision-By: EgressPolicy\r\n\
         X-Kars-Decision-Reason: {}\r\nX-Kars-Decision-Id: {}\r\n",
        if status == 503 { "connection_limit_reached" } else { "http_request_denied" },
        refusal.reason.name(),
        visit.decision(),
    );
    if status == 503 {
        fields.push_str("Retry-After: 1\r\n");
    }
    render(status, phrase, &fields, &body)
}

/// The answer where the network failed. The status comes with it.
pub fn failed(error: &Error, visit: &Visit) -> (u16, Vec<u8>) {
    let (status, phrase, word) = match error.kind() {
        Kind::Upstream(Step::Resolve) => (502, "DNS validation failed", "dns_error"),
        Kind::Timeout(Step::Resolve) => (504, "DNS validation failed", "dns_timeout"),
        Kind::Timeout(Step::Connect) => (504, "Gateway Timeout", "connection_timeout"),
        Kind::Timeout(_) => (504, "Gateway Timeout", "http_response_timeout"),
        Kind::Upstream(Step::Connect) => (502, "Bad Gateway", "connection_refused"),
        Kind::Upstream(Step::Protocol) => (502, "Bad Gateway", "http_protocol_error"),
        _ => (502, "Bad Gateway", "connection_terminated"),
    };
    let decision = visit.decision();
    let body = format!("{phrase}\ndestination: {}\nreason: {error}\ndecision: {decision}\n", visit.destination());
    let fields = format!("Proxy-Status: kars; error={word}\r\nX-Kars-Decision-Id: {decision}\r\n");
    (status, render(status, phrase, &fields, &body))
}

/// The answer to bytes that are no request we take.
pub fn malformed(status: u16, what: &str, visit: &Visit) -> Vec<u8> {
    let decision = visit.decision();
    let fields = format!("Proxy-Status: kars; error=http_request_error\r\nX-Kars-Decision-Id: {decision}\r\n");
    render(status, what, &fields, &format!("{what}\ndecision: {decision}\n"))
}

fn render(status: u16, phrase: &str, fields: &str, body: &str) -> Vec<u8> {
    let default = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    };
    // One line, whatever a policy's words are.
    let phrase: String = phrase.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!(
        "HTTP/1.1 {status} {default} \u{2014} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n{fields}Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
