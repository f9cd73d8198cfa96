//! The load harness in one binary: a mock model server, two reference proxies and a stamped client; and the same for
//! tunnels.
//!
//! Everything is one thread and one epoll loop, cheap enough never to be what is measured
//! (`naive` and `tunnel-naive` excepted: they are hyper and tokio, on purpose). Nothing here belongs to the router.

// Measured quantities move between integers and floats everywhere; nanoseconds fit all of them.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod args;
mod client;
mod floor;
mod histogram;
mod http;
mod mock;
mod naive;
mod poll;
mod tunnel;

use std::process::ExitCode;

use args::{Args, Fallible};

const HELP: &str = "\
kars_load: load harness for proxies of model traffic

  kars_load mock   --port P [--mode burst|flush|paced] [--tokens 64] [--bytes 1024]
                   [--ttft-us 25000] [--itl-us 5000] [--nagle]
  kars_load floor  --port P --upstream P [--quickack]
  kars_load naive  --port P --upstream P
  kars_load client --port P [--path /v1/chat/completions] [--model NAME] [--stream]
                   [--connections 32] [--seconds 5 | --count N] [--rate PER_SECOND]
                   [--request-bytes 846] [--tokens N] [--header 'name: value']... [--announce]
                   [--hold | --stall]

  kars_load tunnel-server --port P
  kars_load tunnel-floor  --port P [--splice]
  kars_load tunnel-naive  --port P
  kars_load tunnel-client --port P [--target P] --mode connects|pingpong|bulk|idle
                          [--tunnels 16] [--seconds 5]

The tunnel client asks for 127.0.0.1:<target> by CONNECT; without a target it takes the port itself for the tunnel.
A model called mock-<mode>[-t<tokens>][-f<ttft us>][-i<itl us>][-b<bytes>][-nagle] overrides the mock's
own settings for that call, as in mock-paced-t64-f25000-i5000. GET /totals tells what was served,
of mock and tunnel server.
";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() || words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let command = words.remove(0);
    match run(&command, Args::new(words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kars_load {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, args: Args) -> Fallible<()> {
    match command {
        "mock" => mock::run(args),
        "floor" => floor::run(args),
        "naive" => naive::run(args),
        "client" => client::run(args),
        "tunnel-server" => tunnel::server::run(args),
        "tunnel-floor" => tunnel::floor::run(args),
        "tunnel-naive" => tunnel::naive::run(args),
        "tunnel-client" => tunnel::client::run(args),
        _ => Err(format!("no such command; try --help ({command})").into()),
    }
}
