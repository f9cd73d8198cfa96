//! What the tunnel client is asked to do.

use crate::args::{Args, Fallible};

/// One load.
#[derive(Debug)]
pub struct Plan {
    /// Loopback port of whoever is measured.
    pub port: u16,
    /// Loopback port to ask for by CONNECT; without one, `port` itself leads there.
    pub target: Option<u16>,
    /// What is done with tunnels.
    pub mode: Mode,
    /// Tunnels at one time.
    pub tunnels: usize,
    /// How long, once they stand.
    pub seconds: f64,
}

/// What is done with tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Open one, get one byte back, close it, open the next.
    Connects,
    /// One byte to and fro.
    PingPong,
    /// The server streams.
    Bulk,
    /// One byte to and fro, then silence.
    Idle,
}

impl Plan {
    /// Reads a plan off the command line.
    pub fn from_args(mut args: Args) -> Fallible<Self> {
        let mode = match args.text("--mode")?.as_deref() {
            Some("connects") => Mode::Connects,
            Some("pingpong") => Mode::PingPong,
            Some("bulk") => Mode::Bulk,
            Some("idle") => Mode::Idle,
            _ => return Err("--mode is one of connects, pingpong, bulk, idle".into()),
        };
        let plan = Self {
            port: args.required("--port")?,
            target: args.number("--target")?,
            mode,
            tunnels: args.number("--tunnels")?.unwrap_or(16),
            seconds: args.number("--seconds")?.unwrap_or(5.0),
        };
        args.finish()?;
        Ok(plan)
    }
}
