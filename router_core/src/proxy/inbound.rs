//! A client's request as the doors see it, whichever HTTP version carried it.

use http::HeaderMap;

use crate::wire::head::Fields;

/// Header fields of either HTTP version.
#[derive(Debug, Clone, Copy)]
pub enum FieldsRef<'a> {
    /// HTTP/1.1.
    H1(&'a Fields<'a>),
    /// HTTP/2.
    H2(&'a HeaderMap),
}

impl<'a> FieldsRef<'a> {
    /// The first value of `name` (lower case).
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        match self {
            Self::H1(fields) => fields.value(name),
            Self::H2(map) => map.get(name).map(http::HeaderValue::as_bytes),
        }
    }

    /// Visits every field in order.
    pub fn each(&self, mut visit: impl FnMut(&'a str, &'a [u8])) {
        match self {
            Self::H1(fields) => fields.iter().for_each(|f| visit(f.name, f.value)),
            Self::H2(map) => map.iter().for_each(|(name, value)| visit(name.as_str(), value.as_bytes())),
        }
    }

    /// Whether the list field `name` holds `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        match self {
            Self::H1(fields) => fields.lists(name, token),
            Self::H2(_) => false,
        }
    }
}

/// One request, complete with its body.
#[derive(Debug, Clone, Copy)]
pub struct Inbound<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// The header fields.
    pub fields: FieldsRef<'a>,
    /// The body, decoded from its transfer coding.
    pub body: &'a [u8],
}

/// Splits a request target in origin-form or absolute-form into path and query; `None` when it is neither.
pub fn split_target(target: &str) -> Option<(&str, Option<&str>)> {
    let origin = if target.starts_with('/') {
        target
    } else {
        let (_, rest) = target.split_once("://")?;
        rest.find('/').map_or("/", |at| rest.get(at..).unwrap_or("/"))
    };
    Some(match origin.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin, None),
    })
}

#[cfg(test)]
mod tests {
    use super::split_target;

    #[test]
    fn splits_both_target_forms() {
        assert_eq!(split_target("/v1/models?x=1"), Some(("/v1/models", Some("x=1"))));
        assert_eq!(split_target("http://router:8443/v1/models"), Some(("/v1/models", None)));
        assert_eq!(split_target("http://router:8443"), Some(("/", None)));
        assert_eq!(split_target("*"), None);
    }
}
