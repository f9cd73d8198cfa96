use super::*;

#[test]
fn a_hint_is_the_nearest_change() {
    let policy = policy(
        &list(concat!(
            r#"{"host":"api.x.com"},{"host":"api.y.com","port":80,"methods":["GET"],"pathPrefix":"/v1"},"#,
            r#"{"host":"*.z.com"},{"host":"w.com","subdomains":false},{"host":"p.com","port":1},{"host":"p.com","port":2}"#
        )),
        &[
            &approving(r#"{"host":"past.com"}"#, "09:00:00", "10:00:00"),
            &approving(r#"{"host":"soon.com"}"#, "14:00:00", "15:00:00"),
        ],
    );
    for (what, hint) in [
        (
            "api.x.com:8443",
            r#"allowlist.endpoints[0] allows api.x.com on port 443 only; add {"host":"api.x.com","port":8443}"#,
        ),
        (
            "p.com:3",
            r#"allowlist.endpoints[4] allows p.com on ports 1, 2 only; add {"host":"p.com","port":3}"#,
        ),
        (
            "api.y.com:80 POST /v1/x",
            r#"allowlist.endpoints[1] allows GET below /v1 only; add "POST" to its methods"#,
        ),
        (
            "api.y.com:80 GET /v2",
            r#"allowlist.endpoints[1] allows GET below /v1 only; widen its pathPrefix, or add {"host":"api.y.com","port":80}"#,
        ),
        (
            "api.y.com:80 GET /v1//x",
            "allowlist.endpoints[1] allows GET below /v1 only, and servers read this path in different ways: send it without empty and dot segments, '\\', %2F, %5C and %25",
        ),
        (
            "api.y.com:80",
            r#"allowlist.endpoints[1] allows plain HTTP only (GET below /v1): send the request without CONNECT, or add {"host":"api.y.com","port":80}"#,
        ),
        (
            "z.com:443",
            r#"allowlist.endpoints[2] allows the names below z.com, not z.com itself; add {"host":"z.com","port":443}"#,
        ),
        (
            "a.w.com:443",
            r#"allowlist.endpoints[3] allows w.com and no name below it; add {"host":"a.w.com","port":443}, or take "subdomains": false out of it"#,
        ),
        (
            "web.x.com:443",
            r#"allowlist.endpoints[0] allows api.x.com, which does not include web.x.com; add {"host":"web.x.com","port":443} to allowlist.json, or ask for an EgressApproval"#,
        ),
        (
            "x.com:443",
            r#"allowlist.endpoints[0] allows api.x.com, which does not include x.com; add {"host":"x.com","port":443} to allowlist.json, or ask for an EgressApproval"#,
        ),
        (
            "past.com:443",
            r#"approval-x.hosts[0] allowed it until 2026-01-31T10:00:00Z; ask for a new EgressApproval, or add {"host":"past.com","port":443} to allowlist.json"#,
        ),
        (
            "soon.com:443",
            r#"approval-y.hosts[0] allows it from 2026-01-31T14:00:00Z; wait, or add {"host":"soon.com","port":443} to allowlist.json"#,
        ),
        (
            "else.org:443",
            r#"add {"host":"else.org","port":443} to allowlist.json, or ask for an EgressApproval"#,
        ),
        (
            "[2606::1]:443",
            r#"add {"host":"[2606::1]","port":443} to allowlist.json, or ask for an EgressApproval"#,
        ),
        (
            "169.254.169.254:80",
            r#"add {"host":"169.254.169.254","port":80,"addresses":["169.254.169.254"]} to allowlist.json, or ask for an EgressApproval"#,
        ),
    ] {
        assert_eq!(ask(&policy, what), format!("?{hint}"), "{what}");
    }
}

#[test]
fn what_a_hint_says_to_add_allows_the_connection() {
    let before =
        r#"{"host":"api.x.com"},{"host":"*.z.com"},{"host":"api.y.com","port":80,"methods":["GET"]}"#;
    for what in ["api.x.com:8443", "z.com:443", "api.y.com:80", "other.org:99", "[fe80::1]:80", "8.8.8.8:53"]
    {
        let hint = ask(&policy(&list(before), &[]), what);
        let entry = &hint[hint.find('{').unwrap()..=hint.find('}').unwrap()];
        assert!(allows(&policy(&list(&format!("{before},{entry}")), &[]), what), "{what}: {hint}");
    }
}

#[test]
fn a_hint_never_repeats_a_path_or_a_strange_method() {
    let policy = policy(&list(r#"{"host":"h","port":80,"methods":["GET"],"pathPrefix":"/v1"}"#), &[]);
    for what in ["h:80 GET /secret", "h:80 GET /v1/../secret", "h:80 POST /secret", "h:80 se\"cret /"] {
        assert!(!ask(&policy, what).contains("ecret"), "{}", ask(&policy, what));
    }
}
