//! The egress proxy: the only way out of the sandbox. One connection comes in by one of its doors (CONNECT, a plain HTTP
//! request, redirected TLS), the gate decides, the destination's addresses are classified, and exactly one of those is
//! dialled.

pub mod feeds;
pub mod fetch;
pub mod outbound;
pub mod reach;

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::proxy::worker::Worker;

/// Serves one connection of the egress port to its end.
pub async fn serve(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr) {
    let _ = (worker, tcp, peer);
}
