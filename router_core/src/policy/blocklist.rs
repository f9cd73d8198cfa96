//! Names that nobody may reach, from threat feeds: a million of them in at most 40 MB.
//!
//! A name stands for itself and for every name below it. The set is exact: nothing is blocked that no list names.

#[cfg(any(test, feature = "fuzzing"))]
pub mod checks;
mod lines;
mod names;

use std::net::Ipv4Addr;

use crate::ids::Host;
use crate::limits;

use lines::{Line, Name};
use names::Names;

/// Top-level domains of which all names are blocked, lists or not: registries that give names away, and names that no
/// resolver of ours knows (the reference's choice).
const TOP_LEVEL: [&str; 10] = ["tk", "ml", "ga", "cf", "gq", "top", "buzz", "surf", "rest", "onion"];

/// Why a host is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block<'l> {
    /// IP literals are.
    IpLiteral,
    /// Its top-level domain is.
    TopLevel(&'l str),
    /// This name on the list, which is the host or a domain above it.
    Listed(&'l str),
}

/// An immutable set of names. An empty one still blocks IP literals and some top-level domains.
#[derive(Debug, Default)]
pub struct Blocklist {
    names: Names,
}

/// Collects names into a [`Blocklist`]. Names that come twice are kept once from the beginning, so that building takes
/// little more than what is built.
#[derive(Debug, Default)]
pub struct Builder {
    names: Names,
    excepted: Names,
}

impl Builder {
    /// Adds a feed's text in whatever form each line is written; gives the names that were new and the lines passed
    /// over, which are those that are neither empty, comments, nor understood, and those past
    /// [`limits::FEED_NAMES`] new names. The forms:
    ///
    /// - `name`, `name.`, `*.name`, `.name`. A single label blocks a whole top-level domain: only `*.zip` means that.
    /// - `0.0.0.0 name name…`, `127.0.0.1`, `::` or `::1` (hosts(5)). Names of the machine itself are left out.
    /// - `||name^`, also with options that do not narrow it; `@@||name^` takes the name off all lists (adblock filters).
    ///
    /// `#` and `!` begin comments; lines end in LF, CR or both.
    pub fn add(&mut self, text: &[u8]) -> (usize, usize) {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let mut feed = Feed { builder: self, new: 0, excepted: 0 };
        let unread = lines::split(text).filter(|line| !feed.take(lines::read(line))).count();
        (feed.new, unread)
    }

    /// The set.
    pub fn build(mut self) -> Blocklist {
        for name in self.excepted.iter() {
            self.names.remove(name);
        }
        self.names.settle();
        Blocklist { names: self.names }
    }
}

impl Blocklist {
    /// Names in the set.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.names.len() == 0
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.names.bytes()
    }

    /// Why `host` is blocked, if it is. Takes less than a microsecond and does not allocate.
    pub fn check(&self, host: &Host) -> Option<Block<'_>> {
        let Host::Name(name) = host else { return Some(Block::IpLiteral) };
        let last = name.rsplit('.').next().unwrap_or_default();
        // An address is one however it came to be held as a name.
        if last.ends_with(|end: char| end.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_ok() {
            return Some(Block::IpLiteral);
        }
        if let Some(domain) = TOP_LEVEL.into_iter().find(|domain| *domain == last) {
            return Some(Block::TopLevel(domain));
        }
        self.names.covering(name).map(Block::Listed)
    }
}

/// One feed on its way into a builder.
struct Feed<'b> {
    builder: &'b mut Builder,
    new: usize,
    excepted: usize,
}

impl Feed<'_> {
    /// Takes a line; false when it is passed over.
    fn take(&mut self, line: Line<'_>) -> bool {
        match line {
            Line::Nothing => true,
            Line::Unread => false,
            Line::Name(raw) => Name::parse(raw).is_some_and(|name| name.labels > 1 && self.block(&name)),
            Line::Domain(raw) => Name::parse(raw).is_some_and(|name| self.block(&name)),
            Line::Hosts(rest) => {
                let mut all = true;
                for raw in lines::words(rest).filter(|raw| !lines::is_local(raw)) {
                    all &= self.take(Line::Name(raw));
                }
                all
            }
            Line::Except(raw) => Name::parse(raw).is_some_and(|name| self.except(&name)),
        }
    }

    fn block(&mut self, name: &Name) -> bool {
        let names = &mut self.builder.names;
        if self.new >= limits::FEED_NAMES {
            return names.has(name.as_str());
        }
        let before = names.len();
        let taken = names.insert(name.as_str());
        self.new += names.len() - before;
        taken
    }

    fn except(&mut self, name: &Name) -> bool {
        self.excepted += 1;
        self.excepted <= limits::FEED_NAMES && self.builder.excepted.insert(name.as_str())
    }
}

#[cfg(test)]
mod tests;
