use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn of_events(blocks: &[&str]) -> Option<Usage> {
    let mut meter = Meter::new();
    for block in blocks {
        meter.event(block.as_bytes());
    }
    meter.usage()
}

fn of_json(body: &str, step: usize) -> Option<Usage> {
    let mut meter = Meter::new();
    for part in body.as_bytes().chunks(step.max(1)) {
        meter.json(part);
    }
    meter.usage()
}

fn is_usage_chunk(block: &[u8]) -> bool {
    Meter::new().event(block) == EventKind::UsageChunk
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input, output, ..Usage::default() }
}

const CHAT: &str = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"hi \"usage\": {"}}],
    "usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,
    "prompt_tokens_details":{"cached_tokens":7,"audio_tokens":0},
    "completion_tokens_details":{"reasoning_tokens":4,"accepted_prediction_tokens":0}},"service_tier":"default"}"#;

const CHAT_USAGE: Usage = Usage { input: 19, output: 10, cache_read: 7, cache_write: 0, reasoning: 4 };

#[test]
fn reads_each_buffered_shape() {
    assert_eq!(of_json(CHAT, usize::MAX), Some(CHAT_USAGE));
    let responses = r#"{"usage":{"input_tokens":328,"input_tokens_details":{"cached_tokens":8},"output_tokens":52,
        "output_tokens_details":{"reasoning_tokens":5},"total_tokens":380}}"#;
    let seen = Usage { input: 328, output: 52, cache_read: 8, cache_write: 0, reasoning: 5 };
    assert_eq!(of_json(responses, usize::MAX), Some(seen));
    let anthropic = r#"{"usage":{"input_tokens":21,"cache_creation_input_tokens":188,
        "cache_read_input_tokens":1000,"output_tokens":393,"service_tier":"standard"}}"#;
    let seen = Usage { input: 1209, output: 393, cache_read: 1000, cache_write: 188, reasoning: 0 };
    assert_eq!(of_json(anthropic, usize::MAX), Some(seen));
    let both = r#"{"usage":{"input_tokens":50,"input_tokens_details":{"cached_tokens":8},"cache_read_input_tokens":8}}"#;
    let seen = Usage { input: 50, cache_read: 8, ..Usage::default() };
    assert_eq!(of_json(both, usize::MAX), Some(seen), "what the details name is part of the input");
    let embeddings = r#"{"data":[{"embedding":[0.1,-2e-3]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    assert_eq!(of_json(embeddings, usize::MAX), Some(usage(8, 0)));
    assert_eq!(of_json(r#"{"usage":{"total_tokens":8}}"#, usize::MAX), Some(usage(8, 0)));
    assert_eq!(of_json(r#"{"input_tokens":2095}"#, usize::MAX), None, "count_tokens bills nothing");
}

#[test]
fn counts_only_usage_at_the_top_level() {
    for body in [
        r#"{"tools":[{"parameters":{"usage":{"prompt_tokens":1}}}]}"#,
        r#"{"metadata":{"usage":{"prompt_tokens":1}}}"#,
        r#"{"choices":[{"usage":{"prompt_tokens":1}}]}"#,
        r#"{"text":"\"usage\":{\"prompt_tokens\":1}"}"#,
        r#"{"x":"usage","y":{"prompt_tokens":1}}"#,
        r#"[{"usage":{"prompt_tokens":1}}]"#,
        r#""usage":{"prompt_tokens":1}"#,
        r#"{"Usage":{"prompt_tokens":1}}"#,
        r#"{"usage":[{"prompt_tokens":1}]}"#,
        r#"{"usage":{"x":{"prompt_tokens":1}}}"#,
    ] {
        assert_eq!(of_json(body, usize::MAX), None, "{body}");
        assert_eq!(of_events(&[&format!("data: {body}\n\n")]), None, "{body}");
    }
    assert_eq!(
        of_events(&["data: {\"item\":{\"usage\":{\"input_tokens\":1}},\"response\":{\"x\":1}}\n\n"]),
        None
    );
    assert_eq!(of_json("{\"us\\u0061ge\":{\"prompt_tokens\":1}}", 1), Some(usage(1, 0)));
}

#[test]
fn reads_the_last_chunk_of_a_chat_stream() {
    let seen = of_events(&[
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}],\"usage\" : null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}\n\n",
        "data: [DONE]\n\n",
    ]);
    assert_eq!(seen, Some(usage(5, 2)));
}

#[test]
fn replaces_the_usage_of_earlier_chunks() {
    let chunk =
        |n: u64| format!("data:{{\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{n}}}}}\r\n\r\n");
    assert_eq!(of_events(&[&chunk(1), &chunk(2), &chunk(3)]), Some(usage(5, 3)));
}

#[test]
fn reads_the_end_of_a_responses_stream() {
    let seen = of_events(&[
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null,\"tools\":[]}}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"tools\":\
         [{\"usage\":{\"input_tokens\":999}}],\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n",
    ]);
    assert_eq!(seen, Some(usage(3, 4)));
}

#[test]
fn merges_the_two_reports_of_an_anthropic_stream() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\
        \"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":2,\"output_tokens\":1}}}\n\n";
    let delta = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
        \"usage\":{\"output_tokens\":15}}\n\n";
    let merged = Usage { input: 30, output: 15, cache_read: 2, cache_write: 3, reasoning: 0 };
    assert_eq!(of_events(&[start]).map(|u| u.output), Some(1));
    assert_eq!(of_events(&[start, "event: ping\ndata: {\"type\":\"ping\"}\n\n", delta]), Some(merged));
    let corrected = delta.replace("\"output_tokens\":15", "\"input_tokens\":40,\"output_tokens\":16");
    assert_eq!(of_events(&[start, delta, &corrected]).map(|u| (u.input, u.output)), Some((45, 16)));
}

#[test]
fn takes_odd_numbers_without_failing() {
    for (members, seen) in [
        (r#""prompt_tokens":null,"completion_tokens":2"#, Some(usage(0, 2))),
        (r#""prompt_tokens":-5,"completion_tokens":2"#, Some(usage(0, 2))),
        (r#""prompt_tokens":"5","completion_tokens":2"#, Some(usage(0, 2))),
        (r#""prompt_tokens":5.9,"completion_tokens":2.0"#, Some(usage(5, 2))),
        (r#""prompt_tokens":1e999,"completion_tokens":-1e999"#, Some(usage(u64::MAX, 0))),
        (r#""prompt_tokens":99999999999999999999999,"completion_tokens":1"#, Some(usage(u64::MAX, 1))),
        (
            r#""prompt_tokens":4,"prompt_tokens_details":null,"completion_tokens_details":[1]"#,
            Some(usage(4, 0)),
        ),
        (r#""prompt_tokens":null"#, None),
        ("", None),
    ] {
        let body = format!("{{\"usage\":{{{members}}}}}");
        assert_eq!(of_json(&body, usize::MAX), seen, "{members}");
        assert_eq!(of_events(&[&format!("data: {body}\n\n")]), seen, "{members}");
    }
    let full =
        format!("{{\"usage\":{{\"input_tokens\":{m},\"cache_read_input_tokens\":{m}}}}}", m = u64::MAX);
    assert_eq!(of_json(&full, usize::MAX).map(|u| u.total()), Some(u64::MAX));
}

#[test]
fn reads_data_that_is_spread_over_lines() {
    let block = "data: {\"choices\": [\ndata: ],\ndata: \"usage\": {\"prompt_tokens\": 1}}\n\n";
    assert_eq!(of_events(&[block]), Some(usage(1, 0)));
    assert!(is_usage_chunk(block.as_bytes()));
}

#[test]
fn skips_a_usage_above_its_bound() {
    let body =
        format!("{{\"usage\":{{\"x\":\"{}\",\"prompt_tokens\":1}}}}", "x".repeat(crate::limits::USAGE_BYTES));
    assert_eq!(of_json(&body, 100), None);
    assert_eq!(
        of_json(&format!("{{\"big\":\"{}\",\"usage\":{{\"prompt_tokens\":1}}}}", "x".repeat(9999)), 7),
        Some(usage(1, 0))
    );
}

#[test]
fn tells_the_extra_usage_chunk_from_others() {
    for (block, verdict) in [
        ("data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n", true),
        ("data: {\"choices\": [ ] , \"usage\" : { }}\n\n", true),
        ("data: {\"choices\":[],\"usage\":null}\n\n", false),
        ("data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1}}\n\n", false),
        ("data: {\"usage\":{\"prompt_tokens\":1}}\n\n", false),
        ("data: {\"x\":{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}}\n\n", false),
        ("data: {\"choices\":[],\"x\":{\"usage\":{\"prompt_tokens\":1}}}\n\n", false),
        ("data: [DONE]\n\n", false),
        (": {\"choices\":[],\"usage\":{}}\n\n", false),
        ("", false),
    ] {
        assert_eq!(is_usage_chunk(block.as_bytes()), verdict, "{block}");
    }
}

/// The same numbers from a full parse.
fn oracle(body: &Value) -> Option<Usage> {
    let usage = body.as_object()?.get("usage")?.as_object()?;
    Report::parse(&serde_json::to_string(usage).unwrap()).map(Report::usage)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[\\PC\"\\\\{}\\[\\],:]{0,12}".prop_map(Value::from),
        Just(json!("usage")),
        prop::collection::vec(any::<f32>().prop_map(Value::from), 0..40).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![4 => "[a-c\"\\\\{}]{0,4}", 1 => Just("usage".to_owned()), 1 => Just("prompt_tokens".to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "prompt_tokens",
        "input_tokens",
        "completion_tokens",
        "output_tokens",
        "total_tokens",
        "cached_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "prompt_tokens_details",
        "input_tokens_details",
        "completion_tokens_details",
        "output_tokens_details",
        "reasoning_tokens",
        "audio\\u0020x",
        "t\\u006ftal_tokens",
        "",
    ]);
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => "[a-z\u{e9}\u{7f}\u{1}]{0,9}"]
        .prop_map(|n| format!("\"{n}\""))
}

fn value() -> impl Strategy<Value = String> {
    let odd = [
        "null",
        "true",
        "nul",
        "-5",
        "5.9",
        "1e3",
        "01",
        "0",
        "00",
        "18446744073709551615",
        "18446744073709551616",
        "9999999999999999999",
        "\"x\"",
        "\"\\\"\"",
        "\"\u{e9}\"",
        "[]",
        "[1,{}]",
        "{}",
        "{\"cached_tokens\":3}",
        "{\"cached_tokens\":3,\"reasoning_tokens\":4,\"x\":\"}\"}",
        "{\"cached_tokens\":{}}",
        "{\"reasoning_tokens\":1.5}",
        "{\"cached_tokens\":1,\"cached_tokens\":null}",
        "\"\u{1}\"",
        "",
    ];
    prop_oneof![3 => any::<u32>().prop_map(|n| n.to_string()), 2 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned)]
}

proptest! {
    #[test]
    fn finds_the_usage_a_full_parse_finds(
        mut body in any_json(), tokens in any::<Option<u32>>(), step in 1_usize..40, pretty in any::<bool>(),
    ) {
        if let (Some(tokens), Some(object)) = (tokens, body.as_object_mut()) {
            object.insert("usage".into(), json!({"prompt_tokens": tokens, "x": {"a": ["}", "\\\""]}}));
        }
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        prop_assert_eq!(of_json(&text, step), oracle(&body));
        prop_assert_eq!(of_json(&text, usize::MAX), oracle(&body));
        if !pretty && body.get("response").is_none() && body.get("message").is_none() {
            prop_assert_eq!(of_events(&[&format!("data: {text}\n\n")]), oracle(&body));
        }
    }

    #[test]
    fn gives_the_same_result_at_any_split(body in "[\\[\\]{}\":,\\\\ 1usage]{0,80}", step in 1_usize..9) {
        prop_assert_eq!(of_json(&body, step), of_json(&body, usize::MAX));
    }

    #[test]
    fn reads_the_common_form_as_a_parser_does(
        members in prop::collection::vec((name(), value()), 0..8), space in "[ \n\t]{0,2}", tail in "[,} x]{0,3}",
    ) {
        let join = |members: &[(String, String)]| {
            let pairs: Vec<_> = members.iter().map(|(n, v)| format!("{space}{n}{space}:{space}{v}{space}")).collect();
            format!("{{{}}}", pairs.join(","))
        };
        let text = join(&members);
        let quick = quick::read(format!("{text}{tail}").as_bytes());
        if let Some((report, len)) = quick {
            prop_assert_eq!((report, len), (Report::parse(&text), text.len()));
        }
        prop_assert_eq!(Report::read(text.as_bytes()), Report::parse(&text));
        let nested = join(&[("\"completion_tokens_details\"".into(), text.clone()), ("\"input_tokens_details\"".into(), text)]);
        prop_assert_eq!(Report::read(nested.as_bytes()), Report::parse(&nested));
        let body = format!("{{\"a\":{{}},\"usage\":{nested},\"b\":1}}");
        prop_assert_eq!(of_json(&body, 3), Report::parse(&nested).map(Report::usage));
        prop_assert_eq!(of_json(&body, usize::MAX), Report::parse(&nested).map(Report::usage));
    }

    #[test]
    fn never_takes_for_the_common_form_what_is_none(text in "[{}\":,0-9ae\\\\. ]{0,24}") {
        let text = format!("{{\"total_tokens\":{text}");
        if let Some((report, len)) = quick::read(text.as_bytes()) {
            prop_assert!(serde_json::from_str::<Value>(&text[..len]).is_ok());
            prop_assert_eq!(report, Report::parse(&text[..len]));
        }
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::wire::checks::usage(&bytes);
    }
}
