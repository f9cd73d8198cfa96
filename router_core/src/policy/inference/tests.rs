use super::*;
use crate::error::Kind;
use crate::limits;
use crate::policy::safety::Severity;
use proptest::prelude::*;

fn compile(text: &str) -> Inference {
    Inference::compile(text.as_bytes()).unwrap()
}

fn fault(text: &str) -> String {
    let error = Inference::compile(text.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), Kind::Policy);
    error.detail().to_owned()
}

#[test]
fn reads_what_the_controller_writes() {
    let policy = compile(concat!(
        r#"{"appliesTo":{"sandboxName":"demo","sandboxMatchLabels":{"team":"a"},"action":"chat"},"#,
        r#""tokenBudget":{"perRequestTokens":100,"dailyTokens":1000,"monthlyTokens":20000},"#,
        r#""contentSafety":{"hate":"Safe","selfHarm":"Low","sexual":"Medium","violence":"High","requirePromptShields":true},"#,
        r#""modelPreference":{"primary":{"provider":"azure-openai","deployment":"gpt-4.1"},"#,
        r#""fallback":[{"provider":"openai","deployment":"gpt-4.1"}]},"displayName":"Demo"}"#
    ));
    assert_eq!(policy.applies_to(), Some("demo"));
    assert_eq!(policy.labels().get("team").map(AsRef::as_ref), Some("a"));
    assert_eq!(policy.action(), Action::Chat);
    assert_eq!(policy.display_name(), Some("Demo"));
    let budget = policy.budget();
    assert_eq!(
        (budget.per_request, budget.hourly, budget.daily, budget.monthly, budget.clamp),
        (Some(100), 0, 1000, 20000, false)
    );
    let floor = policy.floor().unwrap();
    assert_eq!((floor.hate, floor.violence), (Some(Severity::Safe), Some(Severity::High)));
    assert!(floor.require_prompt_shields);
    let preference = policy.preference().unwrap();
    assert_eq!(preference.primary.deployment.as_ref(), "gpt-4.1");
    assert_eq!(preference.fallback[0].provider.as_ref(), "openai");
    assert!(policy.model("any").allowed() && policy.tool("any").allowed() && !policy.restricts_tools());
    assert_eq!(policy.rate(), None);
}

#[test]
fn null_and_absent_blocks_restrict_nothing() {
    for text in [
        "{}",
        concat!(
            r#"{"schemaVersion":1,"appliesTo":{"sandboxName":null,"sandboxMatchLabels":{},"action":null},"#,
            r#""tokenBudget":null,"contentSafety":null,"modelPreference":null,"displayName":null,"#,
            r#""requestRate":null,"models":null,"tools":{"allow":null,"deny":null}}"#
        ),
        r#"{"tokenBudget":{"perRequestTokens":0},"contentSafety":{"hate":null,"requirePromptShields":false}}"#,
    ] {
        let policy = compile(text);
        assert_eq!(*policy.budget(), Budget::default(), "{text}");
        assert!(policy.floor().is_none() && policy.preference().is_none() && policy.applies_to().is_none());
        assert!(policy.model("x").allowed() && !policy.restricts_tools());
        assert_eq!(policy.action(), Action::Any);
    }
}

#[test]
fn a_stated_zero_is_told_from_an_absent_daily_budget() {
    assert!(compile(r#"{"tokenBudget":{"dailyTokens":0}}"#).budget().daily_stated);
    assert!(!compile(r#"{"tokenBudget":{"monthlyTokens":5}}"#).budget().daily_stated);
}

#[test]
fn reads_the_extensions() {
    let policy = compile(concat!(
        r#"{"schemaVersion":1,"tokenBudget":{"hourlyTokens":10,"clampToRemaining":true},"#,
        r#""requestRate":{"requestsPerMinute":60,"burst":5},"#,
        r#""models":{"allow":["gpt-*"],"deny":["gpt-4o"]},"tools":{"deny":["shell*"]}}"#
    ));
    assert!(policy.budget().clamp);
    assert_eq!(policy.budget().hourly, 10);
    assert_eq!(policy.rate(), Some(Rate { per_minute: 60, burst: 5 }));
    assert!(policy.model("gpt-5").allowed() && !policy.model("gpt-4o").allowed());
    let Verdict::Deny { rule } = policy.tool("shell_exec") else { panic!("allowed") };
    assert_eq!(rule.to_string(), "tools.deny[0]");
    assert!(policy.restricts_tools() && policy.tool("read").allowed());
    let rate = compile(r#"{"requestRate":{"requestsPerMinute":7}}"#).rate();
    assert_eq!(rate, Some(Rate { per_minute: 7, burst: 7 }));
}

#[test]
fn what_the_reference_dropped_silently_is_refused_with_its_path() {
    let cases = [
        (
            r#"{"tokenBudget":{"dailyTokenz":5}}"#,
            "tokenBudget.dailyTokenz: unknown field, expected one of perRequestTokens, hourlyTokens, dailyTokens, monthlyTokens, clampToRemaining",
        ),
        (
            r#"{"contentSafety":{"hate":"medium"}}"#,
            "contentSafety.hate: expected one of Safe, Low, Medium, High",
        ),
        (
            r#"{"contentSafety":{"violence":"Extreme"}}"#,
            "contentSafety.violence: expected one of Safe, Low, Medium, High",
        ),
        (
            r#"{"modelPreference":{"primary":{"provider":"openai"}}}"#,
            "modelPreference.primary.deployment: is required",
        ),
        (r#"{"modelPreference":{"fallback":[]}}"#, "modelPreference.primary: is required"),
        (
            r#"{"modelPreference":{"primary":{"provider":"a","deployment":"b"},"fallback":[{"provider":"a","deployment":""}]}}"#,
            "modelPreference.fallback[0].deployment: expected 1 to 256 bytes of text, found 0",
        ),
        (
            r#"{"appliesTo":{"action":"speech"}}"#,
            "appliesTo.action: expected one of chat, responses, image, embeddings, *",
        ),
        (
            r#"{"appliesTo":{"sandboxMatchLabels":{"a":1}}}"#,
            "appliesTo.sandboxMatchLabels.a: expected a string, found a number",
        ),
        (
            r#"{"daily":5}"#,
            "daily: unknown field, expected one of schemaVersion, appliesTo, tokenBudget, requestRate, models, tools, contentSafety, modelPreference, displayName",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(fault(text), expected);
    }
}

#[test]
fn types_and_ranges_are_checked() {
    let cases = [
        (r#"{"tokenBudget":[]}"#, "tokenBudget: expected an object, found a list"),
        (
            r#"{"tokenBudget":{"dailyTokens":"5"}}"#,
            "tokenBudget.dailyTokens: expected a whole number, found a string",
        ),
        (
            r#"{"tokenBudget":{"dailyTokens":-1}}"#,
            "tokenBudget.dailyTokens: expected a whole number from 0 to 9223372036854775807, found -1",
        ),
        (
            r#"{"tokenBudget":{"dailyTokens":1.5}}"#,
            "tokenBudget.dailyTokens: expected a whole number from 0 to 9223372036854775807, found 1.5",
        ),
        (
            r#"{"tokenBudget":{"clampToRemaining":1}}"#,
            "tokenBudget.clampToRemaining: expected true or false, found a number",
        ),
        (
            r#"{"requestRate":{}}"#,
            "requestRate.requestsPerMinute: is required; leave requestRate out for no limit",
        ),
        (
            r#"{"requestRate":{"requestsPerMinute":0}}"#,
            "requestRate.requestsPerMinute: expected a whole number from 1 to 10000000, found 0",
        ),
        (r#"{"schemaVersion":2}"#, "schemaVersion: this router reads version 1 only"),
        (r#"{"models":{"allow":"gpt"}}"#, "models.allow: expected a list, found a string"),
        (r#"{"models":{"deny":["a",null]}}"#, "models.deny[1]: expected a string, found null"),
        ("[]", "the policy: expected an object, found a list"),
        ("null", "the policy: expected an object, found null"),
    ];
    for (text, expected) in cases {
        assert_eq!(fault(text), expected);
    }
    assert!(
        fault(r#"{"tokenBudget":{"dailyTokens":99999999999999999999}}"#)
            .starts_with("tokenBudget.dailyTokens: ")
    );
    assert!(fault(r#"{"appliesTo":{"sandboxName":"A"}}"#).starts_with("appliesTo.sandboxName: "));
}

#[test]
fn limits_and_rules_without_effect_are_refused() {
    let cases = [
        (
            r#"{"tokenBudget":{"dailyTokens":10,"monthlyTokens":5}}"#,
            "tokenBudget.dailyTokens: can never be reached: monthlyTokens is smaller",
        ),
        (
            r#"{"tokenBudget":{"perRequestTokens":10,"monthlyTokens":5}}"#,
            "tokenBudget.perRequestTokens: can never be reached: monthlyTokens is smaller",
        ),
        (r#"{"models":{"deny":["a","a"]}}"#, "models.deny[1]: repeats an earlier rule of this list"),
        (
            r#"{"tools":{"allow":["a"],"deny":["a"]}}"#,
            "tools.allow[0]: can never match: tools.deny[0] denies it",
        ),
        (
            r#"{"modelPreference":{"primary":{"provider":"a","deployment":"b"},"fallback":[{"provider":"a","deployment":"b"}]}}"#,
            "modelPreference.fallback[0]: repeats an earlier model, so it can never be used",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(fault(text), expected);
    }
    compile(r#"{"tokenBudget":{"dailyTokens":10,"monthlyTokens":0}}"#);
    compile(r#"{"tokenBudget":{"dailyTokens":10,"monthlyTokens":10}}"#);
}

#[test]
fn repeated_fields_are_refused_at_every_depth() {
    assert_eq!(fault(r#"{"tools":null,"tools":{"deny":["*"]}}"#), "tools: given twice");
    assert_eq!(
        fault(r#"{"tokenBudget":{"dailyTokens":1,"dailyTokens":2}}"#),
        "tokenBudget.dailyTokens: given twice"
    );
    assert_eq!(
        fault(r#"{"appliesTo":{"sandboxMatchLabels":{"a":"1","\u0061":"2"}}}"#),
        "appliesTo.sandboxMatchLabels.a: given twice"
    );
}

#[test]
fn bytes_that_are_no_document_are_refused() {
    for bytes in [&b""[..], b"{", b"{}{}", b"{} x", b"\xef\xbb\xbf{}", b"{\"a\":NaN}", b"{'a':1}"] {
        let error = Inference::compile(bytes).unwrap_err();
        assert!(error.detail().starts_with("the policy is not one JSON document: "), "{error}");
    }
    let error = Inference::compile(b"{\"displayName\":\"\xff\"}").unwrap_err();
    assert_eq!(error.detail(), "the policy is not UTF-8 at byte 16");
    let deep = "[".repeat(100_000);
    assert!(Inference::compile(deep.as_bytes()).is_err());
    let large = format!("{}{{}}", " ".repeat(limits::POLICY_BYTES));
    assert!(Inference::compile(large.as_bytes()).unwrap_err().detail().contains("more than 2097152"));
}

#[test]
fn a_long_odd_key_stays_a_short_readable_line() {
    let text = format!(r#"{{"{}\n":1}}"#, "k".repeat(10_000));
    assert!(fault(&text).len() < 300);
    assert!(!fault(r#"{"a\u001b[31m\n":1}"#).contains(['\u{1b}', '\n']));
}

#[test]
fn ten_thousand_rules_compile_and_decide() {
    let names: Vec<String> =
        (0..10_000).map(|n| format!(r#""model-{n:05}{}""#, if n % 2 == 0 { "-*" } else { "" })).collect();
    let policy = compile(&format!(r#"{{"models":{{"deny":[{}]}}}}"#, names.join(",")));
    assert!(!policy.model("model-00001").allowed() && policy.model("model-00001-x").allowed());
    let Verdict::Deny { rule } = policy.model("MODEL-09998-preview") else { panic!("allowed") };
    assert_eq!(rule.to_string(), "models.deny[9998]");
}

#[test]
fn an_action_covers_the_calls_of_its_kind() {
    assert!(Operation::ALL.iter().all(|operation| Action::Any.covers(*operation)));
    assert!(Action::Chat.covers(Operation::Messages) && !Action::Chat.covers(Operation::Responses));
    assert!(Action::Image.covers(Operation::Images) && !Action::Embeddings.covers(Operation::Images));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Inference::compile(&bytes);
    }

    #[test]
    fn no_document_makes_it_panic(text in "\\{(\"(models|tools|tokenBudget|appliesTo|contentSafety|x)\":(null|[0-9]{1,22}|\\{\\}|\\[\\]|\\{\"(allow|deny|hate|dailyTokens)\":(\\[\"a\\*\"\\]|-?[0-9]+|\"Low\")\\}),?){0,4}\\}") {
        let _ = Inference::compile(text.as_bytes());
    }
}
