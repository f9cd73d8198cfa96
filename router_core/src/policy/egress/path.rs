//! Path prefixes of plain HTTP rules, and the paths that nobody reads in two ways.
//!
//! A path is compared in the normal form of RFC 3986 §6.2.2: what is encoded without need is decoded, hexadecimal
//! digits are upper-case. Dot segments and empty segments are not resolved but refused, because servers disagree about
//! them; so is what one server decodes and the next does not (`%2F`, `%5C`, `%25`, control characters) and `\`, which
//! some read as `/`.

use crate::limits;

/// A prefix of whole segments; a `/` at its end changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Prefix(Box<str>);

/// Whether a path lies below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    Yes,
    No,
    /// It depends on who reads it.
    Unclear,
}

impl Prefix {
    /// Reads a prefix; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > limits::EGRESS_PREFIX_BYTES {
            return Err("is longer than any path prefix needs to be");
        }
        if !text.starts_with('/') {
            return Err("a path prefix starts with '/'");
        }
        if text.contains('?') {
            return Err("a path prefix has no query: only the path is compared");
        }
        if !clear(text) {
            return Err(
                "can be read in more than one way ('.', '..' or an empty segment, '\\', '#', or one of %2F %5C %25)",
            );
        }
        let normal: String = normal(text).map(char::from).collect();
        Ok(Self(normal.strip_suffix('/').unwrap_or(&normal).into()))
    }

    /// The prefix, without a `/` at its end: empty when it holds every path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request's target lies below, byte for byte. A query is passed over.
    pub fn holds(&self, target: &str) -> Below {
        let path = path_of(target);
        if !clear(path) {
            return Below::Unclear;
        }
        let mut bytes = normal(path);
        let whole = self.0.bytes().all(|b| bytes.next() == Some(b));
        if whole && matches!(bytes.next(), None | Some(b'/')) { Below::Yes } else { Below::No }
    }

    /// Whether any server could read a request's target as one below: in any letter case, however it is encoded, and
    /// with parameters (`;…`) after its segments.
    pub fn touches(&self, target: &str) -> bool {
        let path = path_of(target);
        if !clear(path) {
            return true;
        }
        let mut bytes = loose(path);
        let whole = loose(&self.0).all(|b| bytes.next() == Some(b));
        whole && matches!(bytes.next(), None | Some(b'/'))
    }

    /// Whether every path below `other` lies below this one in the eyes of [`Prefix::touches`].
    pub fn covers(&self, other: &Self) -> bool {
        self.0.is_empty() || !other.0.is_empty() && self.touches(&other.0)
    }
}

/// The normal form of a path that everybody reads in one way; `None` for any other.
pub(super) fn normal_form(target: &str) -> Option<String> {
    let path = path_of(target);
    clear(path).then(|| normal(path).map(char::from).collect())
}

fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

fn clear(path: &str) -> bool {
    let Some(below) = path.strip_prefix('/') else { return false };
    let mut segments = below.split('/');
    // Only the last one may be empty: a path may end in '/'.
    let last = segments.next_back().unwrap_or("");
    segments.all(clear_segment) && (last.is_empty() || clear_segment(last))
}

fn clear_segment(segment: &str) -> bool {
    let mut named = false;
    let mut parameters = false;
    for unit in Units(segment.as_bytes()) {
        let Some(Unit { byte, .. }) = unit else { return false };
        if byte.is_ascii_control() || matches!(byte, b'/' | b'\\' | b'%') {
            return false;
        }
        parameters |= byte == b';';
        // A segment of dots alone walks up, or is dropped, in one server or another; so does one of blanks and dots.
        named |= !parameters && byte != b'.' && byte != b' ';
    }
    named
}

/// One character of a path, decoded.
struct Unit {
    byte: u8,
    encoded: bool,
}

/// The characters of a path; `None` for what is no part of one.
struct Units<'p>(&'p [u8]);

impl Iterator for Units<'_> {
    type Item = Option<Unit>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        if *first != b'%' {
            let fit = first.is_ascii_graphic() && !matches!(first, b'#' | b'?' | b'\\');
            return Some(fit.then_some(Unit { byte: *first, encoded: false }));
        }
        let Some((digits, rest)) = rest.split_at_checked(2) else { return Some(None) };
        self.0 = rest;
        let hex = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let mut values = digits.iter().map(hex);
        let (Some(Some(high)), Some(Some(low))) = (values.next(), values.next()) else { return Some(None) };
        Some(Some(Unit { byte: high << 4 | low, encoded: true }))
    }
}

/// The normal form of a clear path, byte by byte.
fn normal(path: &str) -> impl Iterator<Item = u8> {
    Units(path.as_bytes()).flatten().flat_map(|Unit { byte, encoded }| {
        let plain = !encoded || byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
        let (bytes, len) =
            if plain { ([byte, 0, 0], 1) } else { ([b'%', digit(byte >> 4), digit(byte & 15)], 3) };
        bytes.into_iter().take(len)
    })
}

/// A clear path as a lenient server reads it: all decoded, in lower case, without parameters.
fn loose(path: &str) -> impl Iterator<Item = u8> {
    let mut parameters = false;
    Units(path.as_bytes()).flatten().filter_map(move |Unit { byte, .. }| {
        parameters = byte != b'/' && (parameters || byte == b';');
        (!parameters).then_some(byte.to_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).unwrap()
    }

    #[test]
    fn a_prefix_ends_at_a_segments_end() {
        for (rule, path, holds) in [
            ("/v1", "/v1", true),
            ("/v1", "/v1/", true),
            ("/v1", "/v1/x", true),
            ("/v1", "/v1?q=/v2", true),
            ("/v1", "/v10", false),
            ("/v1", "/V1", false),
            ("/v1", "/v", false),
            ("/v1", "/", false),
            ("/v1", "/v1;x/y", false),
            ("/v1/", "/v1/x", true),
            ("/v1/", "/v10", false),
            ("/", "/", true),
            ("/", "/any/thing?x", true),
            ("/a b".replace(' ', "%20").as_str(), "/a%20b/c", true),
            ("/%7Euser", "/~user/x", true),
            ("/~user", "/%7euser/x", true),
            ("/a%3ab", "/a%3Ab", true),
            ("/a:b", "/a%3Ab", false),
            ("/.well-known", "/.well-known/x", true),
            ("/v1", "/v1/..x", true),
        ] {
            let verdict = if holds { Below::Yes } else { Below::No };
            assert_eq!(prefix(rule).holds(path), verdict, "{rule} {path}");
        }
    }

    const UNCLEAR: &[&str] = &[
        "",
        "*",
        "v1/x",
        "http://x/v1",
        "//v1",
        "/v1//x",
        "/v1/../admin",
        "/v1/./x",
        "/v1/..",
        "/v1/.",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/.%2e/admin",
        "/v1/..;/admin",
        "/v1/..;x=1/admin",
        "/v1/..%3b/admin",
        "/v1/;/x",
        "/v1/.../x",
        "/v1/..%20/x",
        "/v1%2fx",
        "/v1%2F..%2Fadmin",
        "/v1%5c..%5cadmin",
        "/v1\\..\\admin",
        "/v1/%252e%252e/admin",
        "/v1/%25%32%65%25%32%65/admin",
        "/v1/%00",
        "/v1/%0d%0ax",
        "/v1/%7f",
        "/v1/%zz",
        "/v1/%2",
        "/v1/%",
        "/v1#/admin",
        "/v1/\u{e9}",
        "/v1/a b",
        "/v1/a\tb",
    ];

    #[test]
    fn a_path_with_two_readings_is_below_no_prefix_and_above_every_denial() {
        for path in UNCLEAR {
            assert_eq!(prefix("/v1").holds(path), Below::Unclear, "{path}");
            assert_eq!(prefix("/").holds(path), Below::Unclear, "{path}");
            assert!(prefix("/never/there").touches(path), "{path}");
            assert!(Prefix::parse(path).is_err(), "{path}");
            assert_eq!(normal_form(path), None, "{path}");
        }
    }

    #[test]
    fn a_denied_prefix_is_met_in_any_spelling() {
        for path in [
            "/admin",
            "/admin/",
            "/Admin/x",
            "/%61dmin/x",
            "/admin;v=1",
            "/admin;v=1/x",
            "/admin?x",
            "/adm%49n/x",
        ] {
            assert!(prefix("/admin").touches(path), "{path}");
        }
        assert!(prefix("/a:b").touches("/a%3Ab/c") && prefix("/a/b").touches("/a;x/b"));
        for path in ["/", "/admins", "/x/admin", "/adm"] {
            assert!(!prefix("/admin").touches(path), "{path}");
        }
        assert!(prefix("/").touches("/x"));
    }

    #[test]
    fn a_prefix_covers_what_lies_below_it() {
        for (outer, inner, covers) in
            [("/", "/v1", true), ("/v1", "/v1/x", true), ("/v1", "/v10", false), ("/v1", "/", false)]
        {
            assert_eq!(prefix(outer).covers(&prefix(inner)), covers, "{outer} {inner}");
        }
    }

    /// A server that resolves dot segments after decoding everything, as many times as it can.
    fn careless(path: &str) -> String {
        let mut text = path_of(path).to_owned();
        for _ in 0..3 {
            let bytes = text.clone().into_bytes();
            let mut out = Vec::new();
            for unit in Units(&bytes) {
                out.push(unit.map_or(b'?', |u| u.byte));
            }
            text = String::from_utf8_lossy(&out).replace('\\', "/");
        }
        let mut stack: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            match segment.split(';').next().unwrap_or("") {
                "" | "." => {}
                ".." => drop(stack.pop()),
                name => stack.push(name),
            }
        }
        format!("/{}", stack.join("/"))
    }

    proptest! {
        #[test]
        fn no_server_reads_an_allowed_path_as_one_outside_of_the_prefix(
            tail in "[a-c./;%\\\\?#]{0,6}(%2e|%2F|%5c|%252e|\\.\\.|/|;|a){0,6}"
        ) {
            let path = format!("/v1{tail}");
            if prefix("/v1").holds(&path) == Below::Yes {
                let read = careless(&path);
                prop_assert!(read == "/v1" || read.starts_with("/v1/"), "{path} is read as {read}");
            }
        }

        #[test]
        fn no_spelling_of_a_denied_path_escapes_the_denial(
            path in "/?(v1|%761|V1)?[a-c./;%\\\\]{0,3}(%2e|%2F|%5c|\\.\\.|/|;|v1|%761){0,6}"
        ) {
            let read = careless(&path).to_ascii_lowercase();
            if read == "/v1" || read.starts_with("/v1/") {
                prop_assert!(prefix("/v1").touches(&path), "{path} is read as {read}");
            }
        }

        #[test]
        fn any_text_has_one_verdict(rule in "\\PC{0,12}", path in "\\PC{0,16}") {
            if let Ok(prefix) = Prefix::parse(&rule) {
                prop_assert!(prefix.holds(&rule) == Below::Yes && prefix.touches(&rule), "a prefix holds itself");
                prop_assert!(prefix.holds(&path) != Below::Yes || prefix.touches(&path), "what is held is touched");
            }
        }
    }
}
