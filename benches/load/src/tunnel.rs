//! Tunnels: what client and server say through one, and the smallest proxies that open one.
//!
//! The first byte a client sends decides what the server does: [`STREAM`] asks for bytes without end, until [`STOP`];
//! `G` is `GET /totals`; every other byte is echoed, and so is whatever follows it. No opening looks like TLS or like a
//! method of HTTP, so that a proxy which looks into tunnels finds nothing to read.

pub mod client;
pub mod floor;
pub mod naive;
pub mod server;

use memchr::memmem;

/// Asks for bytes without end.
pub const STREAM: u8 = 0x02;

/// Ends them: the server completes the period it is in and closes its side.
pub const STOP: u8 = 0x03;

/// The first byte that is echoed, of as many as `u8` has left.
pub const ECHO: u8 = 0x80;

/// Bytes after which the pattern repeats: a prime, so that no whole number of buffers or segments, lost or doubled,
/// leaves what follows in place.
pub const PERIOD: usize = 65_521;

/// What every request for a tunnel is answered with by our own proxies.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// Bytes a head of ours may have; both sides are ours.
pub const HEAD_BYTES: usize = 4096;

/// The bytes a server streams, for as long as one buffer past a period.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// One from which any `longest` bytes can be taken in one piece.
    pub fn new(longest: usize) -> Self {
        let mut state: u64 = 1;
        let mut period: Vec<u8> = Vec::with_capacity(PERIOD);
        while period.len() < PERIOD {
            // Knuth's linear congruential generator; its high byte is random enough to tell places apart.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            period.push((state >> 56) as u8);
        }
        Self { bytes: period.iter().copied().cycle().take(PERIOD + longest).collect() }
    }

    /// The `len` bytes that stand at an offset of the stream.
    pub fn at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = (offset % PERIOD as u64) as usize;
        self.bytes.get(start..start.checked_add(len)?)
    }
}

/// The head that asks for a tunnel to a loopback port.
pub fn ask(target: u16) -> Vec<u8> {
    format!("CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: 127.0.0.1:{target}\r\n\r\n").into_bytes()
}

/// The loopback port a complete head asks for and the head's length: all the parsing a floor does.
pub fn asked(bytes: &[u8]) -> Option<(u16, usize)> {
    let len = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let authority = bytes.strip_prefix(b"CONNECT 127.0.0.1:")?;
    let digits = authority.split(|byte| *byte == b' ').next()?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, len))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
