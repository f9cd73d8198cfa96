//! The pieces of a line.

use std::fmt::Write as _;

use super::Record;
use crate::telemetry::calendar::utc;

/// Length of `2026-01-02`.
pub(super) const DATE_BYTES: usize = 10;
/// What stands between a line's hashed bytes and its `record_hash`.
pub(super) const RECORD_HASH: &str = ",\"record_hash\":\"";

/// The members of `call` after `at`.
pub(super) fn call(record: &Record<'_>, lost: u64, lines: &mut String) {
    if record.decision_id != 0 {
        lines.push_str(",\"decision_id\":\"");
        lines.push_str(&hex(&record.decision_id.to_be_bytes()));
        lines.push('"');
    }
    for (name, text) in [
        (",\"trace_id\":\"", record.trace_id),
        (",\"reason\":\"", record.reason),
        (",\"rule\":\"", record.rule),
        (",\"policy\":\"", record.policy),
        (",\"model\":\"", record.model),
        (",\"provider\":\"", record.provider),
        (",\"address\":\"", record.address),
        (",\"end\":\"", record.end),
    ] {
        if !text.is_empty() {
            lines.push_str(name);
            escape(text, lines);
            lines.push('"');
        }
    }
    for (name, number) in [
        (",\"status\":", record.status.into()),
        (",\"input_tokens\":", record.input_tokens),
        (",\"output_tokens\":", record.output_tokens),
        (",\"latency_us\":", record.latency_us),
        (",\"first_byte_us\":", record.first_byte_us),
        (",\"attempts\":", record.attempts.into()),
        (",\"sent_bytes\":", record.sent_bytes),
        (",\"received_bytes\":", record.received_bytes),
        (",\"lost\":", lost),
    ] {
        if number != 0 {
            lines.push_str(name);
            lines.push_str(itoa::Buffer::new().format(number));
        }
    }
    if record.estimated {
        lines.push_str(",\"estimated\":true");
    }
}

/// The text of an instant, remembered for as long as the second lasts.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    secs: Option<u64>,
    millis: u64,
    /// `2026-01-02T03:04:05Z`.
    text: String,
}

impl Stamp {
    pub(super) fn set(&mut self, ts_ms: u64) {
        let secs = ts_ms / 1000;
        self.millis = ts_ms % 1000;
        if self.secs == Some(secs) {
            return;
        }
        self.secs = Some(secs);
        let at = utc(secs);
        self.text.clear();
        let _ = write!(
            self.text,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        );
    }

    pub(super) fn second(&self) -> &str {
        &self.text
    }

    pub(super) fn date(&self) -> &str {
        self.text.get(..DATE_BYTES).unwrap_or("")
    }

    /// `2026-01-02T03:04:05.678Z`.
    pub(super) fn push_millis(&self, out: &mut String) {
        out.push_str(self.text.strip_suffix('Z').unwrap_or(""));
        let _ = write!(out, ".{:03}Z", self.millis);
    }
}

/// Appends `text` as the inside of a JSON string (RFC 8259 §7).
pub(super) fn escape(text: &str, out: &mut String) {
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    // Nearly all strings have nothing to escape; looking at all bytes at once takes a fraction of finding the first.
    if !text.bytes().fold(false, |any, byte| any | special(byte)) {
        return out.push_str(text);
    }
    let mut rest = text;
    while let Some(at) = rest.bytes().position(special) {
        let (plain, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(plain);
        let mut chars = tail.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some(control) => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Lowercase hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let mut out = vec![0; bytes.len() * 2];
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
    String::from_utf8(out).unwrap_or_default()
}
