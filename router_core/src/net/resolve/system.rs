//! The machine's own configuration of name resolution: `resolv.conf(5)` and `hosts(5)`.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hickory_resolver::proto::rr::Name;
use tokio::time::Instant;

use super::servers::Servers;

/// How much of a file is read. A pod's have some lines; a laptop's hosts file may block ads.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Name servers that are used of a file, as in the C library (`MAXNS`).
const NAME_SERVERS: usize = 3;
/// Entries of a search list that are used: Kubernetes writes no more (`MaxDNSSearchPaths`).
const SEARCH_LIST: usize = 32;
/// How long the file's age is taken for granted.
const RECHECK: Duration = Duration::from_secs(5);

/// Where the configuration lies.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) resolv: &'static Path,
    pub(super) hosts: &'static Path,
}

impl Default for Files {
    fn default() -> Self {
        Self { resolv: Path::new("/etc/resolv.conf"), hosts: Path::new("/etc/hosts") }
    }
}

impl Files {
    /// The addresses that the hosts file has for a name. Read anew each time, as the C library does: it is short
    /// where it matters, and holding it would cost more.
    pub(super) fn hosts(&self, name: &str) -> Vec<IpAddr> {
        read(self.hosts).map(|text| hosts(&text, name)).unwrap_or_default()
    }
}

/// Name servers and the search list.
#[derive(Debug)]
pub(super) struct System {
    pub(super) servers: Servers,
    pub(super) search: Vec<Name>,
    modified: Option<SystemTime>,
    pub(super) checked: Cell<Option<Instant>>,
}

impl System {
    /// Of servers alone: no search list.
    pub(super) fn of(servers: &[SocketAddr], timeout: Duration) -> Result<Self, String> {
        let servers = Servers::new(servers, timeout)?;
        Ok(Self { servers, search: Vec::new(), modified: None, checked: Cell::new(None) })
    }

    /// As the machine has it.
    pub(super) fn read(files: &Files, timeout: Duration) -> Result<Self, String> {
        let path = files.resolv.display();
        // Asked before the file is read: a change in between is seen at the next check.
        let modified = modified(files.resolv);
        let text = read(files.resolv).map_err(|e| format!("no name server is known: {path}: {e}"))?;
        let (servers, search) = resolv(&text);
        if servers.is_empty() {
            return Err(format!("no name server is known: {path} names none"));
        }
        let servers = Servers::new(&servers, timeout)?;
        Ok(Self { servers, search, modified, checked: Cell::new(Some(Instant::now())) })
    }

    /// Whether the file has changed since it was read; looked at every few seconds at most.
    pub(super) fn is_outdated(&self, files: &Files) -> bool {
        let now = Instant::now();
        if self.checked.get().is_some_and(|checked| now < checked + RECHECK) {
            return false;
        }
        self.checked.set(Some(now));
        modified(files.resolv) != self.modified
    }

    /// The fully qualified names that a name may stand for, in the order they are asked for: itself when it has a dot
    /// (`ndots:1`), then along the search list.
    pub(super) fn candidates(&self, name: &str) -> impl Iterator<Item = Name> {
        let mut own = Name::from_ascii(name).ok();
        let below: Vec<Name> = own
            .iter()
            .flat_map(|own| self.search.iter().filter_map(|base| own.clone().append_domain(base).ok()))
            .collect();
        if let Some(own) = own.as_mut() {
            own.set_fqdn(true);
        }
        own.filter(|_| name.contains('.')).into_iter().chain(below)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|data| data.modified()).ok()
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The addresses of a name in a hosts file.
fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let named = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(ip)
    };
    text.lines().filter_map(named).collect()
}

/// The name servers and the search list of a `resolv.conf`. Its options are left: the deadline is ours, and so is the
/// order in which names are tried.
fn resolv(text: &str) -> (Vec<SocketAddr>, Vec<Name>) {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                let ip: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
                servers.extend(ip.filter(|_| servers.len() < NAME_SERVERS).map(|ip| SocketAddr::new(ip, 53)));
            }
            // The last of them counts.
            Some("search") => search = words.filter_map(base).take(SEARCH_LIST).collect(),
            Some("domain") => search = words.take(1).filter_map(base).collect(),
            _ => {}
        }
    }
    (servers, search)
}

/// An entry of a search list; the root adds nothing to a name.
fn base(word: &str) -> Option<Name> {
    let mut name = Name::from_ascii(word).ok().filter(|name| !name.is_root())?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_gives_servers_and_the_last_search_list() {
        let text = "# by hand\ndomain first.example\nsearch ns.svc.cluster.local. svc.cluster.local\n\
            nameserver 10.96.0.10\n; nameserver 192.0.2.1\nnameserver 2001:db8::53 # second\n\
            nameserver fe80::1%eth0\noptions ndots:5 timeout:1\nnonsense";
        let (servers, search) = resolv(text);
        assert_eq!(servers, ["10.96.0.10:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]);
        let search: Vec<String> = search.iter().map(Name::to_string).collect();
        assert_eq!(search, ["ns.svc.cluster.local.", "svc.cluster.local."]);
    }

    #[test]
    fn a_resolv_conf_counts_as_far_as_its_bounds() {
        let text = "nameserver 192.0.2.1\n".repeat(9) + "search" + &" a.example".repeat(99);
        let (servers, search) = resolv(&text);
        assert_eq!((servers.len(), search.len()), (NAME_SERVERS, SEARCH_LIST));
        assert_eq!(resolv("nameserver\nsearch .\nsearch ..\nnameserver dns.example"), (vec![], vec![]));
    }

    #[test]
    fn a_hosts_file_gives_every_address_of_a_name_and_of_its_other_spellings() {
        let text = "127.0.0.1 localhost\n\n10.0.0.5\tapi.example.com  API2.example.com. # ours\n\
            #10.0.0.6 api.example.com\n::5 api.example.com\nnonsense api.example.com\n10.0.0.7";
        let found = |name| hosts(text, name);
        assert_eq!(found("api.example.com"), ["10.0.0.5".parse::<IpAddr>().unwrap(), "::5".parse().unwrap()]);
        assert_eq!(found("api2.example.com"), ["10.0.0.5".parse::<IpAddr>().unwrap()]);
        assert!(found("ours").is_empty() && found("example.com").is_empty());
    }
}
