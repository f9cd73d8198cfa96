//! What the client is asked to do.

use crate::args::{Args, Fallible};

/// One load.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Plan {
    /// Loopback port of whoever is measured.
    pub port: u16,
    /// Path of every call.
    pub path: String,
    /// Model of every call.
    pub model: String,
    /// Whether answers are streams.
    pub stream: bool,
    /// Connections kept.
    pub connections: usize,
    /// When to stop.
    pub until: Until,
    /// Nanoseconds between calls of a fixed rate; 0: as fast as answers come.
    pub interval_ns: u64,
    /// Bytes of a request's body, at least.
    pub request_bytes: usize,
    /// Stamped events every stream has to bring; 0: not checked.
    pub tokens: u32,
    /// Header lines to add.
    pub headers: Vec<String>,
    /// Print a line as soon as every connection has been heard from.
    pub announce: bool,
    /// End on time, whatever is under way.
    pub hold: bool,
    /// Never read an answer.
    pub stall: bool,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many seconds.
    Seconds(f64),
    /// After so many calls.
    Count(u64),
}

impl Plan {
    /// Reads a plan off the command line.
    pub fn from_args(mut args: Args) -> Fallible<Self> {
        let seconds = args.number("--seconds")?.unwrap_or(5.0);
        let until = args.number("--count")?.map_or(Until::Seconds(seconds), Until::Count);
        let rate: Option<f64> = args.number("--rate")?;
        let stall = args.flag("--stall");
        let mut headers = Vec::new();
        while let Some(header) = args.text("--header")? {
            headers.push(header);
        }
        let plan = Self {
            port: args.required("--port")?,
            path: args.text("--path")?.unwrap_or_else(|| "/v1/chat/completions".to_owned()),
            model: args.text("--model")?.unwrap_or_else(|| "gpt-4o-mini".to_owned()),
            stream: args.flag("--stream"),
            connections: args.number("--connections")?.unwrap_or(32),
            until,
            interval_ns: rate.map_or(0, |rate| (1e9 / rate) as u64),
            request_bytes: args.number("--request-bytes")?.unwrap_or(846),
            tokens: args.number("--tokens")?.unwrap_or(0),
            headers,
            announce: args.flag("--announce"),
            hold: args.flag("--hold") || stall,
            stall,
        };
        args.finish()?;
        Ok(plan)
    }
}
