use super::*;

#[test]
fn a_character_that_the_bound_cuts_goes_and_bad_bytes_are_replaced() {
    let mark = "... [truncated at 2097152 bytes]";
    assert_eq!(text("aé".into(), false), "aé");
    assert_eq!(text(b"a\xff".to_vec(), false), "a\u{fffd}");
    assert_eq!(text("aé".into(), true), format!("aé{mark}"));
    assert_eq!(text(b"a\xc3".to_vec(), true), format!("a{mark}"));
    assert_eq!(text(b"abcd\xf0\x9f\x98".to_vec(), true), format!("abcd{mark}"));
    assert_eq!(text("xyz€".as_bytes()[..5].to_vec(), true), format!("xyz{mark}"));
    assert_eq!(text("€é".as_bytes()[..4].to_vec(), true), format!("€{mark}"));
    assert_eq!(text(b"abcd\xff".to_vec(), true), format!("abcd\u{fffd}{mark}"));
}

#[test]
fn an_answer_keeps_its_fields_except_those_that_are_hidden() {
    let field = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let fields = vec![
        field("content-type", b"text/plain"),
        field("set-cookie", b"s3cret"),
        field("www-authenticate", b"Basic"),
        field("vary", b"a"),
        field("vary", b"b\xff"),
    ];
    let json = |followed| {
        let answer = Answer {
            status: 302,
            headers: shown_fields(&fields),
            body: "hi",
            url: followed,
            redirects: followed.map(|_| 2),
        };
        serde_json::to_string(&answer).unwrap()
    };
    let headers = "\"headers\":{\"content-type\":\"text/plain\",\"vary\":\"a, b\u{fffd}\"}";
    assert_eq!(json(None), format!("{{\"status\":302,{headers},\"body\":\"hi\"}}"));
    assert!(json(Some("http://a/")).ends_with("\"url\":\"http://a/\",\"redirects\":2}"));
}
