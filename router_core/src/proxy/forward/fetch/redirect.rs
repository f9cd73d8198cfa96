//! Where a redirect leads: the text of a URL, to be read and decided about like any other.

use crate::wire::authority::Url;

/// The URL that `location` names, seen from `base` (RFC 3986 §5.2), without its fragment; `None` where it names nothing
/// that HTTP can fetch.
pub fn resolve(base: &Url<'_>, location: &[u8]) -> Option<String> {
    let location = std::str::from_utf8(location).ok()?;
    let location = location.split('#').next().unwrap_or("");
    let scheme = if base.tls { "https" } else { "http" };
    if location.is_empty() {
        return None;
    }
    if let Some(at) = location.find([':', '/', '?']).filter(|at| location.get(*at..*at + 1) == Some(":")) {
        let (given, rest) = location.split_at_checked(at)?;
        let web = given.eq_ignore_ascii_case("http") || given.eq_ignore_ascii_case("https");
        return (web && rest.starts_with("://")).then(|| location.to_owned());
    }
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let (path, _) = base.target.split_once('?').unwrap_or((&base.target, ""));
    let port = base.authority.port.map(|port| format!(":{port}")).unwrap_or_default();
    let origin = format!("{scheme}://{}{port}", base.authority.host);
    if location.starts_with('?') {
        return Some(format!("{origin}{path}{location}"));
    }
    let (given, query) =
        location.find('?').and_then(|at| location.split_at_checked(at)).unwrap_or((location, ""));
    let whole = match given.strip_prefix('/') {
        Some(_) => given.to_owned(),
        None => format!("{}/{given}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    Some(format!("{origin}{}{query}", without_dots(&whole)))
}

/// A path without `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::authority;

    #[test]
    fn a_location_is_read_as_rfc_3986_has_it() {
        let base = "http://a:81/b/c/d?q";
        for (location, want) in [
            ("http://x.example/y", Some("http://x.example/y")),
            ("HTTPS://x.example", Some("HTTPS://x.example")),
            ("//x.example/y", Some("http://x.example/y")),
            ("/y?z=1", Some("http://a:81/y?z=1")),
            ("y", Some("http://a:81/b/c/y")),
            ("./y/", Some("http://a:81/b/c/y/")),
            ("../y", Some("http://a:81/b/y")),
            ("../../../y", Some("http://a:81/y")),
            ("..", Some("http://a:81/b/")),
            ("/a/./b/../c", Some("http://a:81/a/c")),
            ("?r", Some("http://a:81/b/c/d?r")),
            ("y?a=../b", Some("http://a:81/b/c/y?a=../b")),
            ("y#part", Some("http://a:81/b/c/y")),
            ("http://x.example#.a/", Some("http://x.example")),
            ("#part", None),
            ("", None),
            ("file:///etc/passwd", None),
            ("http:y", None),
            ("javascript:alert(1)", None),
        ] {
            let base = authority::url(base).unwrap();
            assert_eq!(resolve(&base, location.as_bytes()).as_deref(), want, "{location}");
        }
    }

    #[test]
    fn a_location_that_two_parsers_read_differently_is_no_url() {
        let base = authority::url("http://a/").unwrap();
        for location in
            ["http://evil.example\\.a/", "http://a@evil.example/", "http:// evil.example/", "http:///y"]
        {
            let text = resolve(&base, location.as_bytes()).unwrap();
            assert!(authority::url(&text).is_err(), "{location}");
        }
    }
}
