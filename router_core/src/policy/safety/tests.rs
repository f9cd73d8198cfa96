use super::*;
use proptest::prelude::*;

const MEDIUM: Floor = Floor {
    hate: Some(Severity::Medium),
    self_harm: Some(Severity::Medium),
    sexual: Some(Severity::Medium),
    violence: Some(Severity::Medium),
    require_prompt_shields: false,
};

fn prompt(categories: &str) -> String {
    format!(
        r#"{{"choices":[],"prompt_filter_results":[{{"prompt_index":0,"content_filter_results":{{{categories}}}}}]}}"#
    )
}

fn violated(json: &str) -> Option<Category> {
    MEDIUM.inspect(json.as_bytes()).violation.and_then(|violation| violation.category)
}

#[test]
fn a_severity_violates_only_when_above_the_floor() {
    for (seen, blocked) in
        [("safe", false), ("low", false), ("medium", false), ("high", true), ("High", true)]
    {
        let json = prompt(&format!(r#""violence":{{"filtered":false,"severity":"{seen}"}}"#));
        assert_eq!(violated(&json).is_some(), blocked, "{seen}");
    }
    let strict = Floor { hate: Some(Severity::Safe), ..Floor::default() };
    let low = prompt(r#""hate":{"severity":"low"},"violence":{"severity":"high"}"#);
    let violation = strict.inspect(low.as_bytes()).violation.unwrap();
    assert_eq!((violation.category, violation.observed), (Some(Category::Hate), Some(Severity::Low)));
    assert_eq!(violation.code, "inference_policy_content_safety_exceeded");
    assert_eq!(
        violation.reason(),
        "InferencePolicy content safety floor exceeded: hate severity Low exceeds the allowed Safe"
    );
}

#[test]
fn the_first_category_in_order_is_named() {
    let json = prompt(
        r#""violence":{"severity":"high"},"sexual":{"severity":"high"},"self_harm":{"severity":"high"}"#,
    );
    assert_eq!(violated(&json), Some(Category::SelfHarm));
}

#[test]
fn every_place_of_an_annotation_is_read() {
    let annotation = r#"{"hate":{"filtered":false,"severity":"high"}}"#;
    let cases = [
        (
            format!(
                r#"{{"prompt_filter_results":[{{"content_filter_results":{{}}}},{{"content_filter_results":{annotation}}}]}}"#
            ),
            true,
        ),
        (
            format!(
                r#"{{"choices":[{{"index":0}},{{"delta":{{"content":"x"}},"content_filter_results":{annotation}}}]}}"#
            ),
            false,
        ),
        (
            format!(
                r#"{{"error":{{"code":"content_filter","innererror":{{"content_filter_result":{annotation}}}}}}}"#
            ),
            true,
        ),
        (
            format!(
                r#"{{"content_filters":[{{"content_filter_results":{annotation},"source_type":"prompt"}}]}}"#
            ),
            true,
        ),
        (
            format!(
                r#"{{"type":"response.completed","response":{{"content_filters":[{{"source_type":"completion","content_filter_results":{annotation}}}]}}}}"#
            ),
            false,
        ),
        (
            format!(
                r#"{{"data":[{{"url":"u","prompt_filter_results":{annotation},"content_filter_results":{{}}}}]}}"#
            ),
            true,
        ),
        (format!(r#"{{"data":[{{"content_filter_results":{annotation}}}]}}"#), false),
    ];
    for (json, of_prompt) in cases {
        let findings = MEDIUM.inspect(json.as_bytes());
        assert!(findings.violation.is_some(), "{json}");
        assert_eq!(findings.prompt_annotated, of_prompt, "{json}");
    }
}

#[test]
fn text_that_looks_like_an_annotation_is_none() {
    let inside =
        r#"{\"prompt_filter_results\":[{\"content_filter_results\":{\"hate\":{\"severity\":\"high\"}}}]}"#;
    let echoed = r#"{"prompt_filter_results":[{"content_filter_results":{"hate":{"severity":"high"}}}]}"#;
    for json in [
        format!(r#"{{"choices":[{{"message":{{"content":"{inside}"}}}}]}}"#),
        format!(r#"{{"tools":[{{"parameters":{echoed}}}],"metadata":{echoed}}}"#),
    ] {
        assert_eq!(MEDIUM.inspect(json.as_bytes()), Findings::default(), "{json}");
    }
}

#[test]
fn a_prompt_counts_as_annotated_only_with_a_category() {
    let annotated = |json: &str| observe(json.as_bytes()).prompt_annotated;
    assert!(annotated(&prompt(r#""jailbreak":{"detected":false,"filtered":false}"#)));
    assert!(annotated(&prompt(r#""hate":{"filtered":false,"severity":"safe"}"#)));
    assert!(!annotated(&prompt("")));
    assert!(!annotated(&prompt(r#""error":{"code":"content_filter_error","message":"down"}"#)));
    assert!(!annotated(&prompt(r#""hate":null"#)));
    assert!(!annotated(r#"{"prompt_filter_results":[]}"#));
}

#[test]
fn required_shields_are_missed_only_where_no_document_had_them() {
    let floor = Floor { require_prompt_shields: true, ..Floor::default() };
    assert!(floor.lacks_shields(false) && !floor.lacks_shields(true) && !MEDIUM.lacks_shields(false));
    assert_eq!(floor.inspect(b"{}").violation, None);
    let violation = Violation::shields_required();
    assert_eq!(violation.code, "inference_policy_prompt_shields_required");
    assert_eq!(violation.reason(), REASON_SHIELDS_REQUIRED);
}

#[test]
fn flags_name_attacks_then_categories_filtered_or_bad_enough() {
    let json = prompt(concat!(
        r#""jailbreak":{"detected":true,"filtered":false},"indirect_attack":{"detected":false,"filtered":true},"#,
        r#""hate":{"severity":"safe","filtered":true},"sexual":{"severity":"low"},"violence":{"severity":"medium"}"#
    ));
    let findings = observe(json.as_bytes());
    let flags = |least| findings.flags(least).collect::<Vec<_>>();
    assert_eq!(flags(Severity::Low), ["jailbreak", "indirect_attack", "hate", "sexual", "violence"]);
    assert_eq!(flags(Severity::High), ["jailbreak", "indirect_attack", "hate"]);
    assert_eq!(observe(b"{}").flags(Severity::Safe).count(), 0);
}

#[test]
fn the_worst_of_repeated_annotations_counts() {
    let json = concat!(
        r#"{"prompt_filter_results":[{"content_filter_results":{"hate":{"severity":"high","severity":"low"}}}],"#,
        r#""prompt_filter_results":[{"content_filter_results":{"hate":{"severity":"safe"}}}]}"#
    );
    assert_eq!(violated(json), Some(Category::Hate));
}

#[test]
fn odd_severities_do_not_open_the_floor_and_absent_ones_do_not_close_it() {
    for (severity, blocked) in [
        ("null", false),
        ("0", false),
        ("4", false),
        ("6", true),
        ("7", true),
        ("\"severe\"", true),
        ("[]", true),
    ] {
        let json = prompt(&format!(r#""hate":{{"severity":{severity}}}"#));
        assert_eq!(violated(&json).is_some(), blocked, "{severity}");
    }
    assert_eq!(violated(&prompt(r#""hate":{"filtered":false}"#)), None);
}

#[test]
fn members_of_odd_shape_do_not_hide_the_others() {
    let json = concat!(
        r#"{"prompt_filter_results":{"x":1},"choices":[1,null,{"content_filter_results":[]},"#,
        r#"{"message":{"content":"half a pair \ud83d"},"content_filter_results":{"hate":{"severity":"high"}}}]}"#
    );
    assert_eq!(violated(json), Some(Category::Hate));
}

#[test]
fn what_cannot_be_read_says_so() {
    for json in [r#"{"content_filter_results":"#, r#"["content_filter_results"]"#, "content_filter_results"] {
        assert!(MEDIUM.inspect(json.as_bytes()).unreadable, "{json}");
    }
    assert!(!MEDIUM.inspect(b"[DONE]").unreadable);
    assert!(!MEDIUM.inspect(prompt("").as_bytes()).unreadable);
}

#[test]
fn a_providers_own_block_is_told_with_its_phrase() {
    let jailbreak = r#"{"error":{"code":"content_filter","innererror":{"content_filter_result":{"jailbreak":{"detected":true,"filtered":true}}}}}"#;
    assert_eq!(is_provider_block(jailbreak.as_bytes()), Some(REASON_JAILBREAK));
    for json in [
        r#"{"error":{"code":"content_filter","message":"x"}}"#,
        r#"{"error":{"code":"responsible_ai_policy_violation"}}"#,
        r#"{"error":{"message":"triggering Azure OpenAI's content management policy. Please"}}"#,
        r#"{"error":{"message":"Our Responsible\u0020AI rules"}}"#,
        r#"{"error":{"message":"content management policy \ud83d"}}"#,
    ] {
        assert_eq!(is_provider_block(json.as_bytes()), Some(REASON_FILTERED), "{json}");
    }
    for json in [
        r#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#,
        r#"{"error":"content_filter"}"#,
        r#"{"code":"content_filter"}"#,
        "content_filter",
        "",
    ] {
        assert_eq!(is_provider_block(json.as_bytes()), None, "{json}");
    }
}

#[test]
fn decision_reasons_are_one_header_line() {
    for reason in [REASON_EXCEEDED, REASON_SHIELDS_REQUIRED, REASON_JAILBREAK, REASON_FILTERED] {
        assert!(reason.is_ascii() && !reason.contains(['\r', '\n']));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0_usize..100) {
        let at = at.min(bytes.len());
        bytes.splice(at..at, *b"content_filter_results");
        let _ = MEDIUM.inspect(&bytes);
        let _ = is_provider_block(&bytes);
    }

    #[test]
    fn a_damaged_document_never_panics(cut in 0_usize..400, at in 0_usize..400, byte in any::<u8>()) {
        let json = prompt(r#""hate":{"filtered":false,"severity":"high"},"jailbreak":{"detected":true}"#);
        let mut bytes = json.into_bytes();
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        bytes.truncate(cut);
        let _ = MEDIUM.inspect(&bytes);
        let _ = is_provider_block(&bytes);
    }
}
