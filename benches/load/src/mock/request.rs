//! A request as the mock sees it: which dialect, which model, a stream or not.

use std::borrow::Cow;

use memchr::memmem;

use crate::args::Fallible;
use crate::http::{self, Body};

/// Whose format the answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `OpenAI` chat completions.
    Chat,
    /// Anthropic messages.
    Messages,
}

/// A complete request.
#[derive(Debug)]
pub struct Request<'a> {
    /// True for GET, which is never a model call.
    pub is_get: bool,
    /// By the path.
    pub dialect: Dialect,
    /// Bytes of head and body on the wire.
    pub len: usize,
    body: Cow<'a, [u8]>,
}

impl<'a> Request<'a> {
    /// The request at the start of `bytes`; `None` while it is incomplete.
    pub fn parse(bytes: &'a [u8]) -> Fallible<Option<Self>> {
        let Some(head_len) = http::head_len(bytes) else { return Ok(None) };
        let (head, rest) = bytes.split_at(head_len);
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let (is_get, is_messages) = (head.starts_with(b"GET "), path.ends_with(b"/messages"));
        let dialect = if is_messages { Dialect::Messages } else { Dialect::Chat };
        let body = match Body::of(head)? {
            Body::Length(len) => match rest.get(..len) {
                Some(body) => (Cow::Borrowed(body), len),
                None => return Ok(None),
            },
            mut framing @ Body::Chunked(_) => {
                let mut payload = Vec::new();
                let len = framing.feed(&mut rest.to_vec(), &mut |piece| payload.extend_from_slice(piece));
                if !framing.is_done() {
                    return Ok(None);
                }
                (Cow::Owned(payload), len)
            }
        };
        Ok(Some(Self { is_get, dialect, len: head_len + body.1, body: body.0 }))
    }

    /// The model asked for, empty when there is none.
    pub fn model(&self) -> &[u8] {
        let value = self.after(b"\"model\"").strip_prefix(b"\"").unwrap_or_default();
        value.split(|byte| *byte == b'"').next().unwrap_or_default()
    }

    /// Whether the answer is to be a stream.
    pub fn wants_stream(&self) -> bool {
        self.after(b"\"stream\"").starts_with(b"true")
    }

    /// What stands behind the first such key and its colon.
    fn after(&self, key: &[u8]) -> &[u8] {
        let Some(at) = memmem::find(&self.body, key) else { return b"" };
        let rest = self.body.get(at + key.len()..).unwrap_or_default();
        let skip = rest.iter().take_while(|byte| matches!(byte, b' ' | b':')).count();
        rest.get(skip..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_model_and_stream_behind_either_framing() {
        let json = r#"{"model": "mock-burst", "stream": true}"#;
        let plain =
            format!("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n{json}", json.len());
        let chunked = format!(
            "POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{json}\r\n0\r\n\r\n",
            json.len()
        );
        for (text, dialect) in [(plain, Dialect::Chat), (chunked, Dialect::Messages)] {
            for cut in 0..text.len() {
                assert!(Request::parse(&text.as_bytes()[..cut]).unwrap().is_none());
            }
            let request = Request::parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!((request.model(), request.dialect), (&b"mock-burst"[..], dialect));
            assert!(request.wants_stream() && !request.is_get);
            assert_eq!(request.len, text.len());
        }
    }
}
