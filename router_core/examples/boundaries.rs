//! Shows where this router sees the messages in a byte stream, for differential tests against other parsers.
//!
//! On stdin: streams, each a 32-bit big-endian length and so many bytes. On stdout: one JSON line per stream,
//! `{"verdict":"ok"|"incomplete"|"refused","messages":[{"method","target","body_sha256"}],"left":n}`, with
//! the messages that are whole and the bytes that belong to none.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use router_core::wire::body::Walker;
use router_core::wire::head;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let mut stream = Vec::new();
        input.by_ref().take(u64::from(u32::from_be_bytes(length))).read_to_end(&mut stream)?;
        writeln!(output, "{}", boundaries(&stream))?;
        output.flush()?;
    }
    Ok(())
}

fn boundaries(stream: &[u8]) -> Value {
    let (mut rest, mut messages) = (stream, Vec::new());
    let verdict = loop {
        if rest.is_empty() {
            break "ok";
        }
        match message(rest) {
            Ok(Some((message, len, persists))) => {
                messages.push(message);
                rest = rest.get(len..).unwrap_or(&[]);
                if !persists {
                    break "ok";
                }
            }
            Ok(None) => break "incomplete",
            Err(_) => break "refused",
        }
    };
    json!({"verdict": verdict, "messages": messages, "left": rest.len()})
}

/// The first message of `bytes`, its length, and whether another may follow; `None` if it is not whole.
fn message(bytes: &[u8]) -> router_core::error::Result<Option<(Value, usize, bool)>> {
    let Some(head) = head::request(bytes)? else { return Ok(None) };
    let (mut walker, mut digest) = (Walker::new(head.framing), Sha256::new());
    let fed = walker.feed(bytes.get(head.len..).unwrap_or(&[]), |run| digest.update(run))?;
    if !fed.done {
        return Ok(None);
    }
    let hex = digest.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let message = json!({"method": head.method, "target": head.target, "body_sha256": hex});
    Ok(Some((message, head.len + fed.used, head.keep_alive && head.method != "CONNECT")))
}
