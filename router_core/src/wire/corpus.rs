//! The corpus of destinations, hostile and legitimate, against the parsers. The system tests send the same rows through
//! a live router.

use std::net::IpAddr;

use crate::ids::{Destination, Host};
use crate::wire::address::classify;
use crate::wire::{authority, head, sni};

const HOSTILE: &str = include_str!("../../../tests/vectors/egress_hostile.tsv");
const LEGITIMATE: &str = include_str!("../../../tests/vectors/egress_legitimate.tsv");

/// The rows of a file, each with its number of columns.
fn rows<const N: usize>(file: &str) -> Vec<[&str; N]> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').collect::<Vec<_>>().try_into().expect(line)).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(hex, 16).unwrap());
        bytes.extend(rest.as_bytes());
    }
    bytes
}

/// Where the bytes ask to go; `None` when they are refused, or name nothing that could be checked.
fn asked(form: &str, bytes: &[u8]) -> Option<Destination> {
    match form {
        "connect" => {
            let head = [b"CONNECT ", bytes, b" HTTP/1.1\r\n\r\n"].concat();
            let asked = authority::authority(bytes).ok().map(|named| named.destination(443));
            let seen = matches!(head::request(&head), Ok(Some(head)) if head.target.as_bytes() == bytes);
            assert_eq!(seen, asked.is_some(), "the head's check differs: {}", String::from_utf8_lossy(bytes));
            asked
        }
        "http" => requested(&head::request(bytes).ok()??),
        "sni" => {
            let hello = sni::client_hello(bytes).ok()??;
            hello.server_name.filter(|_| !hello.encrypted).map(|host| Destination { host, port: 443 })
        }
        "url" => {
            let text = std::str::from_utf8(bytes).ok()?;
            let url = authority::url(text).ok();
            assert_eq!(url.is_some(), authority::well_formed_url(bytes), "{text}");
            url.map(|url| Destination { port: url.port(), host: url.authority.host })
        }
        "address" => {
            let ip: IpAddr = std::str::from_utf8(bytes).ok()?.parse().ok()?;
            Some(Destination { host: Host::Ip(ip), port: 443 })
        }
        other => panic!("no form {other}"),
    }
}

/// Where a proxy takes a request: by its target, or by `Host` (RFC 9112 §3.2.2).
fn requested(head: &head::RequestHead<'_>) -> Option<Destination> {
    if head.method == "CONNECT" {
        return authority::authority(head.target.as_bytes()).ok().map(|named| named.destination(443));
    }
    if let Ok(url) = authority::url(head.target) {
        return Some(Destination { port: url.port(), host: url.authority.host });
    }
    let host = head.fields.value("host")?;
    Some(authority::authority(host).expect("a head's Host is well formed").destination(80))
}

fn global(host: &Host) -> bool {
    host.ip().is_none_or(|ip| classify(ip).is_global())
}

#[test]
fn no_hostile_row_gets_past_parser_and_classifier() {
    let rows = rows::<4>(HOSTILE);
    assert!(rows.len() >= 300, "{} rows", rows.len());
    let past: Vec<String> = rows
        .iter()
        .filter_map(|[class, form, text, why]| {
            let destination = asked(form, &unescaped(text)).filter(|d| global(&d.host))?;
            Some(format!("{class} {form} {text} ({why}) is {destination}"))
        })
        .collect();
    assert!(past.is_empty(), "{}", past.join("\n"));
}

#[test]
fn hostile_rows_fail_for_a_reason_of_their_form() {
    for [class, form, text, why] in rows::<4>(HOSTILE) {
        let bytes = unescaped(text);
        match (class, form) {
            // Only these are understood, and then not gone to.
            ("literal", _) => assert!(asked(form, &bytes).is_some(), "{text} ({why})"),
            ("hidden", _) => assert!(matches!(sni::client_hello(&bytes), Ok(Some(_))), "{text} ({why})"),
            (_, "sni") => {
                let waits = matches!(sni::client_hello(&bytes), Ok(None));
                assert_eq!(waits, class == "unfinished", "{text} ({why})");
            }
            (_, "http") => assert!(!matches!(head::request(&bytes), Ok(None)), "{text} ({why})"),
            (_, "address") => assert_eq!(class == "no-address", asked(form, &bytes).is_none(), "{text}"),
            _ => {}
        }
    }
}

#[test]
fn every_legitimate_row_is_understood_as_meant() {
    let rows = rows::<5>(LEGITIMATE);
    assert!(rows.len() >= 150, "{} rows", rows.len());
    for [class, form, text, host, port] in rows {
        let found =
            asked(form, &unescaped(text)).unwrap_or_else(|| panic!("{class} {form} {text} is refused"));
        assert!(global(&found.host), "{class} {form} {text} is not global");
        let expected = match form {
            "address" => (Host::Ip(host.parse().unwrap()).to_string(), 443),
            _ => (host.to_owned(), port.parse().unwrap()),
        };
        assert_eq!((found.host.to_string(), found.port), expected, "{class} {form} {text}");
    }
}
