//! Client, far end and reference proxies together, and the client against far ends that misbehave.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use super::{PERIOD, Pattern, ask, asked, client, floor, naive, server};
use crate::args::{Args, Fallible};

fn args(line: &str) -> Args {
    Args::new(line.split_whitespace().map(str::to_owned).collect())
}

/// Runs a command in a thread of its own, for as long as the tests last; its port.
fn serve(run: fn(Args) -> Fallible<()>, switch: &'static str) -> u16 {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    thread::spawn(move || run(args(&format!("--port {port} {switch}"))).unwrap());
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        thread::yield_now();
    }
    port
}

/// A far end that does as told with the first connection.
fn misbehave(how: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || how(listener.accept().unwrap().0));
    port
}

fn load(line: &str) -> String {
    client::report(args(&format!("{line} --seconds 0.05"))).unwrap()
}

fn field(report: &str, name: &str) -> u64 {
    let (_, rest) = report.split_once(&format!("\"{name}\":")).unwrap();
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn faults(report: &str) -> [u64; 5] {
    ["refused", "broken", "unfinished", "differing", "incomplete"].map(|name| field(report, name))
}

#[test]
fn every_byte_comes_back_through_every_proxy() {
    let far = serve(server::run, "");
    let ways = [
        format!("--port {far}"),
        format!("--target {far} --port {}", serve(floor::run, "")),
        format!("--target {far} --port {}", serve(floor::run, "--splice")),
        format!("--target {far} --port {}", serve(naive::run, "")),
    ];
    for way in ways {
        for (mode, tunnels) in [("connects", 4), ("pingpong", 1), ("pingpong", 8), ("bulk", 1), ("bulk", 3)] {
            let report = load(&format!("{way} --mode {mode} --tunnels {tunnels}"));
            assert_eq!(faults(&report), [0; 5], "{way} {mode} {report}");
            assert!(field(&report, "tunnels") >= tunnels, "{way} {mode} {report}");
            let (bytes, compared) = (field(&report, "bytes"), field(&report, "compared"));
            if mode == "bulk" {
                assert!(bytes >= PERIOD as u64 && bytes.is_multiple_of(PERIOD as u64), "{report}");
                assert!(compared > 0 && compared <= bytes, "{report}");
            } else {
                assert_eq!(bytes, field(&report, "ops"), "{report}");
            }
        }
    }
}

#[test]
fn notices_a_byte_that_is_not_the_one_it_sent() {
    let port = misbehave(|mut peer| {
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        peer.write_all(&[byte[0] ^ 1]).unwrap();
    });
    let report = load(&format!("--port {port} --mode pingpong --tunnels 1"));
    assert_eq!((field(&report, "differing"), field(&report, "ops")), (1, 1), "{report}");
}

#[test]
fn notices_a_stream_that_lost_a_byte() {
    let port = misbehave(|mut peer| {
        peer.read_exact(&mut [0]).unwrap();
        let pattern = Pattern::new(PERIOD);
        // Written until the client has gone.
        while peer.write_all(pattern.at(1, PERIOD).unwrap()).is_ok() {}
    });
    // It never stops as a server should, either: the drain would last, were the end not what closes it.
    let report = load(&format!("--port {port} --mode bulk --tunnels 1 --drain 0.1"));
    assert!(field(&report, "differing") > 0, "{report}");
    assert_eq!(field(&report, "unfinished"), 1, "{report}");
}

#[test]
fn notices_a_stream_that_ends_before_its_end() {
    let port = misbehave(|mut peer| {
        peer.read_exact(&mut [0]).unwrap();
        peer.write_all(Pattern::new(PERIOD).at(0, PERIOD).unwrap()).unwrap();
    });
    let report = load(&format!("--port {port} --mode bulk --tunnels 1"));
    assert_eq!(faults(&report), [0, 0, 0, 0, 1], "{report}");
}

#[test]
fn tells_a_refusal_from_a_tunnel_that_breaks() {
    let port = misbehave(|mut peer| {
        assert!(peer.read(&mut [0; 512]).unwrap() > 0);
        peer.write_all(b"HTTP/1.1 403 Forbidden \"here\"\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let report = load(&format!("--port {port} --target 1 --mode pingpong --tunnels 1"));
    assert_eq!(faults(&report), [1, 0, 0, 0, 0], "{report}");
    assert!(report.contains(r#""refusals":{"403":1},"refusal":"HTTP/1.1 403 Forbidden here"#), "{report}");
    let port = misbehave(drop);
    let report = load(&format!("--port {port} --target 1 --mode pingpong --tunnels 1"));
    assert_eq!(faults(&report), [0, 1, 0, 0, 0], "{report}");
}

#[test]
fn reads_the_port_it_asks_for() {
    let head = ask(9100);
    assert_eq!(asked(&head), Some((9100, head.len())));
    assert_eq!(asked(&head[..head.len() - 1]), None);
    assert_eq!(asked(b"GET / HTTP/1.1\r\n\r\n"), None);
}

#[test]
fn no_shift_by_a_buffer_keeps_the_pattern() {
    let pattern = Pattern::new(4096);
    let here = pattern.at(1_000_000, 64).unwrap();
    assert_eq!(pattern.at(1_000_000 + 3 * PERIOD as u64, 64), Some(here));
    for shift in [1, 512, 1448, 4096, 8192, 65_483, 65_536, 131_072, 262_144] {
        assert_ne!(pattern.at(1_000_000 + shift, 64), Some(here), "{shift}");
    }
}
