//! From leave to a connected socket: resolve, classify, dial.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::error::Error;
use crate::gate::egress::{Passage, Refusal};
use crate::ids::{Destination, EgressReason};
use crate::net::dial;
use crate::net::resolve::{Barred, screen};
use crate::proxy::worker::Worker;

/// Why there is no connection.
#[derive(Debug)]
pub enum Failed {
    /// The address guard forbids it.
    Barred(Refusal),
    /// The network failed.
    Broken(Error),
}

/// Connects to a destination under its leave. Every address is classified; only global ones and those that the rule
/// grants are dialled, each of them before giving up. Dropping the future abandons the attempt.
pub async fn open(
    worker: &Worker,
    destination: &Destination,
    passage: &Passage,
) -> Result<(TcpStream, SocketAddr), Failed> {
    let found = worker.resolver.lookup(&destination.host).await.map_err(Failed::Broken)?;
    let allowed = screen(&found, destination, passage.granted())
        .map_err(|b| Failed::Barred(barred(destination, &b)))?;
    let per_address = worker.shared.settings.egress.connect;
    dial::race(&allowed, per_address).await.map_err(Failed::Broken)
}

/// Whether a connection that is open already may serve under another leave than the one it was made with.
///
/// # Errors
/// The refusal where the new leave does not reach that address.
pub fn check(destination: &Destination, address: SocketAddr, passage: &Passage) -> Result<(), Refusal> {
    screen(&[address.ip()], destination, passage.granted()).map(|_| ()).map_err(|b| barred(destination, &b))
}

fn barred(destination: &Destination, barred: &Barred) -> Refusal {
    let (address, class) = (barred.address, barred.class.name());
    Refusal::new(
        EgressReason::Address,
        "address-guard",
        format!("{} is {address}, a {class} address", destination.host),
        format!("where that is meant, grant it: \"addresses\": [\"{address}\"] at the endpoint"),
    )
}
