use super::*;

#[test]
fn a_url_is_shown_without_its_query() {
    for (url, want) in [
        ("http://a.example", "http://a.example/"),
        ("HTTPS://A.example:8443/p/q?key=s3cret", "https://a.example:8443/p/q"),
        ("http://[::1]/?a", "http://[::1]/"),
    ] {
        assert_eq!(shown(&authority::url(url).unwrap()), want);
    }
}

#[test]
fn a_failure_has_the_word_of_its_step() {
    assert_eq!(failure(Kind::Timeout(Step::Connect)), "connect");
    assert_eq!(failure(Kind::Upstream(Step::Tls)), "tls");
    assert_eq!(failure(Kind::TooLarge { got: 2, max: 1 }), "bytes");
}
