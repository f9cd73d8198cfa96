use proptest::prelude::*;

use super::*;
use crate::wire::checks;

fn read_text(text: &str) -> String {
    let Authority { host, port } = authority(text.as_bytes()).unwrap();
    format!("{host} {}", port.map_or("-".to_owned(), |port| port.to_string()))
}

#[test]
fn reads_hosts_and_ports() {
    for (text, expected) in [
        ("a", "a -"),
        ("a:1", "a 1"),
        ("Example.COM.:443", "example.com 443"),
        ("a:65535", "a 65535"),
        ("a:00080", "a 80"),
        ("1.2.3.4:80", "1.2.3.4 80"),
        ("[::1]", "[::1] -"),
        ("[2001:DB8::1]:8080", "[2001:db8::1] 8080"),
    ] {
        assert_eq!(read_text(text), expected, "{text}");
        assert!(well_formed(text.as_bytes()), "{text}");
    }
    assert_eq!(authority(b"a").unwrap().destination(443).to_string(), "a:443");
    assert_eq!(authority(b"a:80").unwrap().destination(443).to_string(), "a:80");
}

#[test]
fn refuses_hostile_authorities_and_says_what_to_write() {
    for (text, expected) in [
        (&b""[..], "has no host"),
        (b":443", "has no host"),
        (b"a@b", "user info"),
        (b"a:b@c:443", "user info"),
        (b"a@[::1]:1", "user info"),
        (b"a:", "a port that is not 1 to 65535"),
        (b"a:0", "a port that is not"),
        (b"a:65536", "a port that is not"),
        (b"a:000443", "a port that is not"),
        (b"a:+443", "a port that is not"),
        (b"a:-1", "a port that is not"),
        (b"a: 443", "a port that is not"),
        (b"a:443 ", "a port that is not"),
        (b"a:https", "a port that is not"),
        ("a:\u{ff14}43".as_bytes(), "a port that is not"),
        (b"a:1:2", "more than one ':'"),
        (b"x::1", "more than one ':'"),
        (b"::1", "without brackets"),
        (b"fe80::1:443", "without brackets"),
        (b"[::1", "[ without ]"),
        (b"[::1]443", "text after ]"),
        (b"[::1]]:443", "text after ]"),
        (b"[]:443", "no IPv6 address"),
        (b"[::1%25eth0]", "zone"),
        (b"a#b:443", "no DNS name"),
        (b"a\\b:443", "no DNS name"),
        (b"a/b:443", "no DNS name"),
        (b"a%2eb:443", "has a %"),
        (b"a\tb:443", "white space or a control"),
        (b"a\xff:443", "xn-- form"),
        (b"127.1:80", "four decimal parts"),
        (b"http://a:80", "more than one ':'"),
    ] {
        let shown = String::from_utf8_lossy(text);
        let error = authority(text).unwrap_err();
        assert!(
            error.detail().starts_with("the authority ") && error.detail().contains(expected),
            "{shown}: {error}"
        );
        assert!(!well_formed(text), "{shown}");
    }
}

#[test]
fn reads_urls() {
    for (text, tls, host, port, target) in [
        ("http://a", false, "a", 80, "/"),
        ("HTTPS://A", true, "a", 443, "/"),
        ("https://a?x=1", true, "a", 443, "/?x=1"),
        ("http://a:8080/b?c=d@e:1", false, "a", 8080, "/b?c=d@e:1"),
        ("https://[::1]:1//x", true, "[::1]", 1, "//x"),
        ("https://a/http://b", true, "a", 443, "/http://b"),
    ] {
        let url = url(text).unwrap();
        assert_eq!((url.tls, url.port(), &*url.target), (tls, port, target), "{text}");
        assert_eq!(url.authority.host.to_string(), host, "{text}");
        assert!(well_formed_url(text.as_bytes()), "{text}");
    }
}

#[test]
fn refuses_urls_on_which_parsers_differ() {
    for (text, expected) in [
        ("", "is no URL"),
        ("a", "is no URL"),
        ("//a/", "is no URL"),
        ("http:a", "is no URL"),
        ("http:/a", "is no URL"),
        ("http:\\\\a", "is no URL"),
        ("ftp://a", "a scheme other than"),
        (" http://a", "a scheme other than"),
        ("x:http://a", "a scheme other than"),
        ("://a", "a scheme other than"),
        ("http://", "has no host"),
        ("http:///a", "has no host"),
        ("http://?a", "has no host"),
        ("http://:80/", "has no host"),
        ("http://a@b/", "user info"),
        ("http://a:b@c/", "user info"),
        ("http://@a/", "user info"),
        ("http://evil.example#.allowed.example/", "another character that no URL has"),
        ("http://evil.example\\.allowed.example/", "another character that no URL has"),
        ("http://evil.example\\@allowed.example/", "another character that no URL has"),
        ("http://a/#b", "another character that no URL has"),
        ("http://a/b c", "another character that no URL has"),
        ("http://a\t/", "another character that no URL has"),
        ("http://a/\u{e9}", "another character that no URL has"),
        ("http://a\u{3002}b/", "xn-- form"),
        ("http://http://a/", "a port that is not"),
        ("http://a%2fb/", "has a %"),
        ("http://a:80:80/", "more than one ':'"),
        ("http://0x7f.1/", "four decimal parts"),
    ] {
        let error = url(text).unwrap_err();
        assert!(
            error.detail().starts_with("the URL ") && error.detail().contains(expected),
            "{text:?}: {error}"
        );
        assert!(!well_formed_url(text.as_bytes()), "{text:?}");
    }
}

proptest! {
    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        checks::authority(&bytes);
    }

    #[test]
    fn survives_what_is_nearly_right(
        text in "(https?://)?(u@)?(\\[?[0-9a-fx:.]{0,12}\\]?|[a-z0-9.-]{1,12}|127\\.[01.]{1,5})(:[0-9+]{0,6})?([/?#][!-~]{0,6})?",
    ) {
        checks::authority(text.as_bytes());
    }
}
