//! The self-client behind `kars probe`: one request to this sandbox's own router.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use router_core::error::{Error, Kind, Result};
use router_core::policy::provider::Secret;
use router_core::settings::Settings;
use router_core::wire::body::Walker;
use router_core::wire::head;

const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Sends one request with the admin token, where one can be read; gives status and body.
pub fn call(method: &str, path: &str, body: Option<&[u8]>, environment: &[u8]) -> Result<(u16, Vec<u8>)> {
    let settings = Settings::parse(environment)?;
    let ip = if settings.bind.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { settings.bind };
    let address = SocketAddr::new(ip, settings.port);
    let failed = |e: std::io::Error| Error::io(format!("probe {address}"), &e);
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream
        .write_all(request(method, path, body.unwrap_or(&[]), token(&settings).as_ref()).as_slice())
        .map_err(failed)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    parse(&bytes, method)
}

fn request(method: &str, path: &str, body: &[u8], token: Option<&Secret>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    if let Some(token) = token {
        head.push_str("authorization: Bearer ");
        head.push_str(token.expose());
        head.push_str("\r\n");
    }
    if !body.is_empty() {
        head.push_str("content-type: application/json\r\ncontent-length: ");
        head.push_str(&body.len().to_string());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn token(settings: &Settings) -> Option<Secret> {
    ["/etc/kars/secrets/admin-token", "/run/secrets/admin-token"]
        .iter()
        .find_map(|file| Secret::read(Path::new(file)).ok())
        .or_else(|| Secret::parse(&settings.var("ADMIN_TOKEN")?, "ADMIN_TOKEN").ok())
}

fn parse(bytes: &[u8], method: &str) -> Result<(u16, Vec<u8>)> {
    let unreadable = || Error::new(Kind::Io, "the router's answer is not readable");
    let head = head::response(bytes, method)?.ok_or_else(unreadable)?;
    let mut content = Vec::new();
    let rest = bytes.get(head.len..).unwrap_or(&[]);
    Walker::new(head.framing).feed(rest, |run| content.extend_from_slice(run))?;
    Ok((head.status, content))
}
