//! The strict decoders of `allowlist.json` and `approval-<name>.json`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::endpoint::{Endpoint, Pattern, Shape};
use super::index::{Index, List, covering};
use super::path::Prefix;
use super::{Allowlist, Approval, Rule};
use crate::error::{Error, Result};
use crate::ids::{Host, SandboxName};
use crate::limits;
use crate::policy::document::{self, Fields, Node, shown, wrong};
use crate::wire::address::{Cidr, Class, classify};

/// Kubernetes keeps integers as int64, so nothing above can have come through the API server.
const MOST_BYTES: u64 = i64::MAX as u64;
/// Longest text for people: a reason, a ticket, a comment.
const TEXT_BYTES: usize = 4096;
/// Longest host as written: a DNS name, with `*.` before and a dot behind it.
const HOST_BYTES: usize = 256;

/// Members of an allowlist.
pub(super) const LIST: &[&str] = &["schemaVersion", "endpoints", "deny"];
/// Members of an approval.
pub(super) const APPROVAL: &[&str] =
    &["schemaVersion", "approvalName", "sandbox", "hosts", "reason", "ticket", "effectiveAt", "expiresAt"];
/// Members of an endpoint that need version 2.
pub(super) const NEWER: &[&str] =
    &["subdomains", "methods", "pathPrefix", "addresses", "maxBytes", "comment"];
/// Members of an endpoint.
pub(super) const ENDPOINT: &[&str] =
    &["host", "port", "subdomains", "methods", "pathPrefix", "addresses", "maxBytes", "comment"];
/// Members of a deny rule.
const DENIAL: &[&str] = &["host", "port", "subdomains", "methods", "pathPrefix", "comment"];

pub(super) fn allowlist(bytes: &[u8]) -> Result<Allowlist> {
    let decode = || {
        let root = document::read(bytes)?;
        let root = Root::open(&root, LIST, &["deny"])?;
        let section = Section { key: "endpoints", stem: "allowlist", denial: false, time: None };
        root.fields
            .get(section.key)
            .ok_or_else(|| root.fields.wrong(section.key, "is required; [] allows nothing"))?;
        let (endpoints, written) = section.read(&root)?;
        let (deny, _) = Section { key: "deny", denial: true, ..section }.read(&root)?;
        uncovered(&endpoints, &deny)?;
        Ok(Allowlist { endpoints, deny, written })
    };
    decode().map_err(|e: Error| in_file("allowlist.json", &e))
}

pub(super) fn approval(file: &str, bytes: &[u8]) -> Result<Approval> {
    let file = shown(file);
    let decode = || {
        let root = document::read(bytes)?;
        let root = Root::open(&root, APPROVAL, &[])?;
        let fields = &root.fields;
        let required =
            |key: &str, most| fields.text(key, 1..=most)?.ok_or_else(|| fields.wrong(key, "is required"));
        let sandbox = SandboxName::parse(required("sandbox", 63)?);
        let sandbox = sandbox.map_err(|e| fields.wrong("sandbox", e.detail()))?.as_str().to_owned();
        let name = shown(required("approvalName", 253)?);
        required("reason", TEXT_BYTES)?;
        fields.text("ticket", 0..=TEXT_BYTES)?;
        let effective_at = moment(fields, "effectiveAt")?;
        let expires_at = moment(fields, "expiresAt")?;
        if expires_at <= effective_at {
            return Err(fields.wrong("expiresAt", "is not after effectiveAt, so it never holds"));
        }
        let stem = file.strip_suffix(".json").unwrap_or(&file);
        let time = Some((effective_at, expires_at));
        let (hosts, written) = Section { key: "hosts", stem, denial: false, time }.read(&root)?;
        if hosts.is_empty() {
            return Err(fields.wrong("hosts", "is empty, so nothing is approved"));
        }
        Ok(Approval { name, sandbox, effective_at, expires_at, hosts, written })
    };
    decode().map_err(|e: Error| in_file(&file, &e))
}

/// The document's members, and whether those of version 2 may be among them.
struct Root<'n> {
    fields: Fields<'n>,
    newer: bool,
}

impl<'n> Root<'n> {
    fn open(node: &'n Node, members: &[&str], newer: &[&str]) -> Result<Self> {
        let fields = Fields::any(node, String::new())?;
        let version = fields.number("schemaVersion", 0..=u64::MAX)?;
        let version = match version {
            Some(version @ 1..=2) => version,
            Some(_) => return Err(fields.wrong("schemaVersion", "this router reads versions 1 and 2")),
            None => {
                return Err(fields.wrong("schemaVersion", "is required: 1, or 2 for what version 1 has not"));
            }
        };
        let root = Self { fields, newer: version == 2 };
        root.admit(&root.fields, members, newer)?;
        Ok(root)
    }

    /// Refuses a member that is not known, or not in the document's version.
    fn admit(&self, fields: &Fields<'_>, members: &[&str], newer: &[&str]) -> Result<()> {
        for (key, _) in fields.members() {
            if !members.contains(&key.as_str()) {
                let all: Vec<&str> =
                    members.iter().filter(|key| self.newer || !newer.contains(key)).copied().collect();
                return Err(fields.wrong(key, &format!("unknown field, expected one of {}", all.join(", "))));
            }
            if !self.newer && newer.contains(&key.as_str()) {
                return Err(fields.wrong(key, "is of version 2: set schemaVersion to 2"));
            }
        }
        Ok(())
    }
}

/// One list of a document.
#[derive(Clone, Copy)]
struct Section<'t> {
    key: &'t str,
    /// How rules name the file.
    stem: &'t str,
    denial: bool,
    /// Since when and until when its entries hold.
    time: Option<(u64, u64)>,
}

type Entries = (Vec<Endpoint>, BTreeSet<(Box<str>, u16)>);

impl Section<'_> {
    fn read(&self, root: &Root<'_>) -> Result<Entries> {
        let nodes = root.fields.list(self.key)?;
        if nodes.len() > limits::EGRESS_ENDPOINTS {
            let (got, most) = (nodes.len(), limits::EGRESS_ENDPOINTS);
            return Err(root.fields.wrong(self.key, &format!("has {got} entries, more than {most}")));
        }
        let (mut endpoints, mut written) = (Vec::<Endpoint>::new(), BTreeSet::new());
        let (mut known, mut places) = (HashMap::new(), HashMap::<_, usize>::new());
        for (at, node) in nodes.iter().enumerate() {
            let path = format!("{}[{at}]", self.key);
            let (host, endpoint) = self.entry(root, node, &path)?;
            if let Some(port) = endpoint.port {
                written.insert((host.to_ascii_lowercase().into(), port));
            }
            let what = (endpoint.host.clone(), endpoint.port, endpoint.shape.clone());
            let same = *known.entry(what).or_insert(endpoints.len());
            if let Some(earlier) = endpoints.get(same) {
                if earlier.rule.exceeds(&endpoint.rule) || endpoint.rule.exceeds(&earlier.rule) {
                    let text =
                        format!("repeats {} with other grants, so it is never used", earlier.rule.path);
                    return Err(wrong(&path, &text));
                }
                continue;
            }
            let place = places.entry((endpoint.host.shelf(), endpoint.port)).or_default();
            *place += 1;
            if *place > limits::EGRESS_RULES_PER_PLACE {
                let most = limits::EGRESS_RULES_PER_PLACE;
                return Err(wrong(&path, &format!("is one of more than {most} for one host and port")));
            }
            endpoints.push(endpoint);
        }
        Ok((endpoints, written))
    }

    fn entry<'n>(&self, root: &Root<'_>, node: &'n Node, path: &str) -> Result<(&'n str, Endpoint)> {
        let fields = Fields::any(node, path.to_owned())?;
        root.admit(&fields, if self.denial { DENIAL } else { ENDPOINT }, NEWER)?;
        let text = fields.text("host", 1..=HOST_BYTES)?.ok_or_else(|| fields.wrong("host", "is required"))?;
        let host = pattern(&fields, text)?;
        let stated = fields.number("port", 1..=65535)?.and_then(|port| u16::try_from(port).ok());
        let port = if self.denial { stated } else { stated.or(Some(443)) };
        let shape = shape(&fields)?;
        if shape.is_some() {
            plain(&fields, stated)?;
        }
        fields.text("comment", 0..=TEXT_BYTES)?;
        let rule = Rule {
            path: format!("{}.{path}", self.stem),
            approval: self.time.is_some(),
            addresses: if self.denial { Vec::new() } else { grants(&fields, &host)? },
            max_bytes: fields.number("maxBytes", 1..=MOST_BYTES)?.unwrap_or(0),
            expires_at: self.time.map(|(_, end)| end),
        };
        let effective_at = self.time.map_or(0, |(start, _)| start);
        Ok((text, Endpoint { rule, host, port, shape, effective_at }))
    }
}

fn pattern(fields: &Fields<'_>, text: &str) -> Result<Pattern> {
    let wrong = |what: &str| fields.wrong("host", what);
    let subdomains = fields.flag("subdomains")?;
    let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
    if name.is_empty() || text == "*" {
        return Err(wrong("names no host: a list of hosts has no entry for all of them"));
    }
    if name.contains('*') {
        return Err(wrong("has a '*' that is not the whole first label, as in *.example.com"));
    }
    match Host::read(name.as_bytes()).map_err(|fault| wrong(&fault.to_string()))? {
        Host::Ip(_) if below => Err(wrong("is an address, which has no names below it")),
        Host::Ip(_) if subdomains.is_some() => {
            Err(fields.wrong("subdomains", "says nothing about an address: it has no names below it"))
        }
        Host::Ip(ip) => Ok(Pattern::Ip(ip.to_canonical())),
        Host::Name(_) if below && subdomains.is_some() => {
            Err(fields.wrong("subdomains", "says nothing about *.: it stands for the names below only"))
        }
        Host::Name(name) if below => Ok(Pattern::Below(name)),
        Host::Name(name) if subdomains == Some(false) => Ok(Pattern::Exact(name)),
        Host::Name(name) => Ok(Pattern::Tree(name)),
    }
}

fn shape(fields: &Fields<'_>) -> Result<Option<Shape>> {
    let mut methods = BTreeSet::<Box<str>>::new();
    let nodes = fields.list("methods")?;
    if fields.get("methods").is_some() && nodes.is_empty() {
        return Err(fields.wrong("methods", "is empty, so nothing can match; leave it out for any method"));
    }
    if nodes.len() > limits::EGRESS_METHODS {
        return Err(fields.wrong("methods", &format!("has more than {} methods", limits::EGRESS_METHODS)));
    }
    for (at, node) in nodes.iter().enumerate() {
        let path = format!("{}[{at}]", fields.path("methods"));
        match node {
            Node::Text(text) if text == "CONNECT" => {
                return Err(wrong(
                    &path,
                    "can never match: CONNECT makes a tunnel, where nobody sees methods",
                ));
            }
            Node::Text(text) if token(text) => methods.insert(text.as_str().into()),
            Node::Text(_) => {
                return Err(wrong(&path, "is no method: letters in the case that is sent, as in GET"));
            }
            other => return Err(wrong(&path, &format!("expected a string, found {}", other.noun()))),
        };
    }
    let prefix = match fields.text("pathPrefix", 1..=limits::EGRESS_PREFIX_BYTES)? {
        Some(text) => Some(Prefix::parse(text).map_err(|what| fields.wrong("pathPrefix", what))?),
        None => None,
    };
    let stated = !methods.is_empty() || prefix.is_some();
    Ok(stated.then(|| Shape { methods: methods.into_iter().collect(), prefix }))
}

/// Whether text is a token (RFC 9110 §5.6.2) of a method's length.
pub(super) fn token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=limits::EGRESS_METHOD_BYTES).contains(&text.len()) && text.bytes().all(tchar)
}

/// An entry about requests has to name a port where requests can be seen.
fn plain(fields: &Fields<'_>, stated: Option<u16>) -> Result<()> {
    let key = if fields.get("methods").is_some() { "methods" } else { "pathPrefix" };
    match stated {
        Some(443) => {
            Err(fields.wrong(key, "can never match on port 443: nobody sees a request inside of TLS"))
        }
        Some(_) => Ok(()),
        None => Err(fields.wrong(key, "needs the port of plain HTTP beside it, such as \"port\": 80")),
    }
}

fn grants(fields: &Fields<'_>, host: &Pattern) -> Result<Vec<Cidr>> {
    let nodes = fields.list("addresses")?;
    if nodes.len() > limits::EGRESS_GRANTS {
        return Err(fields.wrong("addresses", &format!("has more than {} blocks", limits::EGRESS_GRANTS)));
    }
    let mut blocks = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let path = format!("{}[{at}]", fields.path("addresses"));
        let Node::Text(text) = node else {
            return Err(wrong(&path, &format!("expected a string, found {}", node.noun())));
        };
        let block = Cidr::parse(text).map_err(|e| wrong(&path, e.detail()))?;
        if !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    let Pattern::Ip(ip) = host else { return Ok(blocks) };
    if blocks.iter().any(|block| block.contains(*ip)) {
        return Ok(blocks);
    }
    if let Some(at) = (!blocks.is_empty()).then_some("addresses") {
        return Err(fields.wrong(at, "does not hold the host's own address, so it can never be used"));
    }
    if let Some(class) = barred(*ip) {
        let text =
            format!("is {class} address and never dialled without a grant: add \"addresses\": [\"{ip}\"]");
        return Err(fields.wrong("host", &text));
    }
    Ok(vec![Cidr::one(*ip)])
}

/// Why naming an address is not enough to reach it: what answers there speaks for the machine, or is a whole network.
pub(super) fn barred(ip: IpAddr) -> Option<&'static str> {
    match classify(ip) {
        Class::Unspecified => Some("an unspecified"),
        Class::Multicast => Some("a multicast"),
        Class::LinkLocal => Some("a link-local"),
        Class::Metadata => Some("a cloud-metadata"),
        _ if matches!(ip.to_canonical(), IpAddr::V4(v4) if v4.is_broadcast()) => Some("a broadcast"),
        _ => None,
    }
}

/// Unix seconds of an RFC 3339 time, rounded down.
fn moment(fields: &Fields<'_>, key: &str) -> Result<u64> {
    let text = fields.text(key, 1..=64)?.ok_or_else(|| fields.wrong(key, "is required"))?;
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    let secs = time.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
    secs.ok_or_else(|| fields.wrong(key, "expected a time since 1970 as in 2026-01-31T12:00:00Z (RFC 3339)"))
}

/// Refuses an endpoint that a deny rule leaves nothing of.
fn uncovered(endpoints: &[Endpoint], deny: &[Endpoint]) -> Result<()> {
    let index = Index::new(std::iter::once((List::Deny, deny)));
    for endpoint in endpoints {
        let over = covering(&index, &endpoint.host, endpoint.port.unwrap_or(443));
        let over = over.filter_map(|entry| deny.get(usize::try_from(entry.at).ok()?));
        if let Some(rule) = over.into_iter().find(|rule| rule.leaves_nothing_of(endpoint)) {
            let path = |endpoint: &Endpoint| {
                endpoint.rule.path.split_once('.').map_or(String::new(), |(_, path)| path.to_owned())
            };
            return Err(wrong(&path(endpoint), &format!("can never match: {} denies all of it", path(rule))));
        }
    }
    Ok(())
}

fn in_file(file: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{file}: {}", error.detail()))
}
