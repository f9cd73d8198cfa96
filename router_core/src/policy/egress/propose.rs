//! From recorded connections to the smallest list that allows them, laid out for review.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::decode::token;
use super::index::above;
use super::path::normal_form;
use super::replay::Row;
use crate::ids::Host;
use crate::limits;
use crate::wire::address::classify;

/// Names below one domain from which on `collapse` writes `*.domain` instead.
const COLLAPSE: usize = 3;

/// A list to review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The text of an `allowlist.json`: sorted, one endpoint per line.
    pub text: String,
    /// Rows that it does not allow, in words: each would need a decision that no recording can make.
    pub left_out: Vec<String>,
}

/// What was seen of one host and port.
#[derive(Default)]
struct Place {
    tunnel: bool,
    methods: BTreeSet<String>,
    /// The segments that all paths start with; `None` when no prefix holds them all.
    segments: Option<Vec<String>>,
}

/// Proposes the allowlist that allows recorded connections, and as little else as a list can say.
///
/// Version 1, unless plain HTTP was seen: that gets its methods and the path prefix that its requests share. A host
/// stands for the names below it, so these are left out where they need no rule of their own. With `collapse`, three or
/// more names of one domain on one port become `*.domain`. Addresses that are not global are left out: to list one is to
/// grant it, and what an agent tried is no reason to.
pub fn propose(rows: &[Row<'_>], collapse: bool) -> Proposal {
    let mut left_out = BTreeSet::new();
    let mut places = BTreeMap::<(Host, u16), Place>::new();
    for row in rows {
        let Some(destination) = row.destination() else {
            left_out.insert(format!(
                "{:?}:{}: no host and port",
                row.host.chars().take(64).collect::<String>(),
                row.port
            ));
            continue;
        };
        let host = canonical(destination.host);
        if let Some(class) = host.ip().map(classify).filter(|class| !class.is_global()) {
            left_out.insert(format!(
                "{host}:{}: a {} address is granted by hand only",
                row.port,
                class.name()
            ));
            continue;
        }
        places.entry((host, row.port)).or_default().see(row);
    }
    if collapse {
        fold(&mut places);
    }
    let open: BTreeSet<(Host, u16)> =
        places.iter().filter(|(_, place)| place.tunnel).map(|(key, _)| key.clone()).collect();
    places.retain(|(host, port), _| {
        let mut above = host.name().into_iter().flat_map(above);
        !above.any(|name| open.contains(&(Host::Name(name.into()), *port)))
    });
    Proposal { text: layout(&places), left_out: left_out.into_iter().collect() }
}

impl Place {
    fn see(&mut self, row: &Row<'_>) {
        // Behind TLS a rule about requests never matches, and a method that is no token cannot be written down.
        let Some((method, path)) = row.request().filter(|(method, _)| row.port != 443 && token(method))
        else {
            self.tunnel = true;
            return;
        };
        let first = self.methods.is_empty();
        self.methods.insert(method.to_owned());
        // Nobody reviews so many, and CONNECT is a tunnel however it was recorded.
        self.tunnel |= self.methods.len() > limits::EGRESS_METHODS || method == "CONNECT";
        let seen = normal_form(path).map(|path| {
            let below = path.trim_start_matches('/');
            // From the first id on, the recording holds the shape and not the path.
            let fixed = below.split('/').take_while(|segment| !segment.is_empty() && *segment != "*");
            fixed.map(str::to_owned).collect::<Vec<_>>()
        });
        self.segments = match (self.segments.take(), seen) {
            (None, seen) if first => seen,
            (Some(known), Some(seen)) => {
                Some(known.into_iter().zip(seen).take_while(|(a, b)| a == b).map(|(a, _)| a).collect())
            }
            _ => None,
        };
    }

    /// The path prefix, where it says anything.
    fn prefix(&self) -> Option<String> {
        let segments = self.segments.as_ref()?;
        let mut prefix = String::new();
        for segment in segments {
            if prefix.len() + 1 + segment.len() > limits::EGRESS_PREFIX_BYTES {
                break;
            }
            prefix.push('/');
            prefix.push_str(segment);
        }
        (!prefix.is_empty()).then_some(prefix)
    }
}

fn canonical(host: Host) -> Host {
    match host {
        Host::Ip(ip) => Host::Ip(IpAddr::to_canonical(&ip)),
        name @ Host::Name(_) => name,
    }
}

/// Puts `*.domain` in the place of the tunnels to many names of one domain.
fn fold(places: &mut BTreeMap<(Host, u16), Place>) {
    let mut families = BTreeMap::<(String, u16), BTreeSet<Host>>::new();
    for ((host, port), _) in places.iter().filter(|(_, place)| place.tunnel) {
        if let Some(domain) = host.name().and_then(domain) {
            families.entry((domain.to_owned(), *port)).or_default().insert(host.clone());
        }
    }
    for ((domain, port), hosts) in families.into_iter().filter(|(_, hosts)| hosts.len() >= COLLAPSE) {
        for host in hosts {
            places.remove(&(host, port));
        }
        // Not a name that anybody can ask for, and the text that the list has for all of them.
        let all = Host::Name(format!("*.{domain}").into());
        places.insert((all, port), Place { tunnel: true, ..Place::default() });
    }
}

/// The domain that a name below it looks registered under: its last two labels, or three where the second looks like a
/// registry's own (`co.uk`, `com.au`). A guess for people to review, as there is no list of registries here.
fn domain(name: &str) -> Option<&str> {
    let mut dots = memchr::memrchr_iter(b'.', name.as_bytes());
    let (last, second, third) = (dots.next()?, dots.next(), dots.next());
    let second = second?;
    let country = name.len() - last - 1 == 2 && last - second - 1 <= 3;
    let at = if country { third? } else { second };
    name.get(at + 1..)
}

fn layout(places: &BTreeMap<(Host, u16), Place>) -> String {
    let shaped = places.values().any(|place| !place.tunnel);
    let mut lines: Vec<(String, u16, String)> = Vec::new();
    for ((host, port), place) in places {
        let mut line = format!(r#"{{"host":"{host}","port":{port}"#);
        if !place.tunnel {
            let methods: Vec<String> = place.methods.iter().map(|m| format!("\"{m}\"")).collect();
            let _ = write!(line, r#","methods":[{}]"#, methods.join(","));
            if let Some(prefix) = place.prefix() {
                let _ = write!(line, r#","pathPrefix":{}"#, serde_json::Value::from(prefix));
            }
        }
        line.push('}');
        lines.push((host.to_string(), *port, line));
    }
    lines.sort();
    let lines: Vec<String> = lines.into_iter().map(|(_, _, line)| format!("    {line}")).collect();
    let endpoints = if lines.is_empty() { "[]".to_owned() } else { format!("[\n{}\n  ]", lines.join(",\n")) };
    format!("{{\n  \"schemaVersion\": {},\n  \"endpoints\": {endpoints}\n}}\n", if shaped { 2 } else { 1 })
}
