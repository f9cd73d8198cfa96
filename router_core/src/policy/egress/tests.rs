mod deciding;
mod decoding;
mod documented;
mod hints;
mod recorded;

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
