//! What a client asks to be fetched.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::limits;
use crate::proxy::local::egress::object;

/// A fetch as it was asked for, within its bounds; the URL is not read yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// As written.
    pub url: String,
    /// One of [`METHODS`].
    pub method: &'static str,
    /// Fields that may travel, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Redirects to follow.
    pub follow: u8,
}

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];

/// Fields that the router sets itself, that concern one hop only (RFC 9110 §7.6.1), or that would ask a server for another
/// protocol or a pause.
const OURS: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[derive(Deserialize)]
struct Document {
    url: Option<String>,
    method: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    body: Option<String>,
    follow: Option<u8>,
}

impl Ask {
    /// Reads `{"url", "method"?, "headers"?, "body"?, "follow"?}`; other members are passed over. The error is for the
    /// client and repeats no value.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let Document { url, method, headers, body, follow } = object(body)?;
        let url = url.ok_or("Missing 'url' field")?;
        if url.len() > limits::FETCH_URL_BYTES {
            return Err(format!("'url' is longer than {} bytes", limits::FETCH_URL_BYTES));
        }
        let follow = follow.unwrap_or(0);
        if follow > limits::FETCH_REDIRECTS {
            return Err(format!("'follow' is a number from 0 to {}", limits::FETCH_REDIRECTS));
        }
        let asked = method.unwrap_or_default();
        let method = METHODS.into_iter().find(|m| m.eq_ignore_ascii_case(&asked)).unwrap_or("GET");
        let fields = fields(headers.unwrap_or_default())?;
        Ok(Self { url, method, fields, body: body.unwrap_or_default().into_bytes(), follow })
    }
}

fn fields(headers: BTreeMap<String, String>) -> Result<Vec<(String, String)>, String> {
    if headers.len() > limits::FETCH_FIELDS {
        return Err(format!("there are more than {} headers", limits::FETCH_FIELDS));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits::FETCH_FIELD_BYTES {
        return Err(format!("the headers are larger than {} bytes", limits::FETCH_FIELD_BYTES));
    }
    let mut fields = Vec::with_capacity(headers.len() + 2);
    for (at, (name, value)) in headers.into_iter().enumerate() {
        let number = at + 1;
        let valid = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("header {number} has a name that is no header name"))?;
        HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("the value of header {valid} is no header value"))?;
        if !OURS.contains(&valid.as_str()) {
            fields.push((valid.as_str().to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }
    for (name, value) in [("accept", "*/*"), ("user-agent", concat!("kars/", env!("CARGO_PKG_VERSION")))] {
        if !fields.iter().any(|(n, _)| n == name) {
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(fields)
}

/// Whether a field is a credential: it stays behind when a redirect leads to another origin.
pub fn is_credential(name: &str) -> bool {
    name.starts_with("authorization")
        || name.starts_with("cookie")
        || ["key", "token", "secret", "authorization", "password", "session"]
            .iter()
            .any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ask: &Ask) -> Vec<&str> {
        ask.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_bare_url_is_a_get_that_follows_nothing() {
        let ask = Ask::read(b"{\"url\":\"http://a.example/\"}").unwrap();
        assert_eq!((ask.method, ask.follow, ask.body.len()), ("GET", 0, 0));
        assert_eq!(names(&ask), ["accept", "user-agent"]);
    }

    #[test]
    fn other_methods_become_get() {
        for (method, want) in [("post", "POST"), ("HEAD", "HEAD"), ("CONNECT", "GET"), ("GET / X", "GET")] {
            let ask = Ask::read(format!("{{\"url\":\"u\",\"method\":\"{method}\"}}").as_bytes()).unwrap();
            assert_eq!(ask.method, want);
        }
    }

    #[test]
    fn fields_of_the_connection_stay_and_the_others_travel() {
        let body = br#"{"url":"u","headers":{"Host":"x","TE":"t","Upgrade":"h2c","Content-Length":"1","X-A":" b ",
            "Transfer-Encoding":"chunked","Proxy-Authorization":"p","Accept":"a/b","Expect":"100-continue"}}"#;
        let ask = Ask::read(body).unwrap();
        assert_eq!(names(&ask), ["accept", "x-a", "user-agent"]);
        assert!(ask.fields.contains(&("x-a".to_owned(), "b".to_owned())));
    }

    #[test]
    fn a_field_that_would_end_its_line_is_refused_without_its_value() {
        for headers in [
            r#"{"a\r\nb":"s3cret"}"#,
            r#"{"a":"s3cret\r\nhost: b"}"#,
            r#"{"a":"s3cret\nb"}"#,
            r#"{"a b":"s3cret"}"#,
            r#"{"":"s3cret"}"#,
            r#"{"a:":"s3cret"}"#,
            r#"{"a":"s3cret\u0000"}"#,
            r#"{"a":5}"#,
        ] {
            let error = Ask::read(format!("{{\"url\":\"u\",\"headers\":{headers}}}").as_bytes()).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn every_amount_has_its_bound() {
        let url = "u".repeat(limits::FETCH_URL_BYTES + 1);
        let many: Vec<String> = (0..=limits::FETCH_FIELDS).map(|n| format!("\"h{n}\":\"\"")).collect();
        let long = "v".repeat(limits::FETCH_FIELD_BYTES);
        for body in [
            format!("{{\"url\":\"{url}\"}}"),
            format!("{{\"url\":\"u\",\"headers\":{{{}}}}}", many.join(",")),
            format!("{{\"url\":\"u\",\"headers\":{{\"h\":\"{long}\"}}}}"),
            "{\"url\":\"u\",\"follow\":6}".to_owned(),
            "{\"url\":\"u\",\"follow\":-1}".to_owned(),
        ] {
            assert!(Ask::read(body.as_bytes()).is_err());
        }
        assert_eq!(Ask::read(b"{}").unwrap_err(), "Missing 'url' field");
        assert_eq!(Ask::read(b"{\"url\":\"u\",\"follow\":5}").unwrap().follow, 5);
    }

    #[test]
    fn credentials_are_known_by_their_names() {
        for name in ["authorization", "cookie", "x-api-key", "api-key", "x-auth-token", "x-goog-api-key"] {
            assert!(is_credential(name), "{name}");
        }
        for name in ["accept", "content-type", "x-request-id", "user-agent"] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
