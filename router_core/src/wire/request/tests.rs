use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::Kind;

fn chat(body: &str) -> Request<'_> {
    read(Operation::Chat, body.as_bytes()).unwrap()
}

fn refusal(body: &str) -> String {
    let error = read(Operation::Responses, body.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), Kind::BadRequest);
    error.detail().to_owned()
}

#[test]
fn reads_what_policy_needs_with_its_place() {
    let body = r#" { "messages" : [ {"role":"user","content":"model: \"x\""} ] ,
        "model" : "gpt\u002d4o" , "stream": true, "max_tokens":100,"max_completion_tokens": 200, "n":3,
        "tools": [ {"type":"function","function":{"name":"a\"b"}} , {"type":"web_search"}, {"name":"c"} ],
        "stream_options":{ "include_usage" : false, "x":1 } } "#;
    let request = chat(body);
    let model = request.model.unwrap();
    assert_eq!((&*model.value, &body[model.span]), ("gpt-4o", r#""gpt\u002d4o""#));
    assert!(request.stream && request.choices == 3 && !request.empty);
    let caps: Vec<_> = request.caps.iter().map(|(k, v)| (*k, v.value, &body[v.span.clone()])).collect();
    assert_eq!(caps, [("max_completion_tokens", 200, "200"), ("max_tokens", 100, "100")]);
    let names: Vec<_> = request.tools.iter().map(|t| t.name.as_deref()).collect();
    assert_eq!(names, [Some("a\"b"), None, Some("c")]);
    assert_eq!(&body[request.tools[1].span.clone()], r#"{"type":"web_search"}"#);
    assert_eq!(
        serde_json::from_str::<Value>(&body[request.tools_span.unwrap()]).unwrap().as_array().unwrap().len(),
        3
    );
    let StreamUsage::Off(place) = request.stream_usage else { panic!("{:?}", request.stream_usage) };
    assert_eq!(&body[place], "false");
    assert_eq!(&body[..request.open], " {");
}

#[test]
fn reads_an_empty_object() {
    let request = chat("{ }");
    assert!(request.empty && request.model.is_none() && request.tools_span.is_none() && !request.stream);
    assert_eq!((request.choices, request.open), (1, 1));
    assert_eq!(request.stream_usage, StreamUsage::Absent(None));
}

#[test]
fn tells_what_the_client_said_about_usage() {
    let said = |options: &str| chat(&format!("{{\"stream_options\":{options}}}")).stream_usage;
    assert_eq!(said("null"), StreamUsage::Absent(Some(18..22)));
    assert_eq!(said("{ }"), StreamUsage::Unset { at: 19, empty: true });
    assert_eq!(said("{\"x\":{}}"), StreamUsage::Unset { at: 19, empty: false });
    assert_eq!(said("{\"include_usage\":null}"), StreamUsage::Off(35..39));
    assert_eq!(said("{\"include\\u005fusage\":true}"), StreamUsage::On);
}

#[test]
fn refuses_what_is_not_one_object() {
    for body in [
        "",
        " ",
        "null",
        "5",
        "\"model\"",
        "[]",
        "[{}]",
        "{",
        "}",
        "{}{}",
        "{} x",
        "{\"a\":1,}",
        "{\"a\"}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":nul}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "\u{feff}{}",
        "{\"model\":\"\\ud800\"}",
        "{,}",
        "{\"input\":[}",
        "{\"input\":[1}",
        "{\"a\":[1,]}",
    ] {
        refusal(body);
    }
    assert!(read(Operation::Chat, b"{\"a\":\"\xff\"}").is_err());
    assert!(read(Operation::Chat, b"{\"\xff\":1}").is_err());
    let deep = "[".repeat(100_000);
    assert!(read(Operation::Chat, format!("{{\"a\":{deep}").as_bytes()).is_err());
    assert!(read(Operation::Chat, format!("{{\"a\":{deep}{}}}", "]".repeat(100_000)).as_bytes()).is_ok());
}

#[test]
fn refuses_a_key_that_is_repeated_or_written_in_another_case() {
    for (body, key) in [
        (r#"{"model":"a","model":"b"}"#, "model"),
        (r#"{"model":"a","\u006dodel":"b"}"#, "model"),
        (r#"{"model":"a","Model":"b"}"#, "model"),
        (r#"{"MODEL":"a"}"#, "model"),
        (r#"{"ſtream":true}"#, "stream"),
        (r#"{"max_to\u212Aens":1}"#, "max_tokens"),
        (r#"{"stream":true,"stream":true}"#, "stream"),
        (r#"{"n":1,"n":null}"#, "n"),
        (r#"{"tools":[],"tools":[]}"#, "tools"),
        (r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#, "include_usage"),
        (r#"{"stream_options":{},"stream_options":null}"#, "stream_options"),
        (r#"{"tools":[{"name":"a","name":"b"}]}"#, "name"),
        (r#"{"tools":[{"function":{"name":"a","Name":"b"}}]}"#, "name"),
        (r#"{"tools":[{"function":{"name":"a"},"function":{}}]}"#, "function"),
        (r#"{"input":[],"input":[]}"#, "input"),
    ] {
        let text = refusal(body);
        assert!(text.starts_with(&format!("'{key}' is ")), "{body}: {text}");
    }
    assert!(refusal(r#"{"tools":[{"name":"a","function":{"name":"b"}}]}"#).contains("two names"));
    assert_eq!(
        chat(r#"{"tools":[{"name":"a","function":{"name":"a"}}]}"#).tools[0].name.as_deref(),
        Some("a")
    );
    chat(r#"{"x":1,"x":2,"messages":[{"model":"a","model":"b"}],"metadata":{"n":1,"n":2}}"#);
}

#[test]
fn refuses_wrong_types_and_names_the_key() {
    for (body, key) in [
        (r#"{"model":5}"#, "model"),
        (r#"{"stream":"true"}"#, "stream"),
        (r#"{"stream":1}"#, "stream"),
        (r#"{"max_tokens":"5"}"#, "max_tokens"),
        (r#"{"max_tokens":-1}"#, "max_tokens"),
        (r#"{"max_tokens":1.0}"#, "max_tokens"),
        (r#"{"max_output_tokens":18446744073709551616}"#, "max_output_tokens"),
        (r#"{"n":-1}"#, "n"),
        (r#"{"best_of":[]}"#, "best_of"),
        (r#"{"tools":{}}"#, "tools"),
        (r#"{"tools":["a"]}"#, "tools"),
        (r#"{"functions":[1]}"#, "functions"),
        (r#"{"tools":[{"name":5}]}"#, "name"),
        (r#"{"tools":[{"function":[]}]}"#, "function"),
        (r#"{"stream_options":[]}"#, "stream_options"),
        (r#"{"stream_options":{"include_usage":"no"}}"#, "include_usage"),
        (r#"{"input":5}"#, "input"),
        (r#"{"input":{"secret":1}}"#, "input"),
    ] {
        let text = refusal(body);
        assert!(text.contains(&format!("'{key}'")) && !text.contains("secret"), "{body}: {text}");
    }
    let long = format!("{{\"model\":\"{}\"}}", "m".repeat(crate::limits::MODEL_BYTES + 1));
    assert!(refusal(&long).contains("'model'"));
}

#[test]
fn takes_null_as_absent_and_keeps_its_place() {
    let body = r#"{"model":null,"stream":null,"max_tokens":null,"n":null,"tools":null,"functions":null}"#;
    let request = chat(body);
    assert!(request.model.is_none() && !request.stream && request.caps.is_empty() && request.choices == 1);
    assert!(request.nulls.iter().all(|(_, span)| &body[span.clone()] == "null"));
    assert_eq!(request.nulls.len(), 6);
}

#[test]
fn knows_the_place_of_tools_full_or_empty() {
    for tools in ["[]", "[ ]", "[{}]", "[ {} , {\"name\":\"]\"}\n]"] {
        let body = format!("{{\"a\":[],\"tools\" : {tools} ,\"b\":[]}}");
        let place = chat(&body).tools_span.unwrap();
        assert_eq!(&body[place], tools);
    }
    assert_eq!(chat("{\"tools\":null}").tools_span, None);
}

#[test]
fn counts_the_answers_that_will_be_billed() {
    assert_eq!(chat(r#"{"n":2}"#).choices, 2);
    assert_eq!(chat(r#"{"n":2,"best_of":5}"#).choices, 5);
}

#[test]
fn shows_the_older_form_of_tools() {
    let request = chat(r#"{"functions":[{"name":"a"},{"name":"b"}]}"#);
    assert_eq!(request.functions.iter().filter_map(|f| f.name.as_deref()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn finds_replayed_reasoning_only_in_responses() {
    let body = r#"{"input":[{"type":"reasoning","id":1}, {"type":"message","content":"reasoning"},
        {"content":{"type":"reasoning"}},{"id":2,"type":"reas\u006fning","summary":"reasoning"}, "reasoning"],
        "include":["a","reasoning.encrypted_content"]}"#;
    let request = read(Operation::Responses, body.as_bytes()).unwrap();
    let found: Vec<_> = request.reasoning.iter().map(|span| &body[span.clone()]).collect();
    assert_eq!(found.len(), 3);
    assert_eq!((found[0], found[2]), (r#"{"type":"reasoning","id":1}"#, "\"reasoning.encrypted_content\""));
    assert!(chat(body).reasoning.is_empty());
    assert!(
        read(Operation::Responses, br#"{"input":"reasoning \n","include":null}"#)
            .unwrap()
            .reasoning
            .is_empty()
    );
    assert!(read(Operation::Embeddings, br#"{"input":5}"#).is_ok());
}

#[test]
fn counts_media_apart_from_text() {
    let payload = "iVBORw0KGgo/".repeat(50);
    let escaped = payload.replace('/', "\\/");
    for (part, parts) in [
        (format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{payload}"}}}}"#), 1),
        (format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{escaped}"}}}}"#), 1),
        (format!(r#"{{"type" : "input_audio","input_audio":{{"data" : "{payload}","format":"wav"}}}}"#), 1),
        (
            format!(
                r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{payload}"}}}}"#
            ),
            1,
        ),
        (format!(r#"{{"type":"file","file":{{"file_data":"data:application/pdf;base64,{payload}"}}}}"#), 1),
    ] {
        let body = format!(r#"{{"messages":[{{"content":[{{"type":"text","text":"hi"}},{part}]}}]}}"#);
        let request = chat(&body);
        assert_eq!(request.media_parts, parts, "{part}");
        assert!(request.text_bytes < 200, "{}: {part}", request.text_bytes);
    }
}

#[test]
fn does_not_take_text_for_media() {
    let words = "lorem ipsum ".repeat(50);
    for body in [
        format!(r#"{{"data":"{words}"}}"#),
        format!(r#"{{"text":"\"type\":\"image_url\" \"data\":\"{}\""}}"#, "A".repeat(500)),
        format!(r#"{{"text":"{}"}}"#, "A".repeat(500)),
        format!(r#"{{"text":"x;base64,{}"}}"#, "A".repeat(500)),
        r#"{"data":"short","type":"image_generation"}"#.to_owned(),
    ] {
        let request = chat(&body);
        assert_eq!((request.media_parts, request.text_bytes), (0, body.len() as u64), "{body}");
    }
}

fn rewritten(operation: Operation, body: &str, rewrite: impl FnOnce(&mut Rewrite<'_, '_>)) -> String {
    let request = read(operation, body.as_bytes()).unwrap();
    let mut rewrites = Rewrite::new(&request, body.as_bytes());
    rewrite(&mut rewrites);
    String::from_utf8(rewrites.edits().applied(body.as_bytes())).unwrap()
}

#[test]
fn rewrites_without_touching_the_rest() {
    let of = |body: &str, rewrite: fn(&mut Rewrite<'_, '_>)| rewritten(Operation::Responses, body, rewrite);
    assert_eq!(
        of(r#"{ "a":1.0, "model" : "x" }"#, |r| _ = r.set_model("y\"é")),
        r#"{ "a":1.0, "model" : "y\"é" }"#
    );
    assert_eq!(of(r#"{"a":1}"#, |r| _ = r.set_model("x").set_model("y")), r#"{"model":"y","a":1}"#);
    assert_eq!(of(r#"{"model":null}"#, |r| _ = r.set_model("y")), r#"{"model":"y"}"#);
    assert_eq!(
        of("{ }", |r| _ = r.set_model("y").set_cap("max_tokens", 5)),
        r#"{"model":"y","max_tokens":5 }"#
    );
    assert_eq!(of(r#"{"max_tokens":9}"#, |r| _ = r.set_cap("max_tokens", 5)), r#"{"max_tokens":5}"#);
    let tools = r#"{"tools":[ {"name":"a"} , {"name":"b"} , {"name":"c"} ]}"#;
    assert_eq!(of(tools, |r| _ = r.remove_tools(&[1])), r#"{"tools":[ {"name":"a"} ,  {"name":"c"} ]}"#);
    assert_eq!(of(tools, |r| _ = r.remove_tools(&[2, 1, 2])), r#"{"tools":[ {"name":"a"}  ]}"#);
    assert_eq!(of(tools, |r| _ = r.remove_tools(&[0, 1, 2])), r#"{"tools":[]}"#);
    assert_eq!(of(tools, |r| _ = r.remove_tools(&[7])), tools);
    let input = r#"{"input":[{"type":"reasoning"}],"include":["reasoning.encrypted_content","x"]}"#;
    assert_eq!(of(input, |r| _ = r.strip_reasoning()), r#"{"input":[],"include":["x"]}"#);
    assert!(Rewrite::new(&chat(tools), tools.as_bytes()).edits().is_empty());
}

#[test]
fn sets_stream_usage_whatever_the_client_said() {
    for options in [
        "",
        r#""stream_options":null,"#,
        r#""stream_options":{},"#,
        r#""stream_options":{"x":1},"#,
        r#""stream_options":{"x":1,"include_usage":false},"#,
        r#""stream_options":{"include_usage":true},"#,
    ] {
        let body = format!("{{{options}\"a\":1}}");
        let edited = rewritten(Operation::Chat, &body, |r| _ = r.set_stream_usage());
        let tree: Value = serde_json::from_str(&edited).unwrap();
        assert_eq!(tree["stream_options"]["include_usage"], json!(true), "{edited}");
        assert_eq!(
            (&tree["a"], tree["stream_options"].get("x").is_some()),
            (&json!(1), options.contains('x'))
        );
    }
}

/// A body as text, its members in any order and with any white space, and the same as a tree.
fn any_body() -> impl Strategy<Value = String> {
    let text = "[a-z\"\\\\/{}\\[\\],: é\n]{0,10}".prop_map(Value::from);
    let tool = prop_oneof![
        text.clone().prop_map(|name| json!({"type": "function", "function": {"name": name}})),
        text.clone().prop_map(|name| json!({"name": name, "x": [1]})),
        Just(json!({"type": "web_search"})),
    ];
    let input = prop_oneof![
        text.clone(),
        Just(json!({"type": "reasoning", "x": ["]"]})),
        text.clone().prop_map(|t| json!({"type": "message", "content": t})),
    ];
    let include = prop_oneof![Just(json!("reasoning.encrypted_content")), Just(json!("x"))];
    let array = |of: BoxedStrategy<Value>| prop::collection::vec(of, 0..5).prop_map(Value::from).boxed();
    let number = prop_oneof![3 => (1_u64..9).prop_map(Value::from), 1 => Just(Value::Null)].boxed();
    let options = prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!({"x": 1})),
        any::<Option<bool>>().prop_map(|on| json!({"include_usage": on, "z": {}})),
    ];
    let member =
        |key: &'static str, value: BoxedStrategy<Value>| prop::option::of(value.prop_map(move |v| (key, v)));
    let members = (
        member("model", prop_oneof![text.clone(), Just(Value::Null)].boxed()),
        member("max_tokens", number.clone()),
        member("max_completion_tokens", number.clone()),
        member("stream_options", options.boxed()),
        member("tools", array(tool.boxed())),
        member("input", array(input.boxed())),
        member("include", array(include.boxed())),
        member("messages", array(text.boxed())),
        member("n", number),
    );
    let listed = members.prop_map(|m| {
        [m.0, m.1, m.2, m.3, m.4, m.5, m.6, m.7, m.8].into_iter().flatten().collect::<Vec<_>>()
    });
    (listed.prop_shuffle(), any::<bool>(), "[ \n\t\r]{0,2}").prop_map(|(members, pretty, gap)| {
        let text = |value: &Value| {
            if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap()
        };
        let members: Vec<_> =
            members.iter().map(|(k, v)| format!("{gap}\"{k}\"{gap}:{gap}{}", text(v))).collect();
        format!("{gap}{{{gap}{}{gap}}}{gap}", members.join(&format!("{gap},")))
    })
}

fn without(tree: &mut Value, key: &str, gone: impl Fn(usize, &Value) -> bool) {
    if let Some(list) = tree.get_mut(key).and_then(Value::as_array_mut) {
        let mut i = 0;
        list.retain(|element| {
            i += 1;
            !gone(i - 1, element)
        });
    }
}

proptest! {
    #[test]
    fn takes_the_common_form_apart_as_a_parser_does(
        body in any_body(), at in any::<prop::sample::Index>(), odd in "[\\PC\"\\\\{}\\[\\],: ]{0,2}", cut in 0_usize..3,
    ) {
        let names = &decode::KEYS[..];
        prop_assert_eq!(quick::find(&body, names), decode::parse(&body, names).ok());
        let mut at = at.index(body.len() + 1);
        while !body.is_char_boundary(at) {
            at -= 1;
        }
        let tail: String = body[at..].chars().skip(cut).collect();
        let mutated = format!("{}{odd}{tail}", &body[..at]);
        for names in [names, names.split_at(decode::SINGLE + 2).0] {
            if let Some(found) = quick::find(&mutated, names) {
                prop_assert_eq!(Some(found), decode::parse(&mutated, names).ok(), "{}", mutated);
            }
        }
    }

    #[test]
    fn reads_what_a_full_parse_reads(body in any_body()) {
        let request = read(Operation::Responses, body.as_bytes()).unwrap();
        let tree: Value = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(request.model.as_ref().map(|m| &*m.value), tree["model"].as_str());
        if let Some(model) = &request.model {
            prop_assert_eq!(&serde_json::from_str::<String>(&body[model.span.clone()]).unwrap(), &*model.value);
        }
        for (key, cap) in &request.caps {
            prop_assert_eq!(Some(cap.value), tree[key].as_u64());
            prop_assert_eq!(body[cap.span.clone()].parse(), Ok(cap.value));
        }
        prop_assert_eq!(request.caps.len(), ["max_tokens", "max_completion_tokens"].iter().filter(|k| tree[k].is_u64()).count());
        prop_assert_eq!(request.choices, tree["n"].as_u64().unwrap_or(1));
        let tools = tree["tools"].as_array().cloned().unwrap_or_default();
        prop_assert_eq!(request.tools.len(), tools.len());
        for (tool, value) in request.tools.iter().zip(&tools) {
            prop_assert_eq!(&serde_json::from_str::<Value>(&body[tool.span.clone()]).unwrap(), value);
            prop_assert_eq!(tool.name.as_deref(), value["function"]["name"].as_str().or(value["name"].as_str()));
        }
        prop_assert_eq!(request.tools_span.map(|s| serde_json::from_str(&body[s]).unwrap()), tree.get("tools").cloned());
        prop_assert_eq!(request.empty, tree == json!({}));
        prop_assert_eq!(body.trim_start().len() + request.open, body.len() + 1);
    }

    #[test]
    fn rewrites_like_a_full_parse_in_any_combination(
        body in any_body(), model in prop::option::of("\\PC{0,5}"), cap in prop::option::of(0_u64..9),
        other in prop::option::of(any::<u64>()), usage in any::<bool>(), strip in any::<bool>(),
        tools in prop::collection::vec(0_usize..6, 0..5),
    ) {
        let mut tree: Value = serde_json::from_str(&body).unwrap();
        let edited = rewritten(Operation::Responses, &body, |r| {
            r.remove_tools(&tools);
            without(&mut tree, "tools", |i, _| tools.contains(&i));
            if let Some(model) = &model {
                r.set_model(model.as_str());
                tree["model"] = json!(model);
            }
            for (key, value) in [("max_completion_tokens", cap), ("max_output_tokens", other)] {
                if let Some(value) = value {
                    r.set_cap(key, value);
                    tree[key] = json!(value);
                }
            }
            if usage {
                r.set_stream_usage();
                tree["stream_options"]["include_usage"] = json!(true);
            }
            if strip {
                r.strip_reasoning();
                without(&mut tree, "input", |_, e| e["type"] == "reasoning");
                without(&mut tree, "include", |_, e| e == "reasoning.encrypted_content");
            }
        });
        prop_assert_eq!(serde_json::from_str::<Value>(&edited).unwrap(), tree);
        let again = read(Operation::Responses, edited.as_bytes());
        prop_assert!(again.is_ok(), "{}", edited);
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::wire::checks::request(&bytes);
    }

    #[test]
    fn survives_near_json(body in "[{}\\[\\]\",:0-9ntmodelstreau_ \\\\]{0,80}") {
        crate::wire::checks::request(format!("\u{1}{{\"model\":\"a\",{body}").as_bytes());
    }
}
