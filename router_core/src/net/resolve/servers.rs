//! Asks name servers: over UDP, and over TCP where an answer does not fit (RFC 7766 §5).

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::{Instant, timeout};

use crate::limits;

/// How much longer a name's AAAA answer is waited for once its A answer is there (RFC 8305 §3, "Resolution Delay").
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Rounds of queries within one lookup's time; within a round, a datagram is sent again every third of a second.
const ROUNDS: u32 = 2;

/// Name servers, with the sockets to them.
#[derive(Debug)]
pub(super) struct Servers(TokioResolver);

/// What the servers say of one name.
#[derive(Debug)]
pub(super) enum Answer {
    /// Its addresses and how long they hold.
    Addresses(Vec<IpAddr>, Duration),
    /// It has no address.
    Missing {
        /// Whether the name itself is there.
        exists: bool,
        /// How long that holds.
        ttl: Duration,
    },
    /// There is no telling, and why.
    Failed(String),
    /// Nobody answered in time.
    Late,
}

impl Servers {
    /// Connects nothing yet. `timeout` is that of one lookup.
    pub(super) fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Self, String> {
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::new());
        *builder.options_mut() = options(timeout);
        builder.build().map(Self).map_err(|e| format!("the name servers cannot be used: {e}"))
    }

    /// The addresses of one fully qualified name. IPv4 answers alone are enough once the other family is late.
    /// Dropping the future abandons both queries.
    pub(super) async fn ask(&self, name: Name) -> Answer {
        let mut six = pin!(self.query(name.clone(), RecordType::AAAA));
        let mut four = pin!(self.query(name, RecordType::A));
        tokio::select! {
            six = &mut six => join(four.await, six),
            four = &mut four => {
                let rest = if matches!(four, Answer::Addresses(..)) {
                    timeout(RESOLUTION_DELAY, six).await.unwrap_or(Answer::Late)
                } else {
                    six.await
                };
                join(four, rest)
            }
        }
    }

    async fn query(&self, name: Name, kind: RecordType) -> Answer {
        match self.0.lookup(name, kind).await {
            Ok(lookup) => addresses(&lookup),
            Err(e) => refusal(&e),
        }
    }
}

fn server(at: &SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    udp.port = at.port();
    tcp.port = at.port();
    NameServerConfig::new(at.ip(), true, vec![udp, tcp])
}

fn options(timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = timeout / ROUNDS;
    options.attempts = ROUNDS as usize - 1;
    // Names are remembered a floor above, both families together.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = false;
    options.max_active_requests = 2 * limits::LOOKUPS;
    options
}

/// Both families' answers as one. What one family lacks does not matter while the other has addresses, but then
/// the answer does not hold for long.
fn join(four: Answer, six: Answer) -> Answer {
    use Answer::{Addresses, Missing};
    match (four, six) {
        (Addresses(mut four, a), Addresses(six, b)) => {
            four.extend(six);
            Addresses(four, a.min(b))
        }
        (Addresses(found, ttl), Missing { .. }) | (Missing { .. }, Addresses(found, ttl)) => {
            Addresses(found, ttl)
        }
        (Addresses(found, ttl), _) | (_, Addresses(found, ttl)) => {
            Addresses(found, ttl.min(limits::MISSING_LONGEST))
        }
        (Missing { exists: four, ttl: a }, Missing { exists: six, ttl: b }) => {
            Missing { exists: four || six, ttl: a.min(b) }
        }
        (Missing { .. }, failed) | (failed, _) => failed,
    }
}

fn addresses(lookup: &Lookup) -> Answer {
    let found: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
    if found.is_empty() {
        return Answer::Missing { exists: true, ttl: limits::RESOLVED_SHORTEST };
    }
    let left = lookup.valid_until().saturating_duration_since(Instant::now().into_std());
    Answer::Addresses(found, left.clamp(limits::RESOLVED_SHORTEST, limits::RESOLVED_LONGEST))
}

fn refusal(error: &NetError) -> Answer {
    match error {
        NetError::Timeout => Answer::Late,
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let ttl = none.negative_ttl.map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.into()));
            Answer::Missing {
                exists: none.response_code != ResponseCode::NXDomain,
                ttl: ttl.clamp(limits::RESOLVED_SHORTEST, limits::MISSING_LONGEST),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => Answer::Failed(match *code {
            ResponseCode::ServFail => {
                "the name server failed (SERVFAIL): it could not reach or not verify the name's zone".into()
            }
            ResponseCode::Refused => {
                "the name server refuses to answer (REFUSED): it does not serve us".into()
            }
            code => format!("the name server answered with an error ({code})"),
        }),
        NetError::Io(e) => Answer::Failed(format!("no name server can be reached: {e}")),
        other => Answer::Failed(format!("the name server's answer cannot be used: {other}")),
    }
}
