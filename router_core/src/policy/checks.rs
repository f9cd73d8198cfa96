//! The bodies of the fuzz targets for policy decoders; see `wire::checks`. They also run under proptest.
#![allow(clippy::missing_panics_doc, reason = "to panic is how a check fails")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::error::Kind;
use crate::ids::{Destination, Host};
use crate::policy::egress::{Allowlist, Approval, Ask, Egress, Verdict, propose, read_rows, replay};

/// Egress lists: the first byte chooses the file. What is refused is refused with its file's name; what is accepted
/// allows, or names, each host that it lists, and its merged form compiles to a list with the same hosts.
pub fn egress_lists(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let refused = |file: &str, error: &crate::error::Error| {
        assert!(error.kind() == Kind::Policy && error.detail().starts_with(file), "{error}");
        assert!(error.detail().len() < 8192, "an error is a line");
    };
    let lists = match choice % 3 {
        0 => match Allowlist::compile(text) {
            Ok(list) => Egress::new(Arc::new(list), Vec::new()),
            Err(error) => return refused("allowlist.json: ", &error),
        },
        1 => match Approval::compile("approval-x.json", text) {
            Ok(approval) => Egress::new(Arc::default(), vec![Arc::new(approval)]),
            Err(error) => return refused("approval-x.json: ", &error),
        },
        _ => return proposal(text, choice & 128 != 0),
    };
    let merged = lists.merged();
    if let Ok(again) = Allowlist::compile(merged.as_bytes()) {
        let again = Egress::new(Arc::new(again), Vec::new());
        assert_eq!(
            (again.merged(), again.hosts()),
            (merged, lists.hosts()),
            "merging twice changes the list"
        );
    }
    assert!(lists.hosts().is_sorted());
    let hosts = lists.hosts().into_iter().filter_map(|host| Host::parse(host.trim_start_matches("*.")).ok());
    for host in hosts.chain([Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST))]) {
        for request in [None, Some(("GET", "/")), Some(("POST", "/v1/../x"))] {
            let destination = Destination { host: host.clone(), port: 443 };
            match lists.decide(&Ask { destination: &destination, request, now: 1 << 31 }) {
                Verdict::Allow(rule) => assert!(!rule.path.is_empty()),
                Verdict::Deny { rule } => assert!(rule.starts_with("allowlist.deny[")),
                Verdict::Unlisted { hint } => assert!(!hint.is_empty() && !hint.contains('\n')),
            }
        }
    }
}

/// Recorded rows: the proposal compiles, and allows what it does not name as left out.
fn proposal(json: &[u8], collapse: bool) {
    let Ok(rows) = read_rows(json) else { return };
    let proposal = propose(&rows, collapse);
    let list = Allowlist::compile(proposal.text.as_bytes());
    assert!(list.is_ok(), "{list:?} of {}", proposal.text);
    let policy = Egress::new(Arc::new(list.unwrap_or_default()), Vec::new());
    let denied = replay(&policy, &rows, 0).iter().filter(|outcome| !outcome.allowed).count();
    assert!(denied == 0 || !proposal.left_out.is_empty(), "{} denies its own rows", proposal.text);
}
