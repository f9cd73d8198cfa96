//! The one request a load sends over and over.

use super::plan::Plan;

const SYSTEM: &str = "You are a helpful assistant.";
const FILLER: &str =
    "The quick brown fox jumps over the lazy dog, then asks \\\"why?\\\" and waits for an answer.\\n";

/// Head and body, ready to be written.
pub fn render(plan: &Plan) -> Vec<u8> {
    let body = body(plan);
    let extra: String = plan.headers.iter().flat_map(|header| [header, "\r\n"]).collect();
    format!(
        "POST {} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer sk-test\r\ncontent-type: application/json\r\n\
         {extra}content-length: {}\r\n\r\n{body}",
        plan.path,
        plan.port,
        body.len()
    )
    .into_bytes()
}

fn body(plan: &Plan) -> String {
    let is_messages = plan.path.ends_with("/messages");
    let stream = match (plan.stream, is_messages) {
        (false, _) => "",
        (true, false) => r#""stream":true,"stream_options":{"include_usage":true},"#,
        (true, true) => r#""stream":true,"#,
    };
    let system =
        if is_messages { String::new() } else { format!(r#"{{"role":"system","content":"{SYSTEM}"}},"#) };
    let before = format!(
        r#"{{"model":"{}",{stream}"max_tokens":256,"temperature":0.7,"messages":[{system}{{"role":"user","content":""#,
        plan.model
    );
    let after = r#""}]}"#;
    // Whole sentences only: cutting one could split an escape.
    let room = plan.request_bytes.saturating_sub(before.len() + after.len());
    let mut text = FILLER.repeat(room / FILLER.len());
    text.push_str(&"x".repeat(room - text.len()));
    format!("{before}{text}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;

    #[test]
    fn a_body_has_the_size_asked_for() {
        for bytes in [400, 846, 16_384] {
            let words = format!("--port 1 --stream --model m --request-bytes {bytes}");
            let plan = Plan::from_args(Args::new(words.split(' ').map(str::to_owned).collect())).unwrap();
            assert_eq!(body(&plan).len(), bytes);
        }
    }
}
