//! Names to addresses, every one of them classified: what is dialled later is exactly what was checked here.

mod cache;
mod servers;
mod system;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use self::cache::{Cache, Found};
use self::servers::Answer;
use self::system::{Files, System};
use crate::error::{Error, Kind, Result, Step};
use crate::ids::{Destination, Host};
use crate::limits;
use crate::wire::address::{Cidr, Class, classify};

/// A resolver of one serving thread, with its own cache. One name is asked for once at a time, however many wait for it.
#[derive(Debug)]
pub struct Resolver {
    timeout: Duration,
    servers: Box<[SocketAddr]>,
    files: Files,
    system: RefCell<Option<Rc<System>>>,
    cache: RefCell<Cache>,
    /// Names that are being asked for; whoever holds the lock asks, the others then find the answer in the cache.
    flights: RefCell<HashMap<Box<str>, Rc<Mutex<()>>>>,
}

/// Why no address of a destination may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    /// The first address that was turned down.
    pub address: IpAddr,
    /// What it is for.
    pub class: Class,
}

impl Resolver {
    /// A resolver over `servers` alone, or over the system's configuration (`resolv.conf(5)`, `hosts(5)`) when there are
    /// none. `timeout` bounds one lookup with all its queries. Reads and connects nothing yet.
    pub fn new(servers: &[SocketAddr], timeout: Duration) -> Self {
        Self {
            timeout,
            servers: servers.into(),
            files: Files::default(),
            system: RefCell::default(),
            cache: RefCell::default(),
            flights: RefCell::default(),
        }
    }

    /// All addresses of a host, IPv6 and IPv4 in turn (RFC 8305 §4), at most [`limits::ADDRESSES`]. An IP literal is its
    /// own address; `localhost` and names below it are loopback, whatever a server says (RFC 6761 §6.3). A name with a
    /// dot is asked for as it is, then along the search list; one without, along the search list alone.
    ///
    /// Dropping the future abandons the queries; another caller that waits for the same name takes over.
    ///
    /// # Errors
    /// [`Kind::Upstream`] or [`Kind::Timeout`] of [`Step::Resolve`].
    pub async fn lookup(&self, host: &Host) -> Result<Vec<IpAddr>> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![*ip]),
            Host::Name(name) => name,
        };
        if is_localhost(name) {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        match self.known(name) {
            Some(known) => known,
            None => self.resolve(name).await,
        }
    }

    fn known(&self, name: &str) -> Option<Result<Vec<IpAddr>>> {
        self.cache.borrow().find(name, Instant::now()).map(owned)
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>> {
        let deadline = Instant::now() + self.timeout;
        let flight = self.board(name)?;
        let Ok(_turn) = timeout_at(deadline, flight.turn.lock()).await else {
            return Err(self.late(name));
        };
        // Whoever had the turn before has left the answer there.
        if let Some(known) = self.known(name) {
            return known;
        }
        let asked = timeout_at(deadline, self.ask(name)).await;
        let (found, ttl) = asked.unwrap_or_else(|_| (Err(self.late(name)), limits::FAILED_LOOKUP));
        let result = owned(&found);
        let now = Instant::now();
        self.cache.borrow_mut().keep(name, found, now + ttl, now);
        result
    }

    /// Joins those that wait for a name.
    fn board(&self, name: &str) -> Result<Flight<'_>> {
        let mut flights = self.flights.borrow_mut();
        if let Some((name, turn)) = flights.get_key_value(name) {
            return Ok(Flight { resolver: self, name: name.clone(), turn: turn.clone() });
        }
        if flights.len() >= limits::LOOKUPS {
            let (got, max) = (flights.len() + 1, limits::LOOKUPS);
            return Err(failed(
                name,
                &format!("{got} names are being resolved at one time, the most is {max}"),
            ));
        }
        let turn = Rc::<Mutex<()>>::default();
        flights.insert(name.into(), turn.clone());
        Ok(Flight { resolver: self, name: name.into(), turn })
    }

    /// What the hosts file or the name servers say, and how long that holds.
    async fn ask(&self, name: &str) -> (Found, Duration) {
        if self.servers.is_empty() {
            let local = self.files.hosts(name);
            if !local.is_empty() {
                return (Ok(in_turn(&local)), limits::RESOLVED_SHORTEST);
            }
        }
        let system = match self.system() {
            Ok(system) => system,
            Err(e) => return (Err(failed(name, &e)), limits::FAILED_LOOKUP),
        };
        let mut exists = false;
        let mut longest = limits::MISSING_LONGEST;
        let mut asked = 0_usize;
        for candidate in system.candidates(name) {
            asked += 1;
            match system.servers.ask(candidate).await {
                Answer::Addresses(found, ttl) => return (Ok(in_turn(&found)), ttl),
                // Only a name that is not there may be another one's abbreviation.
                Answer::Missing { exists: there, ttl } => {
                    exists |= there;
                    longest = longest.min(ttl);
                }
                Answer::Failed(why) => return (Err(failed(name, &why)), limits::FAILED_LOOKUP),
                Answer::Late => return (Err(self.late(name)), limits::FAILED_LOOKUP),
            }
        }
        (Err(failed(name, missing(exists, asked))), longest)
    }

    /// The name servers and the search list, read when they are asked for first and when their file has changed.
    fn system(&self) -> Result<Rc<System>, String> {
        let mut system = self.system.borrow_mut();
        if let Some(system) = system.as_ref()
            && (!self.servers.is_empty() || !system.is_outdated(&self.files))
        {
            return Ok(system.clone());
        }
        let fresh = if self.servers.is_empty() {
            System::read(&self.files, self.timeout)?
        } else {
            System::of(&self.servers, self.timeout)?
        };
        Ok(system.insert(Rc::new(fresh)).clone())
    }

    fn late(&self, name: &str) -> Error {
        let text = format!("resolve {name}: no name server answered within {:?}", self.timeout);
        Error::new(Kind::Timeout(Step::Resolve), text)
    }
}

/// One caller among those that wait for a name; the last one to leave takes the name off.
struct Flight<'a> {
    resolver: &'a Resolver,
    name: Box<str>,
    turn: Rc<Mutex<()>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // This one and the map's own.
        if Rc::strong_count(&self.turn) == 2 {
            self.resolver.flights.borrow_mut().remove(&self.name);
        }
    }
}

/// The addresses that may be dialled: global ones, and those that `granted` holds. A metadata service, which hands out
/// credentials, takes a grant of exactly its address: no wide block is meant to open it.
///
/// # Errors
/// The first address that was turned down, when there is none to dial.
pub fn screen(
    found: &[IpAddr],
    destination: &Destination,
    granted: &[Cidr],
) -> std::result::Result<Vec<SocketAddr>, Barred> {
    let mut barred = None;
    let mut allowed = Vec::with_capacity(found.len());
    for ip in found {
        let class = classify(*ip);
        let exact = class == Class::Metadata;
        let grants = |block: &Cidr| block.contains(*ip) && (!exact || block.is_one());
        if class.is_global() || granted.iter().any(grants) {
            allowed.push(SocketAddr::new(*ip, destination.port));
        } else {
            barred.get_or_insert(Barred { address: *ip, class });
        }
    }
    match barred {
        Some(barred) if allowed.is_empty() => Err(barred),
        _ => Ok(allowed),
    }
}

fn is_localhost(name: &str) -> bool {
    name.strip_suffix("localhost").is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// IPv6 and IPv4 in turn, IPv6 first, each address once.
fn in_turn(found: &[IpAddr]) -> Rc<[IpAddr]> {
    let mut six = found.iter().filter(|ip| ip.is_ipv6());
    let mut four = found.iter().filter(|ip| ip.is_ipv4());
    let mut order = Vec::with_capacity(found.len().min(limits::ADDRESSES));
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] || order.len() >= limits::ADDRESSES {
            order.truncate(limits::ADDRESSES);
            return order.into();
        }
        for ip in pair.into_iter().flatten() {
            if !order.contains(ip) {
                order.push(*ip);
            }
        }
    }
}

fn owned(found: &Found) -> Result<Vec<IpAddr>> {
    found.as_ref().map(|addresses| addresses.to_vec()).map_err(Clone::clone)
}

fn failed(name: &str, why: &str) -> Error {
    Error::new(Kind::Upstream(Step::Resolve), format!("resolve {name}: {why}"))
}

fn missing(exists: bool, asked: usize) -> &'static str {
    match (exists, asked) {
        (_, 0) => "a name without a dot needs a search list or a hosts file: write the full name",
        (true, _) => "the name exists, but has no address (neither A nor AAAA record)",
        (false, 1) => "the name does not exist (NXDOMAIN)",
        (false, _) => "the name does not exist (NXDOMAIN), nor along the search list",
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
