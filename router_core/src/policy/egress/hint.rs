//! The nearest change that would allow a connection, in one line that an operator, or the model itself, can act on.

use std::collections::HashMap;

use time::format_description::well_known::Rfc3339;

use super::endpoint::{Endpoint, Fit, Pattern};
use super::index::{List, Shelf, above};
use super::{Ask, Egress, decode};
use crate::ids::{Destination, Host};
use crate::telemetry::calendar;

/// Entries for one name that are looked at: more would not make the hint better, and a denial must stay cheap.
const LOOKS: usize = 256;
/// Ports that a hint names.
const PORTS: usize = 4;

/// For each name above a listed one, which endpoint of the allowlist is below it: the first that is written.
#[derive(Debug, Default)]
pub(super) struct Relatives(HashMap<Box<str>, usize>);

impl Relatives {
    pub fn new(endpoints: &[Endpoint]) -> Self {
        let mut first = HashMap::new();
        for (at, name) in endpoints.iter().enumerate().filter_map(|(at, e)| Some((at, e.host.name()?))) {
            for above in ancestors(name) {
                if first.contains_key(above) {
                    // Whoever came here before went all the way up.
                    break;
                }
                first.insert(above.into(), at);
            }
        }
        Self(first)
    }

    fn of(&self, name: &str) -> Option<usize> {
        let above = std::iter::once(name).chain(ancestors(name).take(1));
        above.into_iter().find_map(|name| self.0.get(name).copied())
    }
}

/// The names above a name that somebody may own: at least two labels.
fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    above(name).take_while(|name| name.contains('.'))
}

/// What came nearest, the nearest first.
enum Near<'p> {
    /// An approval that is not in force yet.
    Early(&'p Endpoint),
    /// An approval that is over.
    Late(&'p Endpoint),
    /// The destination is listed, for other requests.
    Request(&'p Endpoint, Fit),
    /// The host is listed, for other ports.
    Port(&'p Endpoint),
    /// The names below are listed, or only the name above.
    Breadth(&'p Endpoint),
}

impl Near<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Early(_) => 0,
            Self::Late(_) => 1,
            Self::Request(..) => 2,
            Self::Port(_) => 3,
            Self::Breadth(_) => 4,
        }
    }
}

/// The nearest change for a connection that nothing allows.
pub(super) fn nearest(policy: &Egress, ask: &Ask<'_>) -> String {
    let mut nearest: Option<Near<'_>> = None;
    for shelf in policy.index.walk(&ask.destination.host) {
        for near in shelf.all().take(LOOKS).filter_map(|entry| {
            let endpoint = policy.endpoint(entry).filter(|_| entry.list != List::Deny)?;
            let here = entry.port == ask.destination.port;
            near(endpoint, here, shelf.reaches(entry), ask)
        }) {
            if nearest.as_ref().is_none_or(|known| near.rank() < known.rank()) {
                nearest = Some(near);
            }
        }
    }
    match nearest {
        Some(near) => tell(&near, policy, ask),
        None => apart(policy, ask.destination),
    }
}

fn near<'p>(endpoint: &'p Endpoint, here: bool, reaches: bool, ask: &Ask<'_>) -> Option<Near<'p>> {
    let fit = endpoint.fit(ask.request);
    let live = endpoint.live(ask.now);
    match (reaches, here, live) {
        (true, true, true) => Some(Near::Request(endpoint, fit)),
        (true, true, false) if fit != Fit::Fits => None,
        (true, true, false) if ask.now < endpoint.effective_at => Some(Near::Early(endpoint)),
        (true, true, false) => Some(Near::Late(endpoint)),
        (true, false, true) => Some(Near::Port(endpoint)),
        (false, true, true) => Some(Near::Breadth(endpoint)),
        _ => None,
    }
}

fn tell(near: &Near<'_>, policy: &Egress, ask: &Ask<'_>) -> String {
    let destination = ask.destination;
    let add = format!("add {}", entry(destination));
    match near {
        Near::Early(endpoint) => {
            format!(
                "{} allows it from {}; wait, or {add} to allowlist.json",
                at(endpoint),
                time(endpoint.effective_at)
            )
        }
        Near::Late(endpoint) => {
            let end = endpoint.rule.expires_at.unwrap_or_default();
            let path = at(endpoint);
            format!(
                "{path} allowed it until {}; ask for a new EgressApproval, or {add} to allowlist.json",
                time(end)
            )
        }
        Near::Request(endpoint, fit) => request(endpoint, *fit, &add, ask),
        Near::Port(endpoint) => {
            let ports = ports(policy, endpoint, ask);
            format!("{} allows {} on {ports} only; {add}", at(endpoint), endpoint.host)
        }
        Near::Breadth(endpoint) => match &endpoint.host {
            Pattern::Below(name) => {
                format!("{} allows the names below {name}, not {name} itself; {add}", at(endpoint))
            }
            host => format!(
                "{} allows {host} and no name below it; {add}, or take \"subdomains\": false out of it",
                at(endpoint)
            ),
        },
    }
}

fn request(endpoint: &Endpoint, fit: Fit, add: &str, ask: &Ask<'_>) -> String {
    let path = at(endpoint);
    let what = endpoint.shape.as_ref().map(ToString::to_string).unwrap_or_default();
    match (fit, ask.request) {
        (Fit::Method, Some((method, _))) if decode::token(method) => {
            format!("{path} allows {what} only; add {method:?} to its methods")
        }
        // Only a recording lacks a path.
        (Fit::UnclearPath, Some((_, ""))) => {
            format!("{path} allows {what} only, and no path was recorded to hold against it")
        }
        (Fit::UnclearPath, _) => format!(
            "{path} allows {what} only, and servers read this path in different ways: send it without empty and dot \
             segments, '\\', %2F, %5C and %25"
        ),
        (Fit::Tunnel, _) => {
            format!("{path} allows plain HTTP only ({what}): send the request without CONNECT, or {add}")
        }
        _ => format!("{path} allows {what} only; widen its pathPrefix, or {add}"),
    }
}

/// The ports on which the host of an endpoint is listed.
fn ports(policy: &Egress, endpoint: &Endpoint, ask: &Ask<'_>) -> String {
    let same = |shelf: Shelf<'_>| {
        let entries = shelf.all().take(LOOKS).filter(|entry| {
            let other = policy.endpoint(entry).filter(|_| entry.list != List::Deny);
            other.is_some_and(|other| other.host == endpoint.host && other.live(ask.now))
        });
        entries.map(|entry| entry.port).collect::<Vec<u16>>()
    };
    let mut ports: Vec<u16> = policy.index.walk(&ask.destination.host).flat_map(same).collect();
    ports.dedup();
    let more = if ports.len() > PORTS { ", …" } else { "" };
    let noun = if ports.len() == 1 { "port" } else { "ports" };
    let shown: Vec<String> = ports.iter().take(PORTS).map(ToString::to_string).collect();
    format!("{noun} {}{more}", shown.join(", "))
}

/// For a host of which nothing is listed.
fn apart(policy: &Egress, destination: &Destination) -> String {
    let add = format!("add {} to allowlist.json, or ask for an EgressApproval", entry(destination));
    let relative = destination.host.name().and_then(|name| policy.relatives.of(name));
    match relative.and_then(|at| policy.allowlist.endpoints.get(at)) {
        Some(endpoint) => {
            format!(
                "{} allows {}, which does not include {}; {add}",
                at(endpoint),
                endpoint.host,
                destination.host
            )
        }
        None => add,
    }
}

/// The entry that allows a destination, as a list has it.
fn entry(destination: &Destination) -> String {
    let Destination { host, port } = destination;
    match host {
        Host::Ip(ip) if decode::barred(*ip).is_some() => {
            format!(r#"{{"host":"{host}","port":{port},"addresses":["{}"]}}"#, ip.to_canonical())
        }
        _ => format!(r#"{{"host":"{host}","port":{port}}}"#),
    }
}

fn at(endpoint: &Endpoint) -> &str {
    &endpoint.rule.path
}

fn time(secs: u64) -> String {
    calendar::utc(secs).format(&Rfc3339).unwrap_or_default()
}
