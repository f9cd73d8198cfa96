//! Runs one parser of the hot path over one typical input, so that its instructions can be counted.
//!
//! `wire_cost <case> <times>`; without arguments it names the cases. Counted under `valgrind --tool=callgrind`
//! with two values of `times`, the difference of the two counts over the difference of the times is the cost of
//! one call: start-up and building the input cancel out.

use std::hint::black_box;

use router_core::ids::Operation;
use router_core::wire::{request, sse, usage};

/// A parser's loop over its input, so many times.
type Run = fn(usize);

const CASES: [(&str, Run); 7] = [
    ("json", json),
    ("json-split", json_split),
    ("json-long", json_long),
    ("request", read_request),
    ("event", event),
    ("count", count),
    ("stream", stream),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let (name, times) = (args.next().unwrap_or_default(), args.next().and_then(|n| n.parse().ok()));
    match (CASES.iter().find(|(case, _)| *case == name), times) {
        (Some((_, run)), Some(times)) => run(times),
        _ => CASES.iter().for_each(|(case, _)| println!("{case}")),
    }
}

/// A chat answer of 1002 bytes.
fn answer() -> String {
    let text = "A budget is settled once the answer has ended. ".repeat(20);
    let fill = |text: &str| {
        format!(
            r#"{{"id":"chatcmpl-9aB3xYz0Q1w2E3r4T5y6","object":"chat.completion","created":1735689600,"model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":19,"completion_tokens":100,"total_tokens":119,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"service_tier":"default","system_fingerprint":"fp_44709d6fcb"}}"#
        )
    };
    let spare = 1002 - fill("").len();
    fill(text.get(..spare).unwrap_or(&text))
}

fn json(times: usize) {
    let answer = answer();
    for _ in 0..times {
        let mut meter = usage::Meter::new();
        meter.json(black_box(answer.as_bytes()));
        black_box(meter.usage());
    }
}

/// The same in two reads, the second of which starts within the usage.
fn json_split(times: usize) {
    let answer = answer();
    let (head, tail) = answer.as_bytes().split_at_checked(700).unwrap_or_default();
    for _ in 0..times {
        let mut meter = usage::Meter::new();
        meter.json(black_box(head));
        meter.json(black_box(tail));
        black_box(meter.usage());
    }
}

/// An answer of 100 kB: embeddings.
fn json_long(times: usize) {
    let numbers = vec!["-0.012345678"; 7_700].join(",");
    let answer =
        format!(r#"{{"data":[{{"embedding":[{numbers}]}}],"usage":{{"prompt_tokens":8,"total_tokens":8}}}}"#);
    for _ in 0..times {
        let mut meter = usage::Meter::new();
        meter.json(black_box(answer.as_bytes()));
        black_box(meter.usage());
    }
}

/// A chat request of 846 bytes.
fn read_request(times: usize) {
    let text = "Say in a few words what a budget is for, and who settles it. ".repeat(20);
    let fill = |text: &str| {
        format!(
            r#"{{"model":"gpt-4o","messages":[{{"role":"system","content":"You are a careful assistant."}},{{"role":"user","content":"{text}"}}],"temperature":0.7,"top_p":1,"max_tokens":256,"stream":false,"user":"agent-7"}}"#
        )
    };
    let spare = 846 - fill("").len();
    let body = fill(text.get(..spare).unwrap_or(&text));
    for _ in 0..times {
        let _ = black_box(request::read(Operation::Chat, black_box(body.as_bytes())));
    }
}

const USAGE_CHUNK: &str = r#"data: {"id":"chatcmpl-9aB3xYz0Q1w2E3r4T5y6","object":"chat.completion.chunk","created":1735689600,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":100,"total_tokens":119,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}

"#;

/// The last chunk of a stream.
fn event(times: usize) {
    for _ in 0..times {
        let mut meter = usage::Meter::new();
        black_box(meter.event(black_box(USAGE_CHUNK.as_bytes())));
        black_box(meter.usage());
    }
}

/// A read of 48 events, as they are when usage was asked for.
fn read() -> String {
    let chunk = r#"data: {"id":"chatcmpl-9aB3xYz0Q1w2E3r4T5y6","object":"chat.completion.chunk","created":1735689600,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":" budget"},"logprobs":null,"finish_reason":null}],"usage":null}

"#;
    chunk.repeat(47) + USAGE_CHUNK
}

fn count(times: usize) {
    let read = read();
    for _ in 0..times {
        black_box(sse::count(black_box(read.as_bytes())));
    }
}

/// What forwarding does with that read.
fn stream(times: usize) {
    let read = read();
    for _ in 0..times {
        let mut meter = usage::Meter::new();
        let whole = black_box(read.as_bytes());
        black_box(sse::count(whole));
        for range in sse::around(whole, usage::mentions(whole)) {
            black_box(meter.event(whole.get(range).unwrap_or(&[])));
        }
        black_box(meter.usage());
    }
}
