use std::fmt::Write as _;

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
    for host in
        ["tree.x:443", "a.tree.x:443", "a.b.tree.x:443", "exact.x:443", "a.below.x:443", "a.b.below.x:443"]
    {
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
    let policy = policy(&list(r#"{"host":"h","port":80,"methods":["GET","HEAD"],"pathPrefix":"/v1/"}"#), &[]);
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
    for what in ["x:443", "y:443", "h:443", "h:80 GET /admin", "h:80 DELETE /user", "z:443", "10.0.0.1:443"] {
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
