//! What the mock answers, rendered once per shape; only the stamps of events are written anew.

use std::collections::HashMap;
use std::rc::Rc;

use super::request::Dialect;
use crate::poll::now_ns;

/// Input tokens of every answer.
pub const INPUT_TOKENS: u64 = 19;
/// Output tokens of a JSON answer; a stream has one for every event.
pub const OUTPUT_TOKENS: u64 = 10;

/// Stands for a stamp until an event is sent; as wide as one.
const BLANK: &str = "0000000000000000";

const CHUNK: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4o-mini","system_fingerprint":"fp_06737a9306","choices":"#;

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    cache-control: no-cache\r\nx-request-id: req_123\r\ntransfer-encoding: chunked\r\n\r\n";

/// Answers by shape, and the clock of their stamps.
#[derive(Default)]
pub struct Answers {
    streams: HashMap<(Dialect, u32), Rc<Stream>>,
    bodies: HashMap<(Dialect, usize), Rc<[u8]>>,
    last_stamp: u64,
}

/// A stream of `tokens` stamped events.
pub struct Stream {
    /// Response head and the events before the first token.
    pub head: Vec<u8>,
    /// Token events.
    pub tokens: u32,
    first: Event,
    token: Event,
    /// The events behind the last token, and the end of the body.
    pub tail: Vec<u8>,
}

/// One event in its chunk, with the place of its stamp.
struct Event {
    bytes: Vec<u8>,
    stamp_at: usize,
}

impl Answers {
    /// The stream of that many tokens.
    pub fn stream(&mut self, dialect: Dialect, tokens: u32) -> Rc<Stream> {
        let stream = self.streams.entry((dialect, tokens)).or_insert_with(|| {
            Rc::new(match dialect {
                Dialect::Chat => chat_stream(tokens),
                Dialect::Messages => messages_stream(tokens),
            })
        });
        Rc::clone(stream)
    }

    /// The JSON answer, head included, whose body has about that many bytes.
    pub fn json(&mut self, dialect: Dialect, bytes: usize) -> Rc<[u8]> {
        let body = self.bodies.entry((dialect, bytes)).or_insert_with(|| json_answer(dialect, bytes).into());
        Rc::clone(body)
    }

    /// A stamp: the monotonic clock, but never the same twice, so that order can be checked.
    pub fn stamp(&mut self) -> u64 {
        self.last_stamp = now_ns().max(self.last_stamp + 1);
        self.last_stamp
    }
}

impl Stream {
    /// Appends the event of token `index`.
    pub fn event(&self, index: u32, stamp: u64, out: &mut Vec<u8>) {
        let event = if index == 0 { &self.first } else { &self.token };
        let start = out.len() + event.stamp_at;
        out.extend_from_slice(&event.bytes);
        let mut left = stamp;
        for digit in out.get_mut(start..start + BLANK.len()).unwrap_or_default().iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    }
}

impl Event {
    fn new(payload: &str) -> Self {
        let bytes = chunk(payload);
        let stamp_at = memchr::memmem::find(&bytes, BLANK.as_bytes()).unwrap_or_default();
        Self { bytes, stamp_at }
    }
}

fn chunk(payload: &str) -> Vec<u8> {
    format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes()
}

fn chat_stream(tokens: u32) -> Stream {
    let delta = |role: &str| {
        let choice = format!(
            r#"{{"index":0,"delta":{{{role}"content":" @{BLANK}"}},"logprobs":null,"finish_reason":null}}"#
        );
        Event::new(&format!("data: {CHUNK}[{choice}]}}\n\n"))
    };
    let finish = r#"[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#;
    let total = INPUT_TOKENS + u64::from(tokens);
    let usage =
        format!(r#"{{"prompt_tokens":{INPUT_TOKENS},"completion_tokens":{tokens},"total_tokens":{total}}}"#);
    let mut tail = chunk(&format!("data: {CHUNK}{finish}\n\n"));
    tail.extend(chunk(&format!("data: {CHUNK}[],\"usage\":{usage}}}\n\n")));
    tail.extend(chunk("data: [DONE]\n\n"));
    tail.extend_from_slice(b"0\r\n\r\n");
    Stream {
        head: STREAM_HEAD.to_vec(),
        tokens,
        first: delta(r#""role":"assistant","#),
        token: delta(""),
        tail,
    }
}

fn messages_stream(tokens: u32) -> Stream {
    let event = |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
    let mut head = STREAM_HEAD.to_vec();
    let message = r#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null"#;
    let usage = format!(r#""usage":{{"input_tokens":{INPUT_TOKENS},"output_tokens":1}}"#);
    head.extend(chunk(&event("message_start", &format!(r#","message":{message},{usage}}}"#))));
    let block = r#","index":0,"content_block":{"type":"text","text":""}"#;
    head.extend(chunk(&event("content_block_start", block)));
    let delta = format!(r#","index":0,"delta":{{"type":"text_delta","text":" @{BLANK}"}}"#);
    let token = || Event::new(&event("content_block_delta", &delta));
    let mut tail = chunk(&event("content_block_stop", r#","index":0"#));
    let stop = r#","delta":{"stop_reason":"end_turn","stop_sequence":null}"#;
    tail.extend(chunk(&event("message_delta", &format!(r#"{stop},"usage":{{"output_tokens":{tokens}}}"#))));
    tail.extend(chunk(&event("message_stop", "")));
    tail.extend_from_slice(b"0\r\n\r\n");
    Stream { head, tokens, first: token(), token: token(), tail }
}

fn json_answer(dialect: Dialect, bytes: usize) -> Vec<u8> {
    let (before, after) = match dialect {
        Dialect::Chat => (
            r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":""#,
            format!(
                r#"","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{INPUT_TOKENS},"completion_tokens":{OUTPUT_TOKENS},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0}}}},"service_tier":"default"}}"#,
                INPUT_TOKENS + OUTPUT_TOKENS
            ),
        ),
        Dialect::Messages => (
            r#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":""#,
            format!(
                r#""}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":{INPUT_TOKENS},"output_tokens":{OUTPUT_TOKENS}}}}}"#
            ),
        ),
    };
    let room = bytes.saturating_sub(before.len() + after.len());
    let text: String = "lorem ipsum dolor ".chars().cycle().take(room).collect();
    let length = before.len() + text.len() + after.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_123\r\ncontent-length: {length}\r\n\r\n{before}{text}{after}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{self, Body};

    fn payload(answer: &[u8]) -> Vec<u8> {
        let (head, rest) = answer.split_at(http::head_len(answer).unwrap());
        let (mut body, mut payload) = (Body::of(head).unwrap(), Vec::new());
        assert_eq!(body.feed(&mut rest.to_vec(), &mut |bytes| payload.extend_from_slice(bytes)), rest.len());
        assert!(body.is_done());
        payload
    }

    #[test]
    fn a_json_answer_has_the_size_asked_for() {
        let mut answers = Answers::default();
        assert_eq!(payload(&answers.json(Dialect::Chat, 1024)).len(), 1024);
        assert_eq!(payload(&answers.json(Dialect::Messages, 4096)).len(), 4096);
    }

    #[test]
    fn every_event_of_a_stream_carries_a_greater_stamp() {
        for dialect in [Dialect::Chat, Dialect::Messages] {
            let mut answers = Answers::default();
            let stream = answers.stream(dialect, 3);
            let mut bytes = stream.head.clone();
            for index in 0..3 {
                let stamp = answers.stamp();
                stream.event(index, stamp, &mut bytes);
            }
            bytes.extend_from_slice(&stream.tail);
            let text = String::from_utf8(payload(&bytes)).unwrap();
            let stamps: Vec<u64> = text.split(" @").skip(1).map(|rest| rest[..16].parse().unwrap()).collect();
            assert_eq!(stamps.len(), 3);
            assert!(stamps.is_sorted_by(|a, b| a < b));
            assert!(text.contains("tokens\":3"));
        }
    }
}
