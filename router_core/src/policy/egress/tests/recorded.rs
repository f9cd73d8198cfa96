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
        .map(|row| (row["allowed"] == true, row["reason"].as_str().unwrap(), row["rule"].as_str().unwrap()))
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
    assert_eq!(line(&rows), r#"{"host":"h","port":80,"methods":["GET","POST"],"pathPrefix":"/v1/users"}"#);
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
    assert!(folded.contains(r#"{"host":"*.x.com","port":443}"#) && !folded.contains("a.x.com"), "{folded}");
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
