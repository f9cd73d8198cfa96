use std::fmt::Write as _;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::ids::Host;
use crate::limits;

const NOON: u64 = 1_769_860_800; // 2026-01-31T12:00:00Z

fn list(endpoints: &str) -> String {
    format!(r#"{{"schemaVersion":2,"endpoints":[{endpoints}]}}"#)
}

fn denying(deny: &str, endpoints: &str) -> String {
    format!(r#"{{"schemaVersion":2,"endpoints":[{endpoints}],"deny":[{deny}]}}"#)
}

fn approving(hosts: &str, from: &str, until: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"approvalName":"x","sandbox":"demo","hosts":[{hosts}],"reason":"a test",
            "effectiveAt":"2026-01-31T{from}Z","expiresAt":"2026-01-31T{until}Z"}}"#
    )
}

fn policy(list: &str, approvals: &[&str]) -> Egress {
    let approvals = (0..).zip(approvals).map(|(n, text)| {
        let name = ["x", "y", "z"][n];
        Arc::new(Approval::compile(&format!("approval-{name}.json"), text.as_bytes()).unwrap())
    });
    Egress::new(Arc::new(Allowlist::compile(list.as_bytes()).unwrap()), approvals.collect())
}

fn fault(text: &str) -> String {
    let error = Allowlist::compile(text.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), Kind::Policy);
    let detail = error.detail().strip_prefix("allowlist.json: ");
    detail.unwrap_or_else(|| panic!("{error} does not name its file")).to_owned()
}

/// `host:port`, then maybe method and path; gives the rule's path, `!` before a denial's, `?` before a hint.
fn ask(policy: &Egress, what: &str) -> String {
    ask_at(policy, what, NOON)
}

fn ask_at(policy: &Egress, what: &str, now: u64) -> String {
    let mut words = what.splitn(3, ' ');
    let (host, port) = words.next().unwrap().rsplit_once(':').unwrap();
    let destination = Destination { host: Host::parse(host).unwrap(), port: port.parse().unwrap() };
    let request = words.next().map(|method| (method, words.next().unwrap_or("/")));
    match policy.decide(&Ask { destination: &destination, request, now }) {
        Verdict::Allow(rule) => rule.path.clone(),
        Verdict::Deny { rule } => format!("!{rule}"),
        Verdict::Unlisted { hint } => format!("?{hint}"),
    }
}

fn allows(policy: &Egress, what: &str) -> bool {
    !ask(policy, what).starts_with(['!', '?'])
}

mod decoding {
    use super::*;

    #[test]
    fn version_1_is_what_the_controller_writes() {
        let text =
            r#"{"schemaVersion":1,"endpoints":[{"host":"a.example","port":8443},{"host":"B.Example"}]}"#;
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
            (
                r#"{"schemaVersion":"1","endpoints":[]}"#,
                "schemaVersion: expected a whole number, found a string",
            ),
            (r#"{"schemaVersion":1}"#, "endpoints: is required"),
            (r#"{"schemaVersion":1,"endpoints":{}}"#, "endpoints: expected a list, found an object"),
            (
                r#"{"schemaVersion":1,"endpoints":[],"more":1}"#,
                "more: unknown field, expected one of schemaVersion, endpoints",
            ),
            (
                r#"{"schemaVersion":1,"endpoints":[],"deny":[]}"#,
                "deny: is of version 2: set schemaVersion to 2",
            ),
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
            (
                r#""host":"8.8.8.8","subdomains":false"#,
                "endpoints[0].subdomains: says nothing about an address",
            ),
            (r#""host":"a","subdomains":"no""#, "endpoints[0].subdomains: expected true or false"),
            (r#""host":"a","addresses":["10.0.0.0/99"]"#, "endpoints[0].addresses[0]: "),
            (r#""host":"a","addresses":["ten"]"#, "endpoints[0].addresses[0]: "),
            (
                r#""host":"a","addresses":[10]"#,
                "endpoints[0].addresses[0]: expected a string, found a number",
            ),
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
            (
                r#""host":"a","port":80,"pathPrefix":"/v1/../x""#,
                "pathPrefix: can be read in more than one way",
            ),
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
            (
                r#""host":"10.0.0.1","addresses":["10.0.0.2"]"#,
                "addresses: does not hold the host's own address",
            ),
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
        let twice = policy(
            &list(r#"{"host":"A.x","port":443,"comment":"one"},{"host":"a.X.","comment":"two"}"#),
            &[],
        );
        assert_eq!(twice.allowlist.endpoints.len(), 1);
        let text = list(r#"{"host":"b"},{"host":"a"},{"host":"A","maxBytes":5}"#);
        assert_eq!(
            fault(&text),
            "endpoints[2]: repeats allowlist.endpoints[1] with other grants, so it is never used"
        );
    }

    #[test]
    fn bounds_hold() {
        let entries = |n: usize, entry: &dyn Fn(usize) -> String| {
            list(&(0..n).map(entry).collect::<Vec<_>>().join(","))
        };
        let hosts = entries(limits::EGRESS_ENDPOINTS + 1, &|n| format!(r#"{{"host":"h{n}"}}"#));
        assert!(fault(&hosts).starts_with("endpoints: has 20001 entries, more than 20000"));
        let rules = entries(limits::EGRESS_RULES_PER_PLACE + 1, &|n| {
            format!(r#"{{"host":"h","port":80,"pathPrefix":"/{n}"}}"#)
        });
        assert!(fault(&rules).starts_with("endpoints[64]: is one of more than 64"));
        let blocks =
            (0..=limits::EGRESS_GRANTS).map(|n| format!("\"10.0.0.{n}\"")).collect::<Vec<_>>().join(",");
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
            assert!(error.detail().starts_with(&format!("approval-x.json: {says}")), "{error}");
        }
    }
}

mod deciding {
    use super::*;

    #[test]
    fn hosts_stand_for_what_they_say() {
        let policy = policy(
            &list(concat!(
                r#"{"host":"tree.x"},{"host":"exact.x","subdomains":false},{"host":"*.below.x"},"#,
                r#"{"host":"1.1.1.1","port":53},{"host":"[2606:4700::1111]","port":53}"#
            )),
            &[],
        );
        for host in [
            "tree.x:443",
            "a.tree.x:443",
            "a.b.tree.x:443",
            "exact.x:443",
            "a.below.x:443",
            "a.b.below.x:443",
        ] {
            assert!(allows(&policy, host), "{host}");
        }
        for host in ["x:443", "atree.x:443", "a.exact.x:443", "below.x:443", "tree.x:80", "tree.x.y:443"] {
            assert!(!allows(&policy, host), "{host}");
        }
        assert_eq!(ask(&policy, "1.1.1.1:53"), "allowlist.endpoints[3]");
        assert_eq!(ask(&policy, "[::ffff:1.1.1.1]:53"), "allowlist.endpoints[3]");
        assert_eq!(ask(&policy, "[2606:4700::1111]:53"), "allowlist.endpoints[4]");
        assert!(!allows(&policy, "1.1.1.1:443") && !allows(&policy, "1.1.1.2:53"));
    }

    #[test]
    fn the_most_specific_endpoint_decides() {
        let policy = policy(
            &list(concat!(
                r#"{"host":"x"},{"host":"*.b.x"},{"host":"b.x"},{"host":"a.b.x"},{"host":"a.b.x","subdomains":false},"#,
                r#"{"host":"h","port":80},{"host":"h","port":80,"methods":["GET"]},"#,
                r#"{"host":"h","port":80,"pathPrefix":"/v1"},{"host":"h","port":80,"pathPrefix":"/v1/x"},"#,
                r#"{"host":"h","port":80,"pathPrefix":"/v1/x","methods":["PUT"]}"#
            )),
            &[],
        );
        for (what, rule) in [
            ("q.x:443", 0),
            ("b.x:443", 2),
            ("q.b.x:443", 1),
            ("a.b.x:443", 4),
            ("q.a.b.x:443", 3),
            ("h:80", 5),
            ("h:80 POST /", 5),
            ("h:80 GET /", 6),
            ("h:80 GET /v1", 7),
            ("h:80 GET /v1/x/y", 8),
            ("h:80 PUT /v1/x?y", 9),
            ("h:80 PUT /v1/x/../x", 5),
        ] {
            assert_eq!(ask(&policy, what), format!("allowlist.endpoints[{rule}]"), "{what}");
        }
    }

    #[test]
    fn requests_are_held_against_methods_and_paths_and_tunnels_never_fit() {
        let policy =
            policy(&list(r#"{"host":"h","port":80,"methods":["GET","HEAD"],"pathPrefix":"/v1/"}"#), &[]);
        for what in ["h:80 GET /v1/x", "h:80 HEAD /v1", "a.h:80 GET /v1/x?y=/../z"] {
            assert!(allows(&policy, what), "{what}");
        }
        for what in [
            "h:80",
            "h:80 get /v1/x",
            "h:80 POST /v1/x",
            "h:80 GET /v10",
            "h:80 GET /",
            "h:80 GET /v1/../admin",
            "h:80 GET /v1/%2e%2e/admin",
            "h:80 GET //v1/x",
            "h:80 GET /v1%2fx",
            "h:80 GET /v1\\x",
        ] {
            assert!(!allows(&policy, what), "{what}");
        }
    }

    #[test]
    fn a_denial_wins_and_no_spelling_gets_around_it() {
        let policy = policy(
            &denying(
                concat!(
                    r#"{"host":"bad.x"},{"host":"y","port":8443},{"host":"10.0.0.1","port":22},"#,
                    r#"{"host":"h","port":80,"methods":["DELETE"],"pathPrefix":"/admin"},{"host":"*.z"}"#
                ),
                r#"{"host":"x"},{"host":"y"},{"host":"h","port":80},{"host":"h"},{"host":"z"},{"host":"10.0.0.1"}"#,
            ),
            &[&approving(r#"{"host":"very.bad.x"}"#, "11:00:00", "13:00:00")],
        );
        for what in
            ["x:443", "y:443", "h:443", "h:80 GET /admin", "h:80 DELETE /user", "z:443", "10.0.0.1:443"]
        {
            assert!(allows(&policy, what), "{what}: {}", ask(&policy, what));
        }
        for (what, rule) in [
            ("bad.x:443", 0),
            ("bad.x:1", 0),
            ("very.bad.x:443", 0),
            ("y:8443", 1),
            ("a.y:8443", 1),
            ("10.0.0.1:22", 2),
            ("[::ffff:10.0.0.1]:22", 2),
            ("h:80 DELETE /admin", 3),
            ("h:80 delete /Admin/x", 3),
            ("h:80 DELETE /%61dmin", 3),
            ("h:80 DELETE //admin", 3),
            ("h:80 DELETE /x/../admin", 3),
            ("h:80", 3),
            ("a.z:443", 4),
        ] {
            assert_eq!(ask(&policy, what), format!("!allowlist.deny[{rule}]"), "{what}");
        }
    }

    #[test]
    fn approvals_hold_from_their_start_until_before_their_end() {
        let hosts =
            r#"{"host":"a","port":443},{"host":"b","port":80,"methods":["GET"],"addresses":["10.0.0.1"]}"#;
        let policy = policy(&list(""), &[&approving(hosts, "12:00:00", "13:00:00")]);
        for (now, live) in [(NOON - 1, false), (NOON, true), (NOON + 3599, true), (NOON + 3600, false)] {
            assert_eq!(ask_at(&policy, "a:443", now) == "approval-x.hosts[0]", live, "{now}");
        }
        let destination = Destination { host: Host::parse("b").unwrap(), port: 80 };
        let asked = Ask { destination: &destination, request: Some(("GET", "/")), now: NOON };
        let Verdict::Allow(rule) = policy.decide(&asked) else { panic!("not allowed") };
        assert!(rule.approval && rule.expires_at == Some(NOON + 3600));
        assert_eq!(rule.addresses, [Cidr::parse("10.0.0.1").unwrap()]);
    }

    #[test]
    fn an_approval_is_preferred_where_it_grants_more_than_the_list() {
        let listed = list(
            r#"{"host":"a","maxBytes":9},{"host":"b","addresses":["10.0.0.1"]},{"host":"c","maxBytes":9},{"host":"d"}"#,
        );
        let hosts = concat!(
            r#"{"host":"a","maxBytes":99},{"host":"b"},{"host":"c","maxBytes":8},"#,
            r#"{"host":"d"},{"host":"db.d","addresses":["10.0.0.1"]}"#
        );
        let policy = policy(&listed, &[&approving(hosts, "11:00:00", "13:00:00")]);
        for (what, rule) in [
            ("a:443", "approval-x.hosts[0]"),
            ("b:443", "allowlist.endpoints[1]"),
            ("c:443", "allowlist.endpoints[2]"),
            ("d:443", "allowlist.endpoints[3]"),
            ("db.d:443", "approval-x.hosts[4]"),
        ] {
            assert_eq!(ask(&policy, what), rule, "{what}");
            assert!(ask_at(&policy, what, NOON + 7200).starts_with("allowlist"), "{what}");
        }
    }

    #[test]
    fn an_address_that_is_listed_is_granted_and_nothing_else() {
        let policy = policy(
            &list(concat!(
                r#"{"host":"10.1.2.3","port":5432},{"host":"fd00::1","port":1},"#,
                r#"{"host":"169.254.169.254","port":80,"addresses":["169.254.169.254/32"]},{"host":"a.x","addresses":["10.1.0.0/16"]}"#
            )),
            &[],
        );
        let granted = |host: &str, port| {
            let destination = Destination { host: Host::parse(host).unwrap(), port };
            match policy.decide(&Ask { destination: &destination, request: None, now: 0 }) {
                Verdict::Allow(rule) => rule.addresses.clone(),
                other => panic!("{other:?}"),
            }
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(granted("10.1.2.3", 5432), [Cidr::one(ip("10.1.2.3"))]);
        assert_eq!(granted("[fd00::1]", 1), [Cidr::one(ip("fd00::1"))]);
        assert_eq!(granted("169.254.169.254", 80), [Cidr::parse("169.254.169.254/32").unwrap()]);
        assert_eq!(granted("a.x", 443), [Cidr::parse("10.1.0.0/16").unwrap()]);
    }

    /// The rules by their definition, one after the other.
    fn slow(rules: &[(u8, String, u16)], host: &str, port: u16) -> bool {
        rules.iter().any(|(kind, name, at)| {
            let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
            *at == port
                && match kind {
                    0 => below || host == name,
                    1 => host == name,
                    _ => below,
                }
        })
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_reading_every_rule(
            rules in proptest::collection::vec((0u8..3, "[ab](\\.[ab]){0,3}", 1u16..3), 0..12),
            asked in proptest::collection::vec(("[ab](\\.[ab]){0,4}", 1u16..4), 1..12),
        ) {
            let entries: Vec<String> = rules.iter().map(|(kind, name, port)| match kind {
                0 => format!(r#"{{"host":"{name}","port":{port}}}"#),
                1 => format!(r#"{{"host":"{name}","port":{port},"subdomains":false}}"#),
                _ => format!(r#"{{"host":"*.{name}","port":{port}}}"#),
            }).collect();
            let allowed = policy(&list(&entries.join(",")), &[]);
            let denied = policy(&denying(&entries.join(","), ""), &[]);
            for (host, port) in asked {
                let what = format!("{host}:{port}");
                prop_assert_eq!(allows(&allowed, &what), slow(&rules, &host, port), "{}", &what);
                prop_assert_eq!(ask(&denied, &what).starts_with('!'), slow(&rules, &host, port), "{}", &what);
            }
        }
    }

    #[test]
    fn looking_up_costs_one_look_per_label_however_long_the_list_is() {
        let looks = |size: usize, host: &str| {
            let entries: Vec<String> = (0..size).map(|n| format!(r#"{{"host":"h{n}.a.example"}}"#)).collect();
            let policy = policy(&list(&entries.join(",")), &[]);
            index::LOOKUPS.with(|n| n.set(0));
            let shelves = policy.index.walk(&Host::parse(host).unwrap()).count();
            (index::LOOKUPS.with(std::cell::Cell::get), shelves)
        };
        assert_eq!(looks(10, "h5.a.example"), (3, 1));
        assert_eq!(looks(10_000, "h5.a.example"), (3, 1));
        assert_eq!(looks(10_000, "nobody.example"), (2, 0));
        // Labels beyond the longest rule's are not looked at.
        let long = format!("{}h5.a.example", "a.".repeat(100));
        assert_eq!(looks(10_000, &long), (3, 1));
    }

    #[test]
    fn many_ports_of_one_host_are_not_read_one_by_one() {
        let mut entries = String::new();
        for port in 1..=10_000 {
            let _ = write!(entries, r#"{{"host":"h","port":{port}}},"#);
        }
        let policy = policy(&list(entries.trim_end_matches(',')), &[]);
        let host = Host::parse("h").unwrap();
        let read: usize = policy.index.walk(&host).map(|shelf| shelf.at(5000).count()).sum();
        assert_eq!((read, ask(&policy, "h:5000").as_str()), (1, "allowlist.endpoints[4999]"));
    }
}

mod hints {
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
        for what in
            ["api.x.com:8443", "z.com:443", "api.y.com:80", "other.org:99", "[fe80::1]:80", "8.8.8.8:53"]
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
}

mod merging {
    use super::*;
    use crate::policy::digest::Digest;

    #[test]
    fn the_merged_list_is_the_controllers_byte_for_byte() {
        let listed =
            r#"{"schemaVersion":1,"endpoints":[{"host":"Example.com"},{"host":"example.com","port":443}]}"#;
        let alone = policy(listed, &[]);
        let digest = Digest::of_files(&[("merged-allowlist.json", alone.merged())]).to_string();
        assert_eq!(digest, "sha256:fe6cf9580a22eaacff45a3c8d3bb06f5f635b34c5981558b4587524c45e9c8a5");
        let hosts =
            r#"{"host":"b.x","port":80},{"host":"EXAMPLE.com"},{"host":"b.x","port":9},{"host":"10.0.0.1"}"#;
        let both = policy(listed, &[&approving(hosts, "01:00:00", "02:00:00")]);
        assert_eq!(
            both.merged(),
            concat!(
                r#"{"schemaVersion":1,"endpoints":[{"host":"10.0.0.1","port":443},{"host":"b.x","port":9},"#,
                r#"{"host":"b.x","port":80},{"host":"example.com","port":443}]}"#
            )
        );
        assert_eq!(both.hosts(), ["10.0.0.1", "b.x", "example.com"]);
        assert_eq!(Egress::default().merged(), r#"{"schemaVersion":1,"endpoints":[]}"#);
    }
}

mod recorded {
    use super::*;

    fn row(host: &str, port: u16, method: &str, path: &str) -> Row<'static> {
        Row {
            host: host.to_owned().into(),
            port,
            door: if method.is_empty() { "connect" } else { "http" }.into(),
            method: method.to_owned().into(),
            path: path.to_owned().into(),
            count: 1,
        }
    }

    fn replayed(text: &str, rows: &[Row<'_>]) -> Vec<bool> {
        let policy = policy(text, &[]);
        replay(&policy, rows, NOON).iter().map(|outcome| outcome.allowed).collect()
    }

    #[test]
    fn replaying_tells_rule_or_hint_for_each_row() {
        let list = r#"{"schemaVersion":2,"endpoints":[{"host":"a"}],"deny":[{"host":"bad.a"}]}"#;
        let approval = approving(r#"{"host":"b"}"#, "11:00:00", "13:00:00");
        let rows = br#"[{"host":"a","port":443,"door":"connect","method":"","path":"","count":3,"first_seen":1,"last_seen":2},
            {"host":"bad.a","port":443},{"host":"b","port":443},{"host":"c","port":1},{"host":"no host","port":1}]"#;
        let files: &[(&str, &[u8])] =
            &[("approval-x.json", approval.as_bytes()), ("allowlist.json", list.as_bytes())];
        let text = replay_files(files, rows, NOON).unwrap();
        let judged: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let told: Vec<(bool, &str, &str)> = judged
            .iter()
            .map(|row| {
                (row["allowed"] == true, row["reason"].as_str().unwrap(), row["rule"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            told,
            [
                (true, "allowlist", "allowlist.endpoints[0]"),
                (false, "deny_rule", "allowlist.deny[0]"),
                (true, "approval", "approval-x.hosts[0]"),
                (false, "unlisted", "allowlist"),
                (false, "malformed", ""),
            ]
        );
        assert!(text.starts_with(
            r#"[{"host":"a","port":443,"door":"connect","method":"","path":"","count":3,"allowed":true,"reason":"allowlist","rule":"allowlist.endpoints[0]","hint":""}"#
        ));
        assert!(judged[3]["hint"].as_str().unwrap().starts_with("add {"));
        assert_eq!(replay_files(&files[..1], rows, NOON).unwrap_err().kind(), Kind::Policy);
        assert_eq!(replay_files(&files[1..], b"{}", NOON).unwrap_err().kind(), Kind::BadRequest);
    }

    #[test]
    fn tunnels_give_a_sorted_list_of_version_1_with_a_line_each() {
        let rows = [row("b.x.com", 443, "", ""), row("a.com", 8443, "", ""), row("a.com", 443, "", "")];
        let text = "{\n  \"schemaVersion\": 1,\n  \"endpoints\": [\n    {\"host\":\"a.com\",\"port\":443},\n    {\"host\":\"a.com\",\"port\":8443},\n    {\"host\":\"b.x.com\",\"port\":443}\n  ]\n}\n";
        assert_eq!(propose(&rows, false).text, text);
        assert_eq!(propose(&[], false).text, "{\n  \"schemaVersion\": 1,\n  \"endpoints\": []\n}\n");
        // A host holds the names below it.
        let more = [rows.as_slice(), &[row("q.a.com", 443, "", "")]].concat();
        assert_eq!(propose(&more, false).text, text);
    }

    #[test]
    fn plain_requests_give_methods_and_the_prefix_they_share() {
        let line = |rows: &[Row<'_>]| {
            let text = propose(rows, false).text;
            text.lines().nth(3).unwrap().trim().to_owned()
        };
        let rows = [row("h", 80, "POST", "/v1/users/*/keys"), row("h", 80, "GET", "/v1/users/*")];
        assert_eq!(
            line(&rows),
            r#"{"host":"h","port":80,"methods":["GET","POST"],"pathPrefix":"/v1/users"}"#
        );
        let rows = [row("h", 80, "GET", "/v1/a"), row("h", 80, "GET", "/v10")];
        assert_eq!(line(&rows), r#"{"host":"h","port":80,"methods":["GET"]}"#);
        let rows = [row("h", 80, "GET", "/v1//a"), row("h", 80, "GET", "/v1/a")];
        assert_eq!(line(&rows), r#"{"host":"h","port":80,"methods":["GET"]}"#);
        let rows = [row("h", 80, "GET", "/v1"), row("h", 80, "", "")];
        assert_eq!(line(&rows), r#"{"host":"h","port":80}"#);
        assert_eq!(line(&[row("h", 443, "GET", "/v1")]), r#"{"host":"h","port":443}"#);
        assert_eq!(line(&[row("h", 80, "CONNECT", "/v1")]), r#"{"host":"h","port":80}"#);
    }

    #[test]
    fn names_of_one_domain_are_only_folded_on_request() {
        let rows: Vec<_> = ["a.x.com", "b.x.com", "c.d.x.com", "a.y.co.uk", "b.z.co.uk", "c.co.uk"]
            .map(|h| row(h, 443, "", ""))
            .to_vec();
        assert_eq!(propose(&rows, false).text.matches("host").count(), 6);
        let folded = propose(&rows, true).text;
        assert!(
            folded.contains(r#"{"host":"*.x.com","port":443}"#) && !folded.contains("a.x.com"),
            "{folded}"
        );
        assert!(folded.contains("a.y.co.uk") && !folded.contains("*.co.uk"), "{folded}");
        assert!(replayed(&folded, &rows).iter().all(|allowed| *allowed));
    }

    #[test]
    fn what_only_a_person_can_grant_is_left_out_and_told() {
        let rows = [
            row("10.0.0.1", 80, "", ""),
            row("[fe80::1]", 80, "", ""),
            row("not a host", 1, "", ""),
            row("a", 0, "", ""),
        ];
        let proposal = propose(&rows, false);
        assert_eq!(proposal.left_out.len(), 4, "{proposal:?}");
        assert!(proposal.text.contains("[]"));
    }

    proptest! {
        #[test]
        fn a_proposal_allows_the_rows_that_it_came_from_and_no_other_destination(
            rows in proptest::collection::vec(
                (
                    "[ab](\\.[ab]){0,3}",
                    prop_oneof![Just(80u16), Just(443), Just(8080)],
                    prop_oneof![Just(String::new()), "(GET|POST|get|CONNECT|B D)"],
                    "(/(v1|v2|a%2eb|\\*|\\.\\.|%2F|x~y|%7e|\"|)){0,3}",
                ),
                0..8,
            ),
            other in "[abc](\\.[abc]){0,3}",
            collapse: bool,
        ) {
            let rows: Vec<_> = rows.iter().map(|(h, p, m, path)| row(h, *p, m, path)).collect();
            let proposal = propose(&rows, collapse);
            prop_assert!(proposal.left_out.is_empty());
            for (row, allowed) in rows.iter().zip(replayed(&proposal.text, &rows)) {
                prop_assert!(allowed, "{:?} is not allowed by {}", row, proposal.text);
            }
            let policy = policy(&proposal.text, &[]);
            prop_assert!(!allows(&policy, "a:81") && !allows(&policy, "c:443"));
            let within = rows.iter().any(|row| {
                row.port == 443 && (row.host == other || other.ends_with(&format!(".{}", row.host)))
            });
            prop_assert!(collapse || within == allows(&policy, &format!("{other}:443")), "{other} {}", proposal.text);
            let methods: Vec<_> = rows.iter().filter(|row| row.port == 80).map(|row| &*row.method).collect();
            if !methods.iter().any(|m| ["PUT", "", "CONNECT", "B D"].contains(m)) {
                prop_assert!(!allows(&policy, "a:80 PUT /v1") && !allows(&policy, "a:80"));
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_a_list(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        crate::policy::checks::egress_lists(&bytes);
    }

    #[test]
    fn any_members_are_refused_or_a_list(
        choice in 0u8..=255,
        version in 1u8..3,
        hosts in proptest::collection::vec(("(\\*\\.)?[ab](\\.[ab]){0,2}|10\\.0\\.0\\.1|fe80::1", 79u16..82, 0usize..8), 0..5),
    ) {
        const MORE: [&str; 8] = [
            "", r#","subdomains":false"#, r#","methods":["GET"]"#, r#","pathPrefix":"/v1""#,
            r#","addresses":["10.0.0.0/8","fe80::1"]"#, r#","maxBytes":7"#, r#","comment":"é""#, r#","x":1"#,
        ];
        let entry = |(host, port, more): &(String, u16, usize)| format!(r#"{{"host":"{host}","port":{port}{}}}"#, MORE[*more]);
        let entries = hosts.iter().map(entry).collect::<Vec<_>>().join(",");
        let text = match choice % 3 {
            0 => format!(r#"{{"schemaVersion":{version},"endpoints":[{entries}]}}"#),
            1 => approving(&entries, "01:00:00", "02:00:00"),
            _ => format!("[{entries}]"),
        };
        crate::policy::checks::egress_lists(&[&[choice], text.as_bytes()].concat());
    }
}

mod documented {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/policy.md");

    fn part() -> &'static str {
        &PAGE[PAGE.find("\n# The egress lists").unwrap()..]
    }

    /// The examples: the file's name and its text.
    fn examples() -> Vec<(&'static str, &'static str)> {
        let blocks = part().split("\n```json ").skip(1);
        blocks
            .map(|block| block.split_once('\n').unwrap())
            .map(|(name, rest)| (name, rest.split("```").next().unwrap()))
            .collect()
    }

    /// The rows of the table under a heading: their cells.
    fn table(heading: &str) -> Vec<Vec<&'static str>> {
        let rows = &part()[part().find(&format!("\n| {heading} |")).unwrap() + 1..];
        let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
    }

    fn code(cell: &'static str) -> &'static str {
        cell.split('`').nth(1).unwrap()
    }

    #[test]
    fn the_table_of_answers_is_what_the_examples_answer() {
        let examples = examples();
        assert_eq!(
            examples.iter().map(|e| e.0).collect::<Vec<_>>(),
            ["allowlist.json", "allowlist.json", "approval-ticket-7.json"]
        );
        assert!(Allowlist::compile(examples[0].1.as_bytes()).is_ok());
        let approval = Approval::compile(examples[2].0, examples[2].1.as_bytes()).unwrap();
        let list = Allowlist::compile(examples[1].1.as_bytes()).unwrap();
        let policy = Egress::new(Arc::new(list), vec![Arc::new(approval)]);
        let rows = table("Connection");
        assert!(rows.len() > 15);
        for row in rows {
            let answer = ask_at(&policy, code(row[0]), NOON + 1800);
            let told = match row[1] {
                text if text.starts_with("denied by") => format!("!{}", code(text)),
                text if text.starts_with("refused") => "?".to_owned(),
                text => code(text).to_owned(),
            };
            assert!(if told == "?" { answer.starts_with('?') } else { answer == told }, "{row:?}: {answer}");
        }
    }

    #[test]
    fn every_member_is_in_its_table_and_nothing_else_is() {
        let members = |heading: &str| table(heading).iter().map(|row| code(row[0])).collect::<Vec<_>>();
        assert_eq!(members("Endpoint"), decode::ENDPOINT);
        assert_eq!(members("`allowlist.json`"), decode::LIST);
        assert_eq!(members("`approval-<name>.json`"), decode::APPROVAL);
        let versions: Vec<_> =
            table("Endpoint").into_iter().filter(|row| row[2] == "2").map(|row| code(row[0])).collect();
        assert_eq!(versions, decode::NEWER);
    }

    #[test]
    fn the_bounds_are_those_of_the_page() {
        let bounds = format!(
            "at most {} entries, of them {} for one host and port, each with at most {} address blocks",
            "20 000",
            limits::EGRESS_RULES_PER_PLACE,
            limits::EGRESS_GRANTS
        );
        assert!(part().replace('\n', " ").contains(&bounds) && limits::EGRESS_ENDPOINTS == 20_000);
    }

    #[test]
    fn what_can_never_match_is_refused_as_the_page_says() {
        let rows = table("Entry");
        assert!(rows.len() > 8);
        for row in rows {
            let error = fault(&denying(r#"{"host":"denied.example"}"#, code(row[0])));
            assert!(error.contains(row[1]), "{row:?}: {error}");
        }
    }
}
