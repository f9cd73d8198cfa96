use proptest::prelude::*;

use super::*;

fn accepted(bytes: &[u8]) -> RequestHead<'_> {
    request(bytes).unwrap().unwrap()
}

fn lines(fields: &str) -> Vec<u8> {
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\n{fields}\r\n").into_bytes()
}

#[test]
fn reads_a_sdk_request() {
    let bytes = b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8443\r\nAccept-Encoding: gzip, deflate\r\n\
        content-type:application/json\r\nAuthorization: Bearer a b \t\r\ncontent-length: 17\r\n\r\n{}";
    let head = accepted(bytes);
    assert_eq!((head.method, head.target), ("POST", "/v1/chat/completions?x=1"));
    assert_eq!(head.framing, Framing::Length(17));
    assert!(head.keep_alive && !head.http10 && !head.expect_continue);
    assert_eq!(head.len, bytes.len() - 2);
    assert_eq!(head.fields.iter().count(), 5);
    assert_eq!(head.fields.value("AUTHORIZATION"), Some(&b"Bearer a b"[..]));
    assert_eq!(head.fields.value("content-type"), Some(&b"application/json"[..]));
    assert!(head.fields.lists("accept-encoding", "GZIP") && !head.fields.lists("accept-encoding", "br"));
}

#[test]
fn waits_for_every_missing_byte_of_a_head() {
    let bytes = lines("Content-Length: 3\r\nConnection: close\r\n");
    for n in 0..bytes.len() {
        assert_eq!(request(&bytes[..n]).unwrap().map(|h| h.len), None, "{n}");
    }
    assert!(!accepted(&bytes).keep_alive);
}

#[test]
fn skips_one_empty_line_before_a_request_and_no_more() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(accepted(&[b"\r\n", &head[..]].concat()).len, head.len() + 2);
    for before in [&b"\r\n\r\n"[..], b"\n", b"\r", b"\r\n\n", b"\r\n\r", b" "] {
        assert!(request(&[before, &head[..]].concat()).is_err(), "{before:?}");
    }
}

#[test]
fn reads_persistence_from_version_and_connection() {
    let head = |version: &str, connection: &str| {
        let bytes = format!("GET / {version}\r\nHost: a\r\n{connection}\r\n").into_bytes();
        accepted(&bytes).keep_alive
    };
    assert!(head("HTTP/1.1", ""));
    assert!(head("HTTP/1.1", "Connection: upgrade\r\n"));
    assert!(!head("HTTP/1.1", "Connection: foo, CLOSE\r\n"));
    assert!(!head("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n"));
    assert!(!head("HTTP/1.0", ""));
    assert!(head("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    assert!(!head("HTTP/1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn frames_requests() {
    assert_eq!(accepted(&lines("")).framing, Framing::Empty);
    assert_eq!(accepted(&lines("Content-Length: 0\r\n")).framing, Framing::Length(0));
    assert_eq!(
        accepted(&lines("Content-Length: 18446744073709551615\r\n")).framing,
        Framing::Length(u64::MAX)
    );
    assert_eq!(accepted(&lines("Transfer-Encoding: Chunked\r\n")).framing, Framing::Chunked);
    assert!(accepted(&lines("Expect: 100-Continue\r\n")).expect_continue);
}

#[test]
fn refuses_ambiguous_framing() {
    for fields in [
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\ncontent-length: 4\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length:\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3 4\r\n",
        "Content-Length: 3_0\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
    ] {
        assert!(request(&lines(fields)).is_err(), "{fields:?}");
    }
    assert!(request(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    assert!(request(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 3\r\n\r\n").is_err());
}

#[test]
fn refuses_malformed_lines() {
    for fields in [
        "A: b\n",
        "A: b\r\r\n",
        "A: b\rc\r\n",
        "A: b\r\n c\r\n",
        "A: b\r\n\tc\r\n",
        "A : b\r\n",
        "A\t: b\r\n",
        " A: b\r\n",
        ": b\r\n",
        "A\r\n",
        "A(: b\r\n",
        "A\u{e9}: b\r\n",
        "A: b\0c\r\n",
        "A: b\x01c\r\n",
        "A: b\x7fc\r\n",
        "\n",
    ] {
        assert!(request(&lines(fields)).is_err(), "{fields:?}");
    }
}

#[test]
fn refuses_malformed_request_lines() {
    for line in [
        "GET / HTTP/1.1\n",
        "GET  / HTTP/1.1\r\n",
        "GET /  HTTP/1.1\r\n",
        "GET\t/ HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        "GET / HTTP/2.0\r\n",
        "GET / HTTP/1.2\r\n",
        "GET / http/1.1\r\n",
        "GET /\r\n",
        "G(T / HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "GET /\u{e9} HTTP/1.1\r\n",
        "GET /\x7f HTTP/1.1\r\n",
        "GET /a#b HTTP/1.1\r\n",
        "GET /a\\b HTTP/1.1\r\n",
        "GET a HTTP/1.1\r\n",
        "GET * HTTP/1.1\r\n",
        "GET ftp://a/ HTTP/1.1\r\n",
        "GET http:/// HTTP/1.1\r\n",
        "GET http://u@a/ HTTP/1.1\r\n",
        "CONNECT / HTTP/1.1\r\n",
        "CONNECT a: HTTP/1.1\r\n",
        "CONNECT a:0 HTTP/1.1\r\n",
        "CONNECT u@a:443 HTTP/1.1\r\n",
        "CONNECT http://a:443 HTTP/1.1\r\n",
        "CONNECT 127.1:443 HTTP/1.1\r\n",
    ] {
        assert!(request(format!("{line}Host: a\r\n\r\n").as_bytes()).is_err(), "{line:?}");
    }
    for line in [
        "OPTIONS * HTTP/1.1",
        "CONNECT [::1]:443 HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "GET HTTP://a:1?x HTTP/1.1",
        "x-y!1 // HTTP/1.1",
    ] {
        assert!(request(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()).unwrap().is_some(), "{line:?}");
    }
}

#[test]
fn wants_exactly_one_well_formed_host() {
    for host in ["a", "a.b-c_d:8443", "127.0.0.1", "[::1]", "[::ffff:1.2.3.4]:80", "xn--a.example."] {
        assert!(
            request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap().is_some(),
            "{host}"
        );
    }
    for host in [
        "",
        "a b",
        "a,b",
        "a/b",
        "a@b",
        "a:",
        "a:b",
        "a:123456",
        "a:65536",
        "a:0",
        "a:1:2",
        "a~b",
        "a..b",
        "127.1",
        "0x7f.0.0.1",
        "[::1",
        "[]",
        "[::1]x",
        "[g]",
        "a\u{e9}",
        "a%41",
        ":80",
        "[::1%eth0]",
        "[[::1]]x",
    ] {
        assert!(request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).is_err(), "{host}");
    }
    assert!(request(b"GET / HTTP/1.1\r\n\r\n").is_err());
    assert!(request(b"CONNECT a HTTP/1.1\r\n\r\n").unwrap().is_some());
    assert!(request(b"CONNECT a HTTP/1.1\r\nHost: a@b\r\n\r\n").is_err());
    assert!(request(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n").is_err());
    assert!(request(b"GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
    assert!(request(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").is_err());
}

#[test]
fn bounds_heads_whatever_the_read_size() {
    let long = lines(&format!("A: {}\r\n", "b".repeat(limits::HEAD_BYTES)));
    for bytes in [&long[..], &long[..limits::HEAD_BYTES]] {
        assert!(matches!(request(bytes).unwrap_err().kind(), Kind::TooLarge { max: 65_536, .. }));
    }
    assert!(request(&long[..limits::HEAD_BYTES - 1]).unwrap().is_none());
    let spare = limits::HEAD_BYTES - lines("A: \r\n").len();
    assert_eq!(accepted(&lines(&format!("A: {}\r\n", "b".repeat(spare)))).len, limits::HEAD_BYTES);

    assert_eq!(
        accepted(&lines(&"a:b\r\n".repeat(limits::HEAD_FIELDS - 1))).fields.iter().count(),
        limits::HEAD_FIELDS
    );
    let many = lines(&"a:b\r\n".repeat(limits::HEAD_FIELDS));
    assert!(request(&many).is_err() && request(&many[..many.len() - 2]).is_err());
    let late = lines(&format!("A: {}\r\n{}", "b".repeat(2000), "a:b\r\n".repeat(limits::HEAD_FIELDS)));
    assert!(request(&late[..late.len() - 2]).is_err());
}

#[test]
fn refuses_what_is_not_http_before_an_empty_line_comes() {
    assert!(request(b"\x16\x03\x01\x02\x00\x01\x00").is_err());
    assert!(request(b"GET / HTTP/1.1\nHost").is_err());
    assert!(request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").is_err());
    assert!(response(b"\x15\x03\x01", "GET").is_err());
}

fn answer<'b>(bytes: &'b [u8], method: &str) -> ResponseHead<'b> {
    response(bytes, method).unwrap().unwrap()
}

#[test]
fn frames_responses_by_status_and_method() {
    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bare = b"HTTP/1.1 200\r\n\r\n";
    assert_eq!(answer(length, "POST").framing, Framing::Length(5));
    assert_eq!(answer(chunked, "POST").framing, Framing::Chunked);
    assert_eq!(answer(length, "HEAD").framing, Framing::Empty);
    assert_eq!(answer(chunked, "HEAD").framing, Framing::Empty);
    assert_eq!(answer(bare, "CONNECT").framing, Framing::Empty);
    assert_eq!(answer(bare, "GET").framing, Framing::UntilClose);
    assert!(!answer(bare, "GET").keep_alive && answer(bare, "HEAD").keep_alive);
    for status in ["100 Continue", "103 x", "204 No Content", "304 Not Modified"] {
        let bytes = format!("HTTP/1.1 {status}\r\n\r\n");
        assert_eq!(answer(bytes.as_bytes(), "GET").framing, Framing::Empty, "{status}");
    }
    assert_eq!(answer(b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", "GET").framing, Framing::Empty);
    assert_eq!(answer(b"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", "GET").framing, Framing::Empty);
}

#[test]
fn refuses_doubtful_responses() {
    for head in [
        "HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 x\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 20 x\r\n\r\n",
        "HTTP/1.1 2000 x\r\n\r\n",
        "HTTP/1.1  200 x\r\n\r\n",
        "HTTP/1.1 200 x\n\r\n",
        "\r\nHTTP/1.1 200 x\r\n\r\n",
        "HTTP/1.1 200 x\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 x\r\nA : b\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
    ] {
        assert!(response(head.as_bytes(), "GET").is_err(), "{head:?}");
    }
}

proptest! {
    /// A prefix never gives a different answer than "more": the end of a read does not change a verdict.
    #[test]
    fn gives_the_same_verdict_at_any_split(
        picks in prop::collection::vec(0_usize..PARTS.len(), 0..12), cut in any::<usize>(),
    ) {
        let bytes: Vec<u8> = picks.iter().flat_map(|i| PARTS[*i].as_bytes()).copied().collect();
        let cut = cut % (bytes.len() + 1);
        match request(&bytes[..cut]) {
            Err(_) => prop_assert!(request(&bytes).is_err()),
            Ok(Some(head)) => {
                let whole = request(&bytes).unwrap().unwrap();
                prop_assert_eq!((head.len, head.framing, head.target), (whole.len, whole.framing, whole.target));
            }
            Ok(None) => {}
        }
    }

    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::wire::checks::request_head(&bytes);
        crate::wire::checks::response_head(&bytes);
    }
}

const PARTS: &[&str] = &[
    "POST / HTTP/1.1\r\n",
    "GET /a HTTP/1.0\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 3\n",
    "Transfer-Encoding: chunked\r\n",
    "A: b\r\n",
    " c\r\n",
    "Connection: close\r\n",
    "\r\n",
    "\n",
    "\r",
    "x",
    "abc",
];
