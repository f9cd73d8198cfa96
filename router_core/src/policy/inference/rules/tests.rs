use super::*;
use proptest::prelude::*;

const NAMES: Names = Names { allow: "models.allow", deny: "models.deny" };

fn compile(allow: Option<&[&str]>, deny: Option<&[&str]>) -> Rules {
    Rules::compile(NAMES, allow, deny).unwrap_or_else(|fault| panic!("{}: {}", fault.rule, fault.text))
}

fn fault(allow: Option<&[&str]>, deny: Option<&[&str]>) -> String {
    let fault = Rules::compile(NAMES, allow, deny).err().unwrap();
    format!("{}: {}", fault.rule, fault.text)
}

fn shown(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allow => "allow".to_owned(),
        Verdict::Deny { rule } => rule.to_string(),
    }
}

#[test]
fn without_lists_everything_is_allowed() {
    let rules = compile(None, None);
    assert!(rules.verdict("anything").allowed() && rules.verdict("").allowed());
    assert!(!rules.restrict());
    assert!(!compile(Some(&["*"]), None).restrict());
    assert!(!compile(None, Some(&[])).restrict());
}

#[test]
fn a_denial_wins_over_a_permission() {
    let rules = compile(Some(&["gpt-*", "o3"]), Some(&["claude-*", "gpt-4o"]));
    assert_eq!(shown(rules.verdict("gpt-4o")), "models.deny[1]");
    assert_eq!(shown(rules.verdict("claude-")), "models.deny[0]");
    assert_eq!(shown(rules.verdict("gpt-4o-mini")), "allow");
    assert_eq!(shown(rules.verdict("o3")), "allow");
    assert_eq!(shown(rules.verdict("o3-mini")), "models.allow");
    assert_eq!(shown(rules.verdict("gpt")), "models.allow");
    assert!(rules.restrict());
}

#[test]
fn an_empty_allow_list_and_a_star_denial_refuse_everything() {
    assert_eq!(shown(compile(Some(&[]), None).verdict("x")), "models.allow");
    let rules = compile(None, Some(&["a", "*"]));
    assert_eq!(shown(rules.verdict("")), "models.deny[1]");
    assert!(rules.restrict());
}

#[test]
fn letter_case_does_not_get_around_a_denial_nor_widen_a_permission() {
    let rules = compile(Some(&["Gpt-5"]), Some(&["GPT-4*", "o1-Pro"]));
    for name in ["gpt-4", "GPT-4O-MINI-LONG-NAME", "gPt-4.1"] {
        assert_eq!(shown(rules.verdict(name)), "models.deny[0]", "{name}");
    }
    assert_eq!(shown(rules.verdict("O1-PRO")), "models.deny[1]");
    assert_eq!(shown(rules.verdict("Gpt-5")), "allow");
    assert_eq!(shown(rules.verdict("gpt-5")), "models.allow");
}

#[test]
fn rules_that_can_never_match_are_refused() {
    let repeats = "repeats an earlier rule of this list";
    assert_eq!(fault(None, Some(&["a", "b", "a"])), format!("models.deny[2]: {repeats}"));
    assert_eq!(fault(None, Some(&["a", "A"])), format!("models.deny[1]: {repeats}"));
    assert_eq!(fault(Some(&["a*", "a*"]), None), format!("models.allow[1]: {repeats}"));
    assert_eq!(fault(Some(&["*", "*"]), None), format!("models.allow[1]: {repeats}"));
    let dead = |rule: &str| format!("can never match: {rule} denies it");
    assert_eq!(
        fault(Some(&["b", "a"]), Some(&["a"])),
        format!("models.allow[1]: {}", dead("models.deny[0]"))
    );
    assert_eq!(
        fault(Some(&["abc"]), Some(&["x", "AB*"])),
        format!("models.allow[0]: {}", dead("models.deny[1]"))
    );
    assert_eq!(
        fault(Some(&["abc*"]), Some(&["ab*"])),
        format!("models.allow[0]: {}", dead("models.deny[0]"))
    );
    assert_eq!(fault(Some(&["abc*"]), Some(&["*"])), format!("models.allow[0]: {}", dead("models.deny[0]")));
    assert!(fault(Some(&["*"]), Some(&["*"])).ends_with("denies everything"));
    // Not dead: the denial is narrower, or differs in kind.
    compile(Some(&["ab*", "*"]), Some(&["abc*", "ab"]));
    compile(Some(&["Bash", "bash"]), None);
}

#[test]
fn malformed_patterns_are_refused() {
    for pattern in ["", "a*b", "**", "a b", "a\n", "\u{a0}", &"x".repeat(257)] {
        assert!(Rules::compile(NAMES, Some(&[pattern]), None).is_err(), "{pattern:?}");
    }
    compile(Some(&["meta-llama/Llama-3.1-8B:free", "gpt-4o@2024", &"x".repeat(256), "模型*"]), None);
}

#[test]
fn names_of_any_length_decide() {
    let long = "m".repeat(256);
    let rules = compile(None, Some(&[&long, "pre*"]));
    assert!(!rules.verdict(&long).allowed());
    assert!(rules.verdict(&"m".repeat(255)).allowed());
    assert!(rules.verdict(&"m".repeat(100_000)).allowed());
    assert!(!rules.verdict(&format!("pre{long}{long}")).allowed());
}

/// The slow twin: the definition, rule by rule.
fn oracle(allow: Option<&[&str]>, deny: Option<&[&str]>, name: &str) -> bool {
    let says = |pattern: &str, fold: bool| {
        let fit = |text: &str| if fold { text.to_ascii_lowercase() } else { text.to_owned() };
        let name = fit(name);
        match pattern.strip_suffix('*') {
            Some(head) => name.starts_with(&fit(head)),
            None => name == fit(pattern),
        }
    };
    !deny.unwrap_or_default().iter().any(|pattern| says(pattern, true))
        && allow.is_none_or(|list| list.iter().any(|pattern| says(pattern, false)))
}

proptest! {
    #[test]
    fn decides_as_the_rules_one_by_one_would(
        listed in any::<bool>(),
        patterns in prop::collection::vec((any::<bool>(), "[aAbB@Z\\[z-]{0,11}\\*?"), 0..24),
        names in prop::collection::vec("[aAbB@Z\\[z-]{0,20}", 1..20),
    ) {
        // Takes each pattern that compiles with the ones before it, so that no case is thrown away.
        let (mut allow, mut deny): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        let given = |list: &[&'static str], allowed: bool| (listed || !allowed).then(|| list.to_vec());
        for (allowed, pattern) in patterns {
            let list = if allowed { &mut allow } else { &mut deny };
            list.push(pattern.leak());
            if Rules::compile(NAMES, given(&allow, true).as_deref(), given(&deny, false).as_deref()).is_err() {
                if allowed { allow.pop() } else { deny.pop() };
            }
        }
        let (allow, deny) = (given(&allow, true), given(&deny, false));
        let rules = compile(allow.as_deref(), deny.as_deref());
        let own = allow.iter().chain(&deny).flatten().map(|pattern| pattern.trim_end_matches('*').to_owned());
        for name in names.into_iter().chain(own) {
            let expected = oracle(allow.as_deref(), deny.as_deref(), &name);
            prop_assert_eq!(rules.verdict(&name).allowed(), expected, "{}", name);
            prop_assert!(rules.restrict() || expected);
        }
    }

    #[test]
    fn lowercases_ascii_letters_only(bytes in any::<[u8; 8]>()) {
        let expected = u64::from_le_bytes(bytes.map(|b| b.to_ascii_lowercase()));
        prop_assert_eq!(lower(u64::from_le_bytes(bytes)), expected);
    }

    #[test]
    fn a_running_hash_is_the_hash_of_the_head(name in "[ -~]{0,40}", cut in 0_usize..40) {
        let cut = cut.min(name.len());
        let mut running = Running::new(name.as_bytes());
        let head = running.upto(cut);
        prop_assert_eq!(head, Running::new(&name.as_bytes()[..cut]).upto(cut));
        prop_assert_eq!(running.upto(name.len()), Running::new(name.as_bytes()).upto(name.len()));
    }
}
