//! Listening sockets, bound before anything is served so that a taken port is an error at once.

use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Error, Kind, Result};

/// Connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 1024;

/// Binds `count` sockets to one address (`SO_REUSEPORT` shares it when there are several).
pub fn bind(ip: IpAddr, port: u16, count: usize, variable: &str) -> Result<Vec<TcpListener>> {
    let mut bound: Vec<TcpListener> = Vec::with_capacity(count);
    for _ in 0..count {
        let port = bound.first().and_then(|l| l.local_addr().ok()).map_or(port, |a| a.port());
        let address = SocketAddr::new(ip, port);
        bound.push(one(address, count > 1).map_err(|e| {
            Error::new(Kind::Config, format!("cannot listen on {address} ({variable}): {e}"))
        })?);
    }
    Ok(bound)
}

/// Whether this machine has the address (IPv6 may be switched off).
pub fn is_local(ip: IpAddr) -> bool {
    one(SocketAddr::new(ip, 0), false).is_ok()
}

fn one(address: SocketAddr, shared: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    // What is accepted has it, too (tcp(7) sockets are copies of their listener): small writes leave at once.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_sends_at_once() {
        let listener = bind(IpAddr::from([127, 0, 0, 1]), 0, 1, "TEST").unwrap().remove(0);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }
}
