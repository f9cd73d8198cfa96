//! Finds the entries for a host: one look-up per label of its name, however long the lists are.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use super::endpoint::{Endpoint, Pattern};
use crate::ids::Host;

/// How an entry stands to the name that it is filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Breadth {
    Exact,
    Below,
    Tree,
}

/// Which list an entry is of, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    Deny,
    Allow,
    /// The approval of this number.
    Approval(u32),
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// 0 for any.
    pub port: u16,
    breadth: Breadth,
    /// Length of the path prefix, and whether methods are named.
    narrow: (u16, bool),
    pub list: List,
    pub at: u32,
}

/// Entries by name and by address.
#[derive(Debug, Default)]
pub(super) struct Index {
    names: HashMap<Box<str>, Vec<Entry>>,
    addresses: HashMap<IpAddr, Vec<Entry>>,
    /// Labels of the longest name: a longer one's first labels need no look.
    labels: usize,
}

/// The entries filed under a host's name, or under a name above it.
#[derive(Clone, Copy)]
pub(super) struct Shelf<'i> {
    entries: &'i [Entry],
    /// Whether they are filed under the host's own name.
    pub own: bool,
}

impl Index {
    /// Files the entries of all lists.
    pub fn new<'e>(lists: impl Iterator<Item = (List, &'e [Endpoint])>) -> Self {
        let mut index = Self::default();
        for (list, endpoints) in lists {
            for (at, endpoint) in (0..).zip(endpoints) {
                index.file(list, at, endpoint);
            }
        }
        for entries in index.names.values_mut().chain(index.addresses.values_mut()) {
            entries.sort_by_key(|e| (e.port, e.list, e.breadth, Reverse(e.narrow), e.at));
            entries.shrink_to_fit();
        }
        index
    }

    fn file(&mut self, list: List, at: u32, endpoint: &Endpoint) {
        let breadth = match endpoint.host {
            Pattern::Exact(_) | Pattern::Ip(_) => Breadth::Exact,
            Pattern::Below(_) => Breadth::Below,
            Pattern::Tree(_) => Breadth::Tree,
        };
        let narrow = endpoint.shape.as_ref().map_or((0, false), |shape| {
            let prefix = shape.prefix.as_ref().map_or(0, |prefix| prefix.as_str().len() + 1);
            (u16::try_from(prefix).unwrap_or(u16::MAX), !shape.methods.is_empty())
        });
        let entry = Entry { port: endpoint.port.unwrap_or(0), breadth, narrow, list, at };
        match &endpoint.host {
            Pattern::Ip(ip) => self.addresses.entry(*ip).or_default().push(entry),
            Pattern::Exact(name) | Pattern::Below(name) | Pattern::Tree(name) => {
                self.labels = self.labels.max(labels(name));
                self.names.entry(name.clone()).or_default().push(entry);
            }
        }
    }

    /// The shelves for a host, its own name first, then each name above it.
    pub fn walk<'i>(&'i self, host: &'i Host) -> impl Iterator<Item = Shelf<'i>> {
        let (name, address) = match host {
            Host::Name(name) => (Some(&**name), None),
            Host::Ip(ip) => (None, Some(ip.to_canonical())),
        };
        let address = address.and_then(|ip| self.addresses.get(&ip));
        let address = address.map(|entries| Shelf { entries, own: true });
        let names = name.into_iter().flat_map(|name| self.shelves(name));
        address.into_iter().chain(names)
    }

    fn shelves<'i>(&'i self, name: &'i str) -> impl Iterator<Item = Shelf<'i>> {
        let skipped = labels(name).saturating_sub(self.labels);
        std::iter::once(name).chain(above(name)).enumerate().skip(skipped).filter_map(|(depth, suffix)| {
            #[cfg(test)]
            LOOKUPS.with(|n| n.set(n.get() + 1));
            self.names.get(suffix).map(|entries| Shelf { entries, own: depth == 0 })
        })
    }
}

impl<'i> Shelf<'i> {
    /// Every entry, in the order in which they are asked for one port.
    pub fn all(self) -> impl Iterator<Item = &'i Entry> {
        self.entries.iter()
    }

    /// The entries that hold a port and the host, those for any port first.
    pub fn at(self, port: u16) -> impl Iterator<Item = &'i Entry> {
        self.port(port).filter(move |entry| self.reaches(entry))
    }

    fn port(self, port: u16) -> impl Iterator<Item = &'i Entry> {
        let run = move |port: u16| {
            let rest = self.entries.get(self.entries.partition_point(|e| e.port < port)..).unwrap_or(&[]);
            rest.iter().take_while(move |e| e.port == port)
        };
        run(0).chain(run(port))
    }

    /// Whether an entry on it is about the host.
    pub fn reaches(self, entry: &Entry) -> bool {
        if self.own { entry.breadth != Breadth::Below } else { entry.breadth != Breadth::Exact }
    }
}

/// The entries that hold a port and every host of a pattern.
pub(super) fn covering<'i>(
    index: &'i Index,
    pattern: &'i Pattern,
    port: u16,
) -> impl Iterator<Item = &'i Entry> {
    let shelves = pattern.name().into_iter().flat_map(|name| index.shelves(name));
    let address = match pattern {
        Pattern::Ip(ip) => index.addresses.get(ip).map(|entries| Shelf { entries, own: true }),
        _ => None,
    };
    address.into_iter().chain(shelves).flat_map(move |shelf| {
        shelf.port(port).filter(move |entry| match (entry.breadth, shelf.own) {
            (Breadth::Tree, _) | (Breadth::Below, false) => true,
            (Breadth::Exact, true) => matches!(pattern, Pattern::Exact(_) | Pattern::Ip(_)),
            (Breadth::Below, true) => matches!(pattern, Pattern::Below(_)),
            (Breadth::Exact, false) => false,
        })
    })
}

/// The names above a name, the nearest first.
pub(super) fn above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.')).map(|(_, rest)| rest)
}

fn labels(name: &str) -> usize {
    memchr::memchr_iter(b'.', name.as_bytes()).count() + 1
}

#[cfg(test)]
thread_local! {
    /// Look-ups made by this thread.
    pub(super) static LOOKUPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
