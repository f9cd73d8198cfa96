use super::*;

#[test]
fn version_1_is_what_the_controller_writes() {
    let text = r#"{"schemaVersion":1,"endpoints":[{"host":"a.example","port":8443},{"host":"B.Example"}]}"#;
    let policy = policy(text, &[]);
    assert_eq!(ask(&policy, "a.example:8443"), "allowlist.endpoints[0]");
    assert_eq!(ask(&policy, "b.example:443"), "allowlist.endpoints[1]");
    assert_eq!(ask(&policy, "x.y.b.example:443"), "allowlist.endpoints[1]");
    for other in ["a.example:443", "b.example:8443", "bb.example:443", "example:443", "b.example.x:443"] {
        assert!(!allows(&policy, other), "{other}");
    }
    let empty = super::policy(r#"{"schemaVersion":1,"endpoints":[]}"#, &[]);
    assert!(!allows(&empty, "a.example:443"));
}

#[test]
fn every_fault_names_its_place() {
    for (text, says) in [
        ("[]", "the policy: expected an object, found a list"),
        ("{", "not one JSON document"),
        ("{}", "schemaVersion: is required"),
        (r#"{"schemaVersion":3,"endpoints":[]}"#, "schemaVersion: this router reads versions 1 and 2"),
        (r#"{"schemaVersion":"1","endpoints":[]}"#, "schemaVersion: expected a whole number, found a string"),
        (r#"{"schemaVersion":1}"#, "endpoints: is required"),
        (r#"{"schemaVersion":1,"endpoints":{}}"#, "endpoints: expected a list, found an object"),
        (
            r#"{"schemaVersion":1,"endpoints":[],"more":1}"#,
            "more: unknown field, expected one of schemaVersion, endpoints",
        ),
        (r#"{"schemaVersion":1,"endpoints":[],"deny":[]}"#, "deny: is of version 2: set schemaVersion to 2"),
        (r#"{"schemaVersion":1,"endpoints":[],"endpoints":[]}"#, "endpoints: given twice"),
        (r#"{"schemaVersion":1,"endpoints":["x"]}"#, "endpoints[0]: expected an object, found a string"),
        (r#"{"schemaVersion":1,"endpoints":[{"port":1}]}"#, "endpoints[0].host: is required"),
        (
            r#"{"schemaVersion":1,"endpoints":[{"host":"a","ports":[1]}]}"#,
            "endpoints[0].ports: unknown field, expected one of host, port",
        ),
        (
            r#"{"schemaVersion":1,"endpoints":[{"host":"a"},{"host":"b","methods":["GET"]}]}"#,
            "endpoints[1].methods: is of version 2",
        ),
    ] {
        assert!(fault(text).starts_with(says) || fault(text).contains(says), "{text}: {}", fault(text));
    }
    for (endpoint, says) in [
        (r#""host":"a","port":0"#, "endpoints[0].port: expected a whole number from 1 to 65535, found 0"),
        (r#""host":"a","port":65536"#, "endpoints[0].port: expected a whole number"),
        (r#""host":"a","port":44.5"#, "endpoints[0].port: expected a whole number"),
        (r#""host":"a","port":"443""#, "endpoints[0].port: expected a whole number, found a string"),
        (r#""host":"""#, "endpoints[0].host: expected 1 to 256 bytes"),
        (r#""host":"*""#, "endpoints[0].host: names no host"),
        (r#""host":"*.""#, "endpoints[0].host: names no host"),
        (r#""host":"a.*.b""#, "endpoints[0].host: has a '*'"),
        (r#""host":"*a.b""#, "endpoints[0].host: has a '*'"),
        (r#""host":"*.1.2.3.4""#, "endpoints[0].host: is an address"),
        (r#""host":"a b""#, "endpoints[0].host: "),
        (r#""host":"https://a""#, "endpoints[0].host: "),
        (r#""host":"a:443""#, "endpoints[0].host: "),
        (r#""host":"127.1""#, "endpoints[0].host: "),
        (r#""host":"ü.example""#, "endpoints[0].host: is not ASCII"),
        (r#""host":"*.a","subdomains":true"#, "endpoints[0].subdomains: says nothing about *."),
        (r#""host":"8.8.8.8","subdomains":false"#, "endpoints[0].subdomains: says nothing about an address"),
        (r#""host":"a","subdomains":"no""#, "endpoints[0].subdomains: expected true or false"),
        (r#""host":"a","addresses":["10.0.0.0/99"]"#, "endpoints[0].addresses[0]: "),
        (r#""host":"a","addresses":["ten"]"#, "endpoints[0].addresses[0]: "),
        (r#""host":"a","addresses":[10]"#, "endpoints[0].addresses[0]: expected a string, found a number"),
        (r#""host":"a","maxBytes":0"#, "endpoints[0].maxBytes: expected a whole number from 1"),
        (r#""host":"a","comment":1"#, "endpoints[0].comment: expected a string"),
        (r#""host":"a","port":80,"methods":"GET""#, "endpoints[0].methods: expected a list"),
        (r#""host":"a","port":80,"methods":["G T"]"#, "endpoints[0].methods[0]: is no method"),
        (
            r#""host":"a","port":80,"pathPrefix":"v1""#,
            "endpoints[0].pathPrefix: a path prefix starts with '/'",
        ),
        (
            r#""host":"a","port":80,"pathPrefix":"/v1?x=1""#,
            "endpoints[0].pathPrefix: a path prefix has no query",
        ),
    ] {
        let text = list(&format!("{{{endpoint}}}"));
        assert!(fault(&text).starts_with(says), "{text}: {}", fault(&text));
    }
    let deny = denying(r#"{"host":"a","addresses":["10.0.0.0/8"]}"#, "");
    assert!(fault(&deny).starts_with("deny[0].addresses: unknown field"), "{}", fault(&deny));
}

#[test]
fn a_rule_that_can_never_match_is_refused() {
    for (endpoint, says) in [
        (r#""host":"a","port":443,"methods":["GET"]"#, "methods: can never match on port 443"),
        (r#""host":"a","port":443,"pathPrefix":"/""#, "pathPrefix: can never match on port 443"),
        (r#""host":"a","methods":["GET"]"#, "methods: needs the port of plain HTTP"),
        (r#""host":"a","port":80,"methods":[]"#, "methods: is empty, so nothing can match"),
        (r#""host":"a","port":80,"methods":["CONNECT"]"#, "methods[0]: can never match"),
        (r#""host":"a","port":80,"pathPrefix":"/v1/../x""#, "pathPrefix: can be read in more than one way"),
        (r#""host":"169.254.169.254","port":80"#, "host: is a cloud-metadata address"),
        (r#""host":"169.254.0.1","port":80"#, "host: is a link-local address"),
        (r#""host":"[::ffff:169.254.169.254]","port":80"#, "host: is a cloud-metadata address"),
        (r#""host":"fe80::1","port":80"#, "host: is a link-local address"),
        (r#""host":"100.100.100.200","port":80"#, "host: is a cloud-metadata address"),
        (r#""host":"168.63.129.16","port":80"#, "host: is a cloud-metadata address"),
        (r#""host":"[64:ff9b::a9fe:a9fe]","port":80"#, "host: is a cloud-metadata address"),
        (r#""host":"0.0.0.0","port":80"#, "host: is an unspecified address"),
        (r#""host":"::","port":80"#, "host: is an unspecified address"),
        (r#""host":"224.0.0.1","port":80"#, "host: is a multicast address"),
        (r#""host":"ff02::1","port":80"#, "host: is a multicast address"),
        (r#""host":"255.255.255.255","port":80"#, "host: is a broadcast address"),
        (r#""host":"10.0.0.1","addresses":["10.0.0.2"]"#, "addresses: does not hold the host's own address"),
    ] {
        let text = list(&format!("{{{endpoint}}}"));
        assert!(fault(&text).starts_with(&format!("endpoints[0].{says}")), "{text}: {}", fault(&text));
    }
}

#[test]
fn an_endpoint_of_which_denials_leave_nothing_is_refused() {
    const GET: &str = r#"{"host":"a.x","port":80,"methods":["GET"],"pathPrefix":"/v1"}"#;
    for (deny, endpoint, covered) in [
        (r#"{"host":"x"}"#, r#"{"host":"a.x"}"#, true),
        (r#"{"host":"x"}"#, r#"{"host":"x"}"#, true),
        (r#"{"host":"x"}"#, r#"{"host":"*.x"}"#, true),
        (r#"{"host":"x","port":443}"#, r#"{"host":"a.x"}"#, true),
        (r#"{"host":"x","port":80}"#, r#"{"host":"a.x"}"#, false),
        (r#"{"host":"*.x"}"#, r#"{"host":"x"}"#, false),
        (r#"{"host":"*.x"}"#, r#"{"host":"*.x"}"#, true),
        (r#"{"host":"*.x"}"#, r#"{"host":"*.a.x"}"#, true),
        (r#"{"host":"x","subdomains":false}"#, r#"{"host":"x"}"#, false),
        (r#"{"host":"x","subdomains":false}"#, r#"{"host":"x","subdomains":false}"#, true),
        (r#"{"host":"x","subdomains":false}"#, r#"{"host":"a.x","subdomains":false}"#, false),
        (r#"{"host":"a.x"}"#, r#"{"host":"x"}"#, false),
        (r#"{"host":"10.0.0.1"}"#, r#"{"host":"[::ffff:10.0.0.1]"}"#, true),
        (r#"{"host":"x","port":80,"methods":["get","PUT"]}"#, GET, true),
        (r#"{"host":"x","port":80,"methods":["PUT"]}"#, GET, false),
        (r#"{"host":"x","port":80,"pathPrefix":"/"}"#, GET, true),
        (r#"{"host":"x","port":80,"pathPrefix":"/v1/x"}"#, GET, false),
        (r#"{"host":"x","port":80,"methods":["GET"]}"#, r#"{"host":"x","port":80}"#, false),
    ] {
        let text = denying(deny, endpoint);
        let verdict = Allowlist::compile(text.as_bytes());
        assert_eq!(verdict.is_err(), covered, "{text}");
        if covered {
            assert_eq!(fault(&text), "endpoints[0]: can never match: deny[0] denies all of it");
        }
    }
}

#[test]
fn repetitions_are_merged_unless_they_grant_something_else() {
    let twice =
        policy(&list(r#"{"host":"A.x","port":443,"comment":"one"},{"host":"a.X.","comment":"two"}"#), &[]);
    assert_eq!(twice.allowlist.endpoints.len(), 1);
    let blocks = policy(
        &list(
            r#"{"host":"a","addresses":["10.0.0.1","10.0.0.2"]},{"host":"a","addresses":["10.0.0.2","10.0.0.1/32"]}"#,
        ),
        &[],
    );
    assert_eq!(blocks.allowlist.endpoints.len(), 1);
    let text = list(r#"{"host":"a","addresses":["10.0.0.1"]},{"host":"a","addresses":["10.0.0.2"]}"#);
    assert!(fault(&text).starts_with("endpoints[1]: repeats allowlist.endpoints[0] with other grants"));
    let text = list(r#"{"host":"b"},{"host":"a"},{"host":"A","maxBytes":5}"#);
    assert_eq!(
        fault(&text),
        "endpoints[2]: repeats allowlist.endpoints[1] with other grants, so it is never used"
    );
}

#[test]
fn bounds_hold() {
    let entries =
        |n: usize, entry: &dyn Fn(usize) -> String| list(&(0..n).map(entry).collect::<Vec<_>>().join(","));
    let hosts = entries(limits::EGRESS_ENDPOINTS + 1, &|n| format!(r#"{{"host":"h{n}"}}"#));
    assert!(fault(&hosts).starts_with("endpoints: has 20001 entries, more than 20000"));
    let rules = entries(limits::EGRESS_RULES_PER_PLACE + 1, &|n| {
        format!(r#"{{"host":"h","port":80,"pathPrefix":"/{n}"}}"#)
    });
    assert!(fault(&rules).starts_with("endpoints[64]: is one of more than 64"));
    let blocks = (0..=limits::EGRESS_GRANTS).map(|n| format!("\"10.0.0.{n}\"")).collect::<Vec<_>>().join(",");
    let grants = list(&format!(r#"{{"host":"h","addresses":[{blocks}]}}"#));
    assert!(fault(&grants).starts_with("endpoints[0].addresses: has more than 32"));
    assert!(fault(&" ".repeat(limits::POLICY_BYTES + 1)).contains("bytes, more than"));
    let prefix = format!(r#"{{"host":"h","port":80,"pathPrefix":"/{}"}}"#, "x".repeat(2000));
    assert!(fault(&list(&prefix)).starts_with("endpoints[0].pathPrefix: "));
}

#[test]
fn an_approval_is_read_as_strictly() {
    let good = r#"{"schemaVersion":1,"approvalName":"x","sandbox":"demo","hosts":[{"host":"a","port":443}],"reason":"r","ticket":"T-1","effectiveAt":"2026-01-31T12:00:00Z","expiresAt":"2026-01-31T15:00:00+01:00"}"#;
    let approval = Approval::compile("approval-x.json", good.as_bytes()).unwrap();
    assert_eq!((&*approval.name, &*approval.sandbox), ("x", "demo"));
    assert_eq!((approval.effective_at, approval.expires_at), (NOON, NOON + 7200));
    for (from, to, says) in [
        (r#""schemaVersion":1"#, r#""schemaVersion":9"#, "schemaVersion: this router"),
        (r#""sandbox":"demo""#, r#""sandbox":"De mo""#, "sandbox: a sandbox name is"),
        (r#""sandbox":"demo","#, "", "sandbox: is required"),
        (r#""approvalName":"x""#, r#""approvalName":"""#, "approvalName: expected 1"),
        (r#""approvalName":"x""#, r#""approvalName":"x y""#, "approvalName: has more than"),
        (r#""reason":"r","#, "", "reason: is required"),
        (r#""ticket":"T-1""#, r#""ticket":7"#, "ticket: expected a string"),
        (r#""port":443"#, r#""port":70000"#, "hosts[0].port: expected a whole number"),
        (r#""port":443"#, r#""maxBytes":1"#, "hosts[0].maxBytes: is of version 2"),
        (r#"{"host":"a","port":443}"#, "", "hosts: is empty"),
        ("2026-01-31T12:00:00Z", "yesterday", "effectiveAt: expected a time"),
        ("2026-01-31T12:00:00Z", "2026-01-31 12:00", "effectiveAt: expected a time"),
        ("2026-01-31T12:00:00Z", "1969-01-31T12:00:00Z", "effectiveAt: expected a time"),
        ("2026-01-31T15:00:00+01:00", "2026-01-31T12:00:00Z", "expiresAt: is not after effectiveAt"),
        (r#""ticket""#, r#""tickets""#, "tickets: unknown field"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        let error = Approval::compile("approval-x.json", text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), Kind::Policy);
        assert!(error.detail().starts_with(&format!("approval-x.json: {says}")), "{error}");
    }
}
