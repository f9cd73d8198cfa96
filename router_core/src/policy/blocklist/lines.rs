//! The forms in which lists are written, line by line.

use std::net::IpAddr;

use crate::ids::Host;

/// Longest name (RFC 1035 §2.3.4, without the dot of the root).
const NAME_BYTES: usize = 253;

/// Names that hosts files give the machine itself.
const LOCAL: [&[u8]; 12] = [
    b"localhost",
    b"localhost.localdomain",
    b"local",
    b"broadcasthost",
    b"ip6-localhost",
    b"ip6-loopback",
    b"ip6-localnet",
    b"ip6-mcastprefix",
    b"ip6-allnodes",
    b"ip6-allrouters",
    b"ip6-allhosts",
    b"0.0.0.0",
];

/// Options of an adblock filter under which it still means the whole name. All others narrow it to some sites, clients
/// or kinds of content, which a name alone cannot tell.
const WHOLE: [&[u8]; 8] =
    [b"third-party", b"3p", b"important", b"all", b"document", b"doc", b"popup", b"network"];

/// What a line says. Names in it are as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'t> {
    /// It is empty or a comment.
    Nothing,
    /// It is not understood, or says something that a set of names cannot.
    Unread,
    /// A name.
    Name(&'t [u8]),
    /// A name that is meant with all names below it, be it a top-level domain.
    Domain(&'t [u8]),
    /// The names after an address that leads nowhere.
    Hosts(&'t [u8]),
    /// A name that is not to be blocked.
    Except(&'t [u8]),
}

/// The lines of a text, without their ends.
pub(super) fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut ends = memchr::memchr2_iter(b'\n', b'\r', text);
    let mut from = Some(0);
    std::iter::from_fn(move || {
        let start = from?;
        let end = ends.next();
        from = end.map(|end| end + 1);
        text.get(start..end.unwrap_or(text.len()))
    })
}

/// Words between white space.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Whether a name in a hosts file is the machine's own.
pub(super) fn is_local(name: &[u8]) -> bool {
    LOCAL.iter().any(|local| local.eq_ignore_ascii_case(name))
}

/// Reads a line.
pub(super) fn read(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    match line {
        // Filters on the content of all pages, told from comments by their marks.
        [b'#', b'@' | b'?' | b'$' | b'%', b'#' | b'@' | b'?' | b'$', ..] => Line::Unread,
        [b'#', b'#', mark, ..] if !mark.is_ascii_whitespace() && *mark != b'#' => Line::Unread,
        // `[Adblock Plus 2.0]` heads a list.
        [] | [b'#' | b'!' | b'[', ..] => Line::Nothing,
        [b'|', b'|', filter @ ..] => adblock(filter).map_or(Line::Unread, Line::Domain),
        [b'@', b'@', b'|', b'|', filter @ ..] => adblock(filter).map_or(Line::Unread, Line::Except),
        _ => plain(line),
    }
}

/// The name of a filter `name^`, with a mark at its end and options or without.
fn adblock(filter: &[u8]) -> Option<&[u8]> {
    let (name, rest) = filter.split_at_checked(memchr::memchr(b'^', filter)?)?;
    let rest = rest.strip_prefix(b"^")?;
    let rest = rest.strip_prefix(b"|").unwrap_or(rest);
    let options = match rest {
        [] => return Some(name),
        [b'$', options @ ..] => options,
        _ => return None,
    };
    options.split(|byte| *byte == b',').all(|option| WHOLE.contains(&option)).then_some(name)
}

/// A name, or a line of a hosts file.
fn plain(line: &[u8]) -> Line<'_> {
    let mark = line.iter().position(|byte| *byte == b'#');
    let next = mark.and_then(|at| line.get(at + 1));
    let head = mark.and_then(|at| line.get(..at)).unwrap_or(line);
    let mut words = words(head);
    let Some(first) = words.next() else { return Line::Nothing };
    if let Some(address) = std::str::from_utf8(first).ok().and_then(|text| text.parse::<IpAddr>().ok()) {
        let nowhere = address.is_unspecified() || address.is_loopback();
        let rest = head.get(first.len()..).unwrap_or(&[]);
        return if nowhere && words.next().is_some() { Line::Hosts(rest) } else { Line::Unread };
    }
    // `site##selector` and its like: a filter on a page's content.
    let cosmetic = first.len() == head.len() && next.is_some_and(|next| b"#@?$%".contains(next));
    let alone = words.next().is_none_or(|word| word.starts_with(b"!"));
    if cosmetic || !alone {
        return Line::Unread;
    }
    match first {
        [b'*', b'.', name @ ..] => Line::Domain(name),
        [b'.', name @ ..] | name => Line::Name(name),
    }
}

/// A name in the form that [`Host`] gives it, held inline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    bytes: [u8; NAME_BYTES],
    len: usize,
    /// Its labels.
    pub(super) labels: usize,
}

impl Name {
    /// Accepts and makes of a name what [`Host::parse`] does; `None` for addresses.
    pub(super) fn parse(raw: &[u8]) -> Option<Self> {
        Host::check(raw).ok()?;
        let address = raw.contains(&b':') || raw.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        if address {
            return None;
        }
        let raw = raw.strip_suffix(b".").unwrap_or(raw);
        let mut name = Self { bytes: [0; NAME_BYTES], len: raw.len(), labels: 1 };
        let bytes = name.bytes.get_mut(..raw.len())?;
        bytes.copy_from_slice(raw);
        bytes.make_ascii_lowercase();
        name.labels += memchr::memchr_iter(b'.', raw).count();
        Some(name)
    }

    pub(super) fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}
