//! One entry of a list: a host, a port, and what a plain HTTP request to it may look like.

use std::net::IpAddr;

use super::Rule;
use super::path::{Below, Prefix};

/// The hosts that an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Pattern {
    /// This name only.
    Exact(Box<str>),
    /// The names below this one.
    Below(Box<str>),
    /// This name and the names below it.
    Tree(Box<str>),
    /// This address, IPv4-mapped ones as IPv4.
    Ip(IpAddr),
}

/// What a plain HTTP request has to be like. Nobody sees a request in a tunnel, so no tunnel fits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Methods, sorted; empty for any.
    pub methods: Vec<Box<str>>,
    /// Where the path starts.
    pub prefix: Option<Prefix>,
}

/// How far a request fits a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    Tunnel,
    Method,
    Path,
    UnclearPath,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub rule: Rule,
    pub host: Pattern,
    /// `None` for any, in deny rules only.
    pub port: Option<u16>,
    pub shape: Option<Shape>,
    /// Unix seconds from which it holds.
    pub effective_at: u64,
}

impl Pattern {
    /// The name, when it is about names.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Exact(name) | Self::Below(name) | Self::Tree(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// What the index files it under.
    pub fn shelf(&self) -> String {
        self.name().map_or_else(|| self.to_string(), str::to_owned)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) | Self::Tree(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Ip(ip) => crate::ids::Host::Ip(*ip).fmt(f),
        }
    }
}

impl Shape {
    fn fit(&self, (method, target): (&str, &str)) -> Fit {
        if !self.methods.is_empty() && !self.methods.iter().any(|m| **m == *method) {
            return Fit::Method;
        }
        match self.prefix.as_ref().map(|prefix| prefix.holds(target)) {
            None | Some(Below::Yes) => Fit::Fits,
            Some(Below::No) => Fit::Path,
            Some(Below::Unclear) => Fit::UnclearPath,
        }
    }

    fn touches(&self, (method, target): (&str, &str)) -> bool {
        let named = self.methods.is_empty() || self.methods.iter().any(|m| m.eq_ignore_ascii_case(method));
        named && self.prefix.as_ref().is_none_or(|prefix| prefix.touches(target))
    }

    /// Whether a denial of this shape refuses every request of `other`.
    fn covers(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || !other.methods.is_empty()
                && other.methods.iter().all(|m| self.methods.iter().any(|own| own.eq_ignore_ascii_case(m)));
        methods
            && match (&self.prefix, &other.prefix) {
                (None, _) => true,
                (Some(own), Some(other)) => own.covers(other),
                (Some(own), None) => own.as_str().is_empty(),
            }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let methods = if self.methods.is_empty() { "requests".to_owned() } else { self.methods.join(", ") };
        match &self.prefix {
            None => f.write_str(&methods),
            Some(prefix) if prefix.as_str().is_empty() => write!(f, "{methods} below /"),
            Some(prefix) => write!(f, "{methods} below {}", prefix.as_str()),
        }
    }
}

impl Endpoint {
    /// How far a request fits; `None` is a tunnel.
    pub fn fit(&self, request: Option<(&str, &str)>) -> Fit {
        match (&self.shape, request) {
            (None, _) => Fit::Fits,
            (Some(_), None) => Fit::Tunnel,
            (Some(shape), Some(request)) => shape.fit(request),
        }
    }

    /// Whether it refuses a request, where it is a deny rule. What cannot be seen or be read in one way only is refused:
    /// else a tunnel to the same port, or an odd spelling, would get around it.
    pub fn refuses(&self, request: Option<(&str, &str)>) -> bool {
        match (&self.shape, request) {
            (None, _) | (Some(_), None) => true,
            (Some(shape), Some(request)) => shape.touches(request),
        }
    }

    /// Whether this deny rule leaves nothing of `other`, whose host and port it is known to hold.
    pub fn leaves_nothing_of(&self, other: &Self) -> bool {
        match (&self.shape, &other.shape) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.covers(other),
        }
    }

    /// Whether it holds at a moment.
    pub fn live(&self, now: u64) -> bool {
        self.effective_at <= now && self.rule.expires_at.is_none_or(|end| now < end)
    }
}
