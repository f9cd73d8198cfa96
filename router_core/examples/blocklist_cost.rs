//! Builds a blocklist of a million names and prints what it holds and what a lookup takes: `blocklist_cost [names]`.

use std::hint::black_box;
use std::time::Instant;

use router_core::ids::Host;
use router_core::policy::blocklist::Builder;

const LOOKUPS: usize = 1_000_000;

fn main() {
    let names = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let text: String = (0..names).map(|n| name(n) + "\n").collect();
    let mut builder = Builder::default();
    let before = Instant::now();
    let (new, passed_over) = builder.add(text.as_bytes());
    let list = builder.build();
    let took = before.elapsed();
    println!("{new} names, {passed_over} lines passed over, built in {took:.0?}");
    println!("text {:.1} MB, held {:.1} MB", megabytes(text.len()), megabytes(list.bytes()));
    for (what, ask) in [
        ("listed", name as fn(usize) -> String),
        ("two below a listed one", |n| format!("cdn.www.{}", name(n))),
        ("not listed, three labels", |n| format!("x{}", name(n))),
        ("not listed, ten labels", |n| format!("a.b.c.d.e.f.g.x{}", name(n))),
    ] {
        let hosts: Vec<Host> =
            (0..LOOKUPS).filter_map(|n| Host::parse(&ask(n.wrapping_mul(7919) % names)).ok()).collect();
        let before = Instant::now();
        let blocked = hosts.iter().filter(|host| black_box(list.check(black_box(host))).is_some()).count();
        let ns = before.elapsed().as_nanos() / hosts.len().max(1) as u128;
        println!("{what}: {ns} ns per lookup, {blocked} of {} blocked", hosts.len());
    }
}

/// Names of 22 bytes, as feeds have them.
fn name(n: usize) -> String {
    let word = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
    format!("{word:010x}.site{:03}.com", n % 997)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
