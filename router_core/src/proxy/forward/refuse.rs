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

/// An answer that is the last on its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What is told in the reason phrase (HTTP/2 has none), and first in the body.
    pub phrase: String,
    /// Fields by their lower-case names.
    pub fields: Vec<(&'static str, String)>,
    /// Text, one fact per line.
    pub body: String,
}

/// The answer to a connection that may not leave.
pub fn denied(refusal: &Refusal, visit: &Visit) -> Answer {
    let (status, phrase) = match refusal.reason {
        EgressReason::Slots => (503, "too many connections (kars egress proxy)"),
        EgressReason::Malformed => (400, refusal.message.as_str()),
        EgressReason::Fronting | EgressReason::EncryptedHello | EgressReason::NoServerName => {
            (403, "names differ or are hidden (kars egress policy)")
        }
        EgressReason::Address => (403, "address not allowed (kars egress policy)"),
        _ => (403, POLICY),
    };
    let error = if status == 503 { "connection_limit_reached" } else { "http_request_denied" };
    let mut answer = Answer::new(status, phrase, error, visit);
    for (name, text) in
        [("reason", &refusal.message), ("rule", &refusal.rule), ("to allow it", &refusal.hint)]
    {
        answer.line(name, text);
    }
    let reason = refusal.reason.name().to_owned();
    answer.fields.extend([
        ("x-kars-decision", "blocked".to_owned()),
        ("x-kars-decision-by", "EgressPolicy".to_owned()),
        ("x-kars-decision-reason", reason),
    ]);
    if status == 503 {
        answer.fields.push(("retry-after", "1".to_owned()));
    }
    answer
}

/// The answer where the network failed.
pub fn failed(error: &Error, visit: &Visit) -> Answer {
    let (status, phrase, word) = match error.kind() {
        Kind::Upstream(Step::Resolve) => (502, "DNS validation failed", "dns_error"),
        Kind::Timeout(Step::Resolve) => (504, "DNS validation failed", "dns_timeout"),
        Kind::Timeout(Step::Connect) => (504, "Gateway Timeout", "connection_timeout"),
        Kind::Timeout(_) => (504, "Gateway Timeout", "http_response_timeout"),
        Kind::Upstream(Step::Connect) => (502, "Bad Gateway", "connection_refused"),
        Kind::Upstream(Step::Protocol) => (502, "Bad Gateway", "http_protocol_error"),
        Kind::NotReady => (503, "Service Unavailable", "connection_limit_reached"),
        _ => (502, "Bad Gateway", "connection_terminated"),
    };
    let mut answer = Answer::new(status, phrase, word, visit);
    answer.line("reason", error.detail());
    answer
}

/// The answer to bytes that are no request we take.
pub fn malformed(status: u16, what: &str, visit: &Visit) -> Answer {
    Answer::new(status, what, "http_request_error", visit)
}

impl Answer {
    /// `error` is a type of RFC 9209 §2.3.
    fn new(status: u16, phrase: &str, error: &str, visit: &Visit) -> Self {
        // One line, whatever words a policy or a peer has put in.
        let phrase: String = phrase.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let decision = visit.decision();
        let mut answer = Self {
            status,
            body: format!("{phrase}\n"),
            phrase,
            fields: vec![
                ("content-type", "text/plain; charset=utf-8".to_owned()),
                ("proxy-status", format!("kars; error={error}")),
                ("x-kars-decision-id", decision.clone()),
            ],
        };
        answer.line("destination", visit.destination());
        answer.line("decision", &decision);
        answer
    }

    fn line(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(self.body, "{name}: {text}");
        }
    }

    /// The bytes for an HTTP/1.1 client.
    pub fn bytes(&self) -> Vec<u8> {
        let (status, phrase) = (self.status, &self.phrase);
        let mut text = format!("HTTP/1.1 {status} {} \u{2014} {phrase}\r\n", default_phrase(status));
        for (name, value) in &self.fields {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "content-length: {}\r\nconnection: close\r\n\r\n{}", self.body.len(), self.body);
        text.into_bytes()
    }
}

fn default_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}
