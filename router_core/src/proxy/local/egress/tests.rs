use super::*;

fn row(host: &str, port: u16, count: u64) -> BlockedRow {
    let (host, source_sandbox) = (host.to_owned(), "s".to_owned());
    BlockedRow { host, port, source_sandbox, count, first_seen: 1, last_seen: 2 }
}

#[test]
fn a_moment_is_seconds_rfc_3339_or_a_time_ago() {
    let now = 1_767_323_045;
    for (text, want) in [
        ("1767323000", 1_767_323_000),
        ("2026-01-02T03:04:05Z", 1_767_323_045),
        ("2026-01-02T04:04:05+01:00", 1_767_323_045),
        ("-10m", now - 600),
        ("-1d", now - 86_400),
        ("-99999999999999999", 0),
        ("yesterday", 0),
        ("", 0),
        ("1969-12-31T00:00:00Z", 0),
        ("-18446744073709551615d", 0),
    ] {
        assert_eq!(moment(text, now), want, "{text}");
    }
}

#[test]
fn a_window_has_a_unit_or_is_in_seconds() {
    for (text, want) in [
        ("300", Some(300)),
        ("1500ms", Some(2)),
        ("30s", Some(30)),
        ("5m", Some(300)),
        ("2h", Some(7200)),
        ("1d", Some(86_400)),
        ("m", None),
        ("5 m", None),
        ("5w", None),
        ("-5m", None),
        ("18446744073709551615d", None),
    ] {
        assert_eq!(window(text), want, "{text}");
    }
}

#[test]
fn a_parameter_is_decoded_and_the_first_of_its_name() {
    let query = Some("x=1&since=2026-01-02T03%3A04%3A05%2b00:00&since=2&n&bad=%zz%4");
    assert_eq!(parameter(query, "since").as_deref(), Some("2026-01-02T03:04:05+00:00"));
    assert_eq!(parameter(query, "n").as_deref(), Some(""));
    assert_eq!(parameter(query, "bad").as_deref(), Some("%zz%4"));
    assert_eq!(parameter(query, "missing"), None);
    assert_eq!(parameter(None, "since"), None);
}

#[test]
fn the_most_blocked_hosts_are_counted_over_their_ports() {
    let rows = vec![row("b", 80, 2), row("a", 443, 3), row("b", 443, 2), row("c", 1, 3)];
    let top: Vec<(String, u64)> = most_blocked(rows, 2).into_iter().map(|e| (e.host, e.count)).collect();
    assert_eq!(top, [("b".to_owned(), 4), ("a".to_owned(), 3)]);
}

#[test]
fn only_an_object_is_read_and_its_error_repeats_nothing() {
    assert!(!object::<Switch>(b" {}").unwrap().enabled);
    assert!(object::<Switch>(b"{\"enabled\":true,\"more\":1}").unwrap().enabled);
    for body in [&b""[..], b"[true]", b"true", b"{", b"{\"enabled\":\"s3cret\"}", b"{} {}"] {
        let message = object::<Switch>(body).err().unwrap();
        assert!(!message.contains("s3cret"), "{message}");
    }
}

#[test]
fn times_are_told_in_whole_seconds_of_utc() {
    assert_eq!(stamp(1_767_323_045), "2026-01-02T03:04:05Z");
}
