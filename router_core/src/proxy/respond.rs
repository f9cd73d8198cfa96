//! The only place where an error becomes an answer: status, type, code and words in the client's dialect.

use std::fmt::Write as _;
use std::time::Duration;

use crate::error::{Error, Kind, Step};
use crate::gate::Denial;
use crate::gate::denial::whole_seconds;
use crate::ids::Dialect;
use crate::proxy::client::{Body, Client, Head};
use crate::telemetry::metrics::DenialKind;

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status, when there is still one to give.
    pub status: u16,
    /// OpenAI's `error.type`.
    pub openai_type: &'static str,
    /// OpenAI's `error.code`; empty for null.
    pub code: &'static str,
    /// Anthropic's `error.type`.
    pub anthropic_type: &'static str,
    /// For people.
    pub message: String,
    /// When trying again can help.
    pub retry_after: Option<Duration>,
    /// Whether an SDK should try again by itself; `None` leaves it to the status.
    pub retry: Option<bool>,
    /// Requests per minute, for `x-ratelimit-limit-requests`.
    pub rate_limit: Option<u32>,
    /// `x-kars-decision-reason`, when a content rule blocked.
    pub reason: Option<String>,
}

impl Failure {
    /// A failure with the given status, types, code and message.
    pub fn new(
        status: u16,
        openai_type: &'static str,
        code: &'static str,
        anthropic_type: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            openai_type,
            code,
            anthropic_type,
            message: message.into(),
            retry_after: None,
            retry: None,
            rate_limit: None,
            reason: None,
        }
    }

    /// A content rule's verdict.
    pub fn content(code: &'static str, message: String, reason: String) -> Self {
        let mut failure = Self::new(403, "content_policy_violation", code, "permission_error", message);
        failure.retry = Some(false);
        failure.reason = Some(reason);
        failure
    }
}

impl From<&Denial> for Failure {
    fn from(denial: &Denial) -> Self {
        let (status, openai_type, code, anthropic_type) = match denial.cause {
            DenialKind::NoPolicy => (503, "policy_violation", "policy_not_loaded", "api_error"),
            DenialKind::Rate => (429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error"),
            DenialKind::RequestTokens => {
                (429, "token_budget_exceeded", "per_request_tokens_exceeded", "rate_limit_error")
            }
            DenialKind::Budget => (429, "token_budget_exceeded", "budget_exceeded", "rate_limit_error"),
            _ => (403, "policy_violation", "policy_denied", "permission_error"),
        };
        let mut failure = Self::new(status, openai_type, code, anthropic_type, denial.message.clone());
        failure.retry_after = denial.retry_after;
        failure.retry = Some(denial.retry);
        failure.rate_limit = denial.rate_limit;
        failure
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let (status, openai_type, code, anthropic_type) = of_kind(error.kind());
        let detail = error.detail();
        let message = match error.kind() {
            Kind::Upstream(_) => format!("Failed to reach inference backend: {detail}"),
            _ => detail.to_owned(),
        };
        let mut failure = Self::new(status, openai_type, code, anthropic_type, message);
        if status == 503 {
            failure.retry_after = Some(Duration::from_secs(1));
        }
        failure
    }
}

fn of_kind(kind: Kind) -> (u16, &'static str, &'static str, &'static str) {
    match kind {
        Kind::BadRequest => (400, "invalid_request_error", "invalid_request", "invalid_request_error"),
        Kind::TooLarge { .. } => (413, "invalid_request_error", "request_too_large", "request_too_large"),
        Kind::NotReady => (503, "proxy_error", "not_ready", "api_error"),
        Kind::Upstream(step) => (502, "proxy_error", upstream_code(step), "api_error"),
        Kind::Timeout(step) => (504, "proxy_error", timeout_code(step), "timeout_error"),
        // 499 as nginx has it: nobody is there to read it, the audit and the metrics are.
        Kind::Canceled => (499, "proxy_error", "client_closed_request", "api_error"),
        Kind::Config | Kind::Policy | Kind::Io | Kind::Bug => {
            (500, "server_error", "internal_error", "api_error")
        }
    }
}

fn upstream_code(step: Step) -> &'static str {
    match step {
        Step::Tls => "upstream_tls_error",
        Step::Protocol => "upstream_protocol_error",
        Step::Reset => "upstream_reset",
        _ => "bad_gateway",
    }
}

fn timeout_code(step: Step) -> &'static str {
    match step {
        Step::Resolve => "upstream_resolve_timeout",
        Step::Connect => "upstream_connect_timeout",
        Step::Tls => "upstream_tls_timeout",
        Step::FirstByte => "upstream_first_byte_timeout",
        Step::Idle => "upstream_idle_timeout",
        Step::Total => "total_timeout",
        Step::Write | Step::Reset | Step::Protocol => "upstream_timeout",
    }
}

/// The error as the body of an answer.
pub fn body(failure: &Failure, dialect: Dialect, request_id: &str) -> String {
    let mut text = String::with_capacity(256);
    match dialect {
        Dialect::OpenAi => {
            text.push_str("{\"error\":{\"message\":");
            push_json(&mut text, &failure.message);
            let _ = write!(text, ",\"type\":\"{}\",\"param\":null,\"code\":", failure.openai_type);
            match failure.code {
                "" => text.push_str("null"),
                code => push_json(&mut text, code),
            }
            text.push_str("}}");
        }
        Dialect::Anthropic => {
            let _ = write!(text, "{{\"type\":\"error\",\"error\":{{\"type\":\"{}\"", failure.anthropic_type);
            text.push_str(",\"message\":");
            push_json(&mut text, &failure.message);
            text.push_str("},\"request_id\":");
            push_json(&mut text, request_id);
            text.push('}');
        }
    }
    text
}

/// The error as an event in a stream that has begun. There is never a `[DONE]` behind it.
pub fn event(failure: &Failure, dialect: Dialect, responses: bool, request_id: &str) -> String {
    if responses {
        let mut text = String::from("event: error\ndata: {\"type\":\"error\",\"code\":");
        push_json(&mut text, if failure.code.is_empty() { failure.openai_type } else { failure.code });
        text.push_str(",\"message\":");
        push_json(&mut text, &failure.message);
        text.push_str(",\"param\":null,\"sequence_number\":0}\n\n");
        return text;
    }
    match dialect {
        Dialect::OpenAi => format!("data: {}\n\n", body(failure, dialect, request_id)),
        Dialect::Anthropic => format!("event: error\ndata: {}\n\n", body(failure, dialect, request_id)),
    }
}

/// Answers with an error.
pub fn fail(
    client: &mut Client,
    failure: &Failure,
    dialect: Dialect,
    trace_id: &str,
    extra: &dyn Fn(&mut Head<'_>),
) {
    let text = body(failure, dialect, trace_id);
    if failure.status == 400 || failure.status == 413 || failure.status == 431 {
        // What follows a request that could not be read cannot be trusted to be the next one.
        client.close_after();
    }
    client.start(failure.status, Body::Length(text.len() as u64), |head| {
        head.field("content-type", b"application/json");
        head.field("x-kars-trace-id", trace_id.as_bytes());
        if dialect == Dialect::Anthropic {
            head.field("request-id", trace_id.as_bytes());
        } else {
            head.field("x-request-id", trace_id.as_bytes());
        }
        retry_fields(failure, head);
        if let Some(reason) = &failure.reason {
            decision_fields(reason, head);
        }
        extra(head);
    });
    client.push(text.as_bytes());
    client.end();
}

fn retry_fields(failure: &Failure, head: &mut Head<'_>) {
    let mut number = itoa::Buffer::new();
    if let Some(after) = failure.retry_after {
        head.field("retry-after", number.format(whole_seconds(after)).as_bytes());
    }
    if let Some(retry) = failure.retry {
        head.field("x-should-retry", if retry { b"true" } else { b"false" });
    }
    if let Some(limit) = failure.rate_limit {
        head.field("x-ratelimit-limit-requests", number.format(limit).as_bytes());
        head.field("x-ratelimit-remaining-requests", b"0");
        let reset = failure.retry_after.map_or(1, whole_seconds);
        head.field("x-ratelimit-reset-requests", format!("{reset}s").as_bytes());
    }
}

/// The decision headers that the conformance runner matches (`spec` of the reference: fixed phrases).
pub fn decision_fields(reason: &str, head: &mut Head<'_>) {
    head.field("x-kars-decision", b"blocked");
    head.field("x-kars-decision-by", b"InferencePolicy");
    let clean: String = reason.chars().map(|c| if c == '\r' || c == '\n' { ' ' } else { c }).collect();
    head.field("x-kars-decision-reason", clean.as_bytes());
}

/// A short answer that is no error.
pub fn plain(client: &mut Client, status: u16, content_type: &str, text: &[u8], trace_id: &str) {
    send(client, status, content_type, text, None, trace_id);
}

/// A success with a header that shows who answers.
pub fn proven(
    client: &mut Client,
    content_type: &str,
    text: &[u8],
    shown: Option<(&str, &str)>,
    trace_id: &str,
) {
    send(client, 200, content_type, text, shown, trace_id);
}

fn send(
    client: &mut Client,
    status: u16,
    content_type: &str,
    text: &[u8],
    shown: Option<(&str, &str)>,
    trace_id: &str,
) {
    client.start(status, Body::Length(text.len() as u64), |head| {
        head.field("content-type", content_type.as_bytes());
        if let Some((name, value)) = shown {
            head.field(name, value.as_bytes());
        }
        if !trace_id.is_empty() {
            head.field("x-kars-trace-id", trace_id.as_bytes());
        }
    });
    client.push(text);
    client.end();
}

/// A flat error (`{"error": text}`), as the admin routes have it.
pub fn flat(client: &mut Client, status: u16, message: &str, trace_id: &str) {
    let mut text = String::from("{\"error\":");
    push_json(&mut text, message);
    text.push('}');
    plain(client, status, "application/json", text.as_bytes(), trace_id);
}

/// Appends a JSON string.
pub fn push_json(out: &mut String, text: &str) {
    // Writing a string to a string cannot fail.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_gets_valid_json_with_its_own_keys() {
        let failure = Failure::new(502, "proxy_error", "bad_gateway", "api_error", "say \"why\"\n");
        let openai: serde_json::Value = serde_json::from_str(&body(&failure, Dialect::OpenAi, "t")).unwrap();
        assert_eq!(openai["error"]["code"], "bad_gateway");
        assert!(openai["error"].get("param").is_some_and(serde_json::Value::is_null));
        let anthropic: serde_json::Value =
            serde_json::from_str(&body(&failure, Dialect::Anthropic, "t")).unwrap();
        assert_eq!(anthropic["error"]["type"], "api_error");
        assert_eq!(anthropic["error"]["message"], "say \"why\"\n");
    }

    #[test]
    fn each_timeout_has_its_own_code() {
        let steps = [Step::Connect, Step::Tls, Step::FirstByte, Step::Idle, Step::Total];
        let codes: std::collections::HashSet<_> = steps.iter().map(|s| timeout_code(*s)).collect();
        assert_eq!(codes.len(), steps.len());
    }

    #[test]
    fn an_error_event_is_one_event_without_done() {
        let failure = Failure::new(502, "proxy_error", "upstream_reset", "api_error", "gone");
        for text in [
            event(&failure, Dialect::OpenAi, false, "t"),
            event(&failure, Dialect::OpenAi, true, "t"),
            event(&failure, Dialect::Anthropic, false, "t"),
        ] {
            assert!(text.ends_with("\n\n") && !text.contains("[DONE]"));
            assert_eq!(text.matches("\n\n").count(), 1);
        }
    }
}
