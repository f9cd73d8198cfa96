//! A name server that says exactly what a test tells it to, over UDP and TCP, and remembers what it was asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Record types.
pub(crate) const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
/// See [`A`].
pub(crate) const AAAA: u16 = 28;
/// Response codes.
pub(crate) const SERVFAIL: u8 = 2;
/// See [`SERVFAIL`].
pub(crate) const NXDOMAIN: u8 = 3;
/// See [`SERVFAIL`].
pub(crate) const REFUSED: u8 = 5;
/// What a datagram of ours carries at most.
const DATAGRAM: usize = 1232;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// Lower case, without the dot at its end.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) tcp: bool,
}

/// What to do about a question.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The addresses of the family asked for, behind a chain of aliases that begins at the name.
    Found { ttl: u32, aliases: Vec<&'static str>, addresses: Vec<IpAddr> },
    /// A response code, 0 among them, with the SOA minimum that says how long that holds.
    Code(u8, Option<u32>),
    /// Nothing.
    Silent,
    /// Another reply, later.
    Late(Duration, Box<Reply>),
    /// The truncation bit over UDP, the reply over TCP.
    Truncated(Box<Reply>),
    /// Before the reply, an answer that has another id and these addresses.
    Forged(Vec<IpAddr>, Box<Reply>),
}

/// Addresses that hold for a minute.
pub(crate) fn found(addresses: &[&str]) -> Reply {
    held(60, addresses)
}

/// Addresses that hold for `ttl` seconds.
pub(crate) fn held(ttl: u32, addresses: &[&str]) -> Reply {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Reply::Found { ttl, aliases: Vec::new(), addresses }
}

type Script = Arc<Mutex<dyn FnMut(&Query) -> Reply + Send>>;

/// The server; dropping it ends it.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Query>>>,
    _tasks: JoinSet<()>,
}

impl Dns {
    /// Serves on a free port of 127.0.0.1.
    pub(crate) async fn start(script: impl FnMut(&Query) -> Reply + Send + 'static) -> Self {
        let (tcp, udp) = bind().await;
        let address = tcp.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Query>>>::default();
        let script: Script = Arc::new(Mutex::new(script));
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(Arc::new(udp), script.clone(), asked.clone()));
        tasks.spawn(streams(tcp, script, asked.clone()));
        Self { address, asked, _tasks: tasks }
    }

    /// All questions so far.
    pub(crate) fn asked(&self) -> Vec<Query> {
        self.asked.lock().unwrap().clone()
    }

    /// How often a record type was asked for.
    pub(crate) fn count(&self, kind: u16) -> usize {
        self.asked.lock().unwrap().iter().filter(|query| query.kind == kind).count()
    }
}

/// Both on one port, which the kernel picks for TCP and another process may have for UDP.
async fn bind() -> (TcpListener, UdpSocket) {
    for _ in 0..20 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (tcp, udp);
        }
    }
    panic!("no port was free for both");
}

async fn datagrams(udp: Arc<UdpSocket>, script: Script, asked: Arc<Mutex<Vec<Query>>>) {
    let mut late = JoinSet::new();
    let mut buf = [0; 4096];
    loop {
        let (size, peer) = udp.recv_from(&mut buf).await.unwrap();
        let (message, udp) = (buf[..size].to_vec(), udp.clone());
        let (query, reply) = decide(&message, false, &script, &asked);
        late.spawn(async move {
            let mut reply = reply;
            if let Reply::Forged(addresses, then) = reply {
                let forged = Reply::Found { ttl: 60, aliases: Vec::new(), addresses };
                let mut bytes = written(&message, &query, forged).await.unwrap();
                bytes[0] ^= 0x55;
                udp.send_to(&bytes, peer).await.unwrap();
                reply = *then;
            }
            if let Some(mut bytes) = written(&message, &query, reply).await {
                if bytes.len() > DATAGRAM {
                    bytes = response(&message, 0x0200, &[], 0);
                }
                // The resolver may have left.
                let _ = udp.send_to(&bytes, peer).await;
            }
        });
    }
}

async fn streams(tcp: TcpListener, script: Script, asked: Arc<Mutex<Vec<Query>>>) {
    let mut peers = JoinSet::new();
    while let Ok((peer, _)) = tcp.accept().await {
        peers.spawn(stream(peer, script.clone(), asked.clone()));
    }
}

async fn stream(mut peer: TcpStream, script: Script, asked: Arc<Mutex<Vec<Query>>>) {
    while let Ok(size) = peer.read_u16().await {
        let mut message = vec![0; size.into()];
        peer.read_exact(&mut message).await.unwrap();
        let (query, reply) = decide(&message, true, &script, &asked);
        if let Some(bytes) = written(&message, &query, reply).await {
            peer.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            peer.write_all(&bytes).await.unwrap();
        }
    }
}

fn decide(message: &[u8], tcp: bool, script: &Script, asked: &Mutex<Vec<Query>>) -> (Query, Reply) {
    let (name, kind, _) = question(message);
    let query = Query { name, kind, tcp };
    asked.lock().unwrap().push(query.clone());
    let reply = (script.lock().unwrap())(&query);
    (query, reply)
}

async fn written(message: &[u8], query: &Query, mut reply: Reply) -> Option<Vec<u8>> {
    loop {
        match reply {
            Reply::Silent => return None,
            Reply::Code(code, minimum) => {
                let soa = minimum.map(|minimum| {
                    let numbers = [1, 60, 60, 60, minimum];
                    [vec![0, 0], numbers.iter().flat_map(|n: &u32| n.to_be_bytes()).collect()].concat()
                });
                let soa: Vec<_> =
                    soa.map(|data| (query.name.clone(), SOA, minimum.unwrap(), data)).into_iter().collect();
                return Some(response(message, code.into(), &soa, 1));
            }
            Reply::Late(wait, then) => {
                tokio::time::sleep(wait).await;
                reply = *then;
            }
            Reply::Truncated(then) if query.tcp => reply = *then,
            Reply::Truncated(_) => return Some(response(message, 0x0200, &[], 0)),
            Reply::Forged(_, then) => reply = *then,
            Reply::Found { ttl, aliases, addresses } => {
                let mut owner = query.name.clone();
                let mut records = Vec::new();
                for alias in aliases {
                    records.push((owner, CNAME, ttl, encoded(alias)));
                    owner = alias.into();
                }
                for address in addresses {
                    let (kind, data) = match address {
                        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
                        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
                    };
                    if kind == query.kind {
                        records.push((owner.clone(), kind, ttl, data));
                    }
                }
                return Some(response(message, 0, &records, 0));
            }
        }
    }
}

/// The name, the type and the section as it came.
fn question(message: &[u8]) -> (String, u16, &[u8]) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while message[at] > 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8(message[at + 1..end].to_vec()).unwrap().to_ascii_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([message[at + 1], message[at + 2]]);
    (labels.join("."), kind, &message[12..at + 5])
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len().try_into().unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// RFC 1035 §4.1; `section` is 0 for answers and 1 for authorities.
fn response(message: &[u8], flags: u16, records: &[(String, u16, u32, Vec<u8>)], section: usize) -> Vec<u8> {
    let mut counts = [0_u16; 3];
    counts[section] = records.len().try_into().unwrap();
    let mut bytes = message[..2].to_vec();
    for word in [0x8180 | flags, 1, counts[0], counts[1], counts[2]] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend_from_slice(question(message).2);
    for (owner, kind, ttl, data) in records {
        bytes.extend(encoded(owner));
        bytes.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    bytes
}
