//! The body of the fuzz target `blocklist`: what must hold for any bytes whatever. It also runs under proptest.
#![allow(clippy::missing_panics_doc, reason = "to panic is how a check fails")]

use std::collections::BTreeSet;

use super::lines::{self, Name};
use super::{Block, Blocklist, Builder};
use crate::ids::Host;

/// A list: its names are hosts in normal form, each is blocked and so is what lies below it, the order of lines makes no
/// difference, and a word of the text is blocked exactly when a plain walk over its parents says so.
pub fn blocklist(text: &[u8]) {
    let list = build([text]);
    let names: BTreeSet<&str> = list.names.iter().collect();
    assert_eq!(names.len(), list.len());
    for name in &names {
        assert_eq!(Host::parse(name).ok(), Some(Host::Name((*name).into())), "not in normal form");
        assert!(list.check(&Host::Name((*name).into())).is_some());
        assert!(list.check(&Host::Name(format!("a.{name}").into())).is_some());
    }
    let mark = "\u{feff}".as_bytes();
    let mut lines: Vec<&[u8]> = lines::split(text.strip_prefix(mark).unwrap_or(text)).collect();
    // A byte order mark means something at the start of a text alone, and any line may become one.
    if !lines.iter().any(|line| line.starts_with(mark)) {
        lines.reverse();
        let turned = build([lines.join(&b'\n').as_slice()]);
        assert_eq!(
            turned.names.iter().collect::<BTreeSet<_>>(),
            names,
            "the order of lines makes a difference"
        );
        let apart = build(lines);
        assert_eq!(apart.names.iter().collect::<BTreeSet<_>>(), names, "many lists are not one");
    }
    for word in lines::words(text) {
        let host = std::str::from_utf8(word).ok().and_then(|word| Host::parse(word).ok());
        let name =
            host.as_ref().and_then(Host::name).filter(|name| name.parse::<std::net::IpAddr>().is_err());
        assert_eq!(Name::parse(word).as_ref().map(Name::as_str), name, "names are read in two ways");
        let Some((host, name)) = host.as_ref().zip(name) else { continue };
        match list.check(host) {
            Some(Block::Listed(found)) => assert!(names.contains(found) && parents(name).any(|p| p == found)),
            Some(Block::TopLevel(_)) => {}
            Some(Block::IpLiteral) => unreachable!("a name is an address"),
            None => assert!(!parents(name).any(|parent| names.contains(parent))),
        }
    }
}

fn build<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> Blocklist {
    let mut builder = Builder::default();
    for text in texts {
        builder.add(text);
    }
    builder.build()
}

/// A name and the domains above it.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above))
}
