//! The sidecar's settings: parsed once, strictly, from one environment block.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::ids::SandboxName;
use crate::limits;

/// One variable: the single source for parsing, `kars router --help` and the documentation.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// Value when unset, as text.
    pub default: &'static str,
    /// Heading in help texts.
    pub group: &'static str,
    /// What it does, one line.
    pub help: &'static str,
}

const fn var(group: &'static str, name: &'static str, default: &'static str, help: &'static str) -> Variable {
    Variable { name, default, group, help }
}

/// Every variable that the router reads.
pub const VARIABLES: &[Variable] = &[
    var(
        "Listeners",
        "ROUTER_PORT",
        "8443",
        "Port of the inference API (plain HTTP/1.1 and h2c); 0 picks a free one",
    ),
    var("Listeners", "ROUTER_BIND", "0.0.0.0", "Address of the inference API"),
    var(
        "Listeners",
        "ROUTER_METRICS_PORT",
        "9090",
        "Port of /metrics and the probes alone; 'off' for none, 0 picks a free one",
    ),
    var("Listeners", "ROUTER_WORKERS", "1", "Threads that serve, each with its own event loop (1 to 64)"),
    var(
        "Listeners",
        "ROUTER_MAX_CONNECTIONS",
        "4096",
        "Client connections at one time; more wait in the kernel's queue",
    ),
    var(
        "Listeners",
        "ROUTER_CONCURRENCY_LIMIT",
        "4096",
        "Calls in flight at one time; more get 503 with Retry-After",
    ),
    var("Listeners", "ROUTER_BODY_LIMIT_BYTES", "33554432", "Largest request body; more gets 413"),
    var(
        "Listeners",
        "ROUTER_BODY_MEMORY_BYTES",
        "268435456",
        "Memory that all request bodies together may hold; more gets 503",
    ),
    var(
        "Listeners",
        "SHUTDOWN_TIMEOUT_SECS",
        "",
        "Grace for calls in flight after SIGTERM; default: TERMINATION_GRACE_PERIOD_SECS - 5, else 25",
    ),
    var(
        "Listeners",
        "TERMINATION_GRACE_PERIOD_SECS",
        "",
        "The pod's grace period, used when SHUTDOWN_TIMEOUT_SECS is unset",
    ),
    var(
        "Identity",
        "SANDBOX_NAME",
        "unknown",
        "This sandbox's name: budget, audit and metrics carry it; no header can change it",
    ),
    var(
        "Identity",
        "ADMIN_TOKEN",
        "",
        "Bearer token of the admin routes; files /etc/kars/secrets/admin-token and /run/secrets/admin-token win",
    ),
    var(
        "Identity",
        "ROUTER_ADMIN_ALLOW_IPS",
        "",
        "Comma-separated addresses that may use admin routes; empty: any, with the token",
    ),
    var(
        "Upstream",
        "AZURE_OPENAI_ENDPOINT",
        "",
        "Azure OpenAI or Foundry endpoint; falls back to FOUNDRY_ENDPOINT",
    ),
    var("Upstream", "FOUNDRY_ENDPOINT", "", "Foundry endpoint, when AZURE_OPENAI_ENDPOINT is unset"),
    var("Upstream", "AZURE_OPENAI_API_KEY", "", "Its key; the file /run/secrets/azure-openai-key wins"),
    var(
        "Upstream",
        "OPENAI_BASE_URL",
        "",
        "OpenAI or any compatible server, with its /v1 (vLLM, Ollama, ...)",
    ),
    var("Upstream", "OPENAI_API_KEY", "", "Its key; may be absent for a local server"),
    var("Upstream", "ANTHROPIC_BASE_URL", "", "Anthropic or a compatible server, without /v1"),
    var("Upstream", "ANTHROPIC_API_KEY", "", "Its key"),
    var(
        "Upstream",
        "DEFAULT_MODEL",
        "",
        "Model of requests that name none; falls back to AZURE_OPENAI_DEPLOYMENT, OPENCLAW_MODEL, gpt-4.1",
    ),
    var("Upstream", "AZURE_OPENAI_DEPLOYMENT", "", "Default model, when DEFAULT_MODEL is unset"),
    var("Upstream", "OPENCLAW_MODEL", "", "Default model, when neither is set"),
    var(
        "Upstream",
        "UPSTREAM_HTTP",
        "1.1",
        "HTTP version spoken to upstreams: 1.1 or 2 (over TLS by ALPN, else with prior knowledge)",
    ),
    var(
        "Upstream",
        "UPSTREAM_CA_FILE",
        "",
        "PEM file of the certificate authorities to trust instead of the system's",
    ),
    var("Upstream", "UPSTREAM_IDLE_CONNECTIONS", "256", "Idle connections kept per upstream and worker"),
    var("Timeouts", "ROUTER_CONNECT_TIMEOUT_SECS", "10", "TCP connect to an upstream, per address"),
    var("Timeouts", "ROUTER_TLS_TIMEOUT_SECS", "10", "TLS handshake with an upstream"),
    var("Timeouts", "ROUTER_FIRST_BYTE_TIMEOUT_SECS", "600", "From the request sent to the response head"),
    var("Timeouts", "ROUTER_IDLE_TIMEOUT_SECS", "300", "Silence between two reads of an answer"),
    var("Timeouts", "ROUTER_TOTAL_TIMEOUT_SECS", "0", "A whole call, streams included; 0 for none"),
    var("Timeouts", "ROUTER_HEAD_TIMEOUT_SECS", "10", "A client's request head, from its first byte"),
    var("Timeouts", "ROUTER_BODY_TIMEOUT_SECS", "60", "Silence between two reads of a request body"),
    var("Timeouts", "ROUTER_CLIENT_IDLE_SECS", "75", "An idle keep-alive connection of a client"),
    var("Timeouts", "ROUTER_CLIENT_STALL_SECS", "120", "A client that does not read its answer"),
    var(
        "Timeouts",
        "ROUTER_KEEPALIVE_SECS",
        "15",
        "Silence in a stream after which a keepalive comment or ping is sent; 0 for none",
    ),
    var("Policy", "INFERENCE_POLICY_DIR", "/etc/kars/inference", "Mount with inference-policy.json"),
    var(
        "Policy",
        "INFERENCE_POLICY_WATCH_INTERVAL",
        "5",
        "Seconds between looks at the mounts where file events do not arrive",
    ),
    var(
        "Policy",
        "INFERENCE_POLICY_MISSING",
        "auto",
        "Without a policy: deny, open, or auto (open only where no mount is configured or present, outside Kubernetes)",
    ),
    var(
        "Egress",
        "FORWARD_PROXY_PORT",
        "8444",
        "Port of the egress proxy: CONNECT, plain HTTP, redirected TLS; 'off' for none, 0 picks a free one",
    ),
    var(
        "Egress",
        "FORWARD_PROXY_BIND",
        "127.0.0.1,::1",
        "Addresses of the egress proxy, comma-separated; one that the machine does not have is left out",
    ),
    var(
        "Egress",
        "EGRESS_MODE",
        "auto",
        "strict: only what the policy allows; learn: record and let pass; auto: learn only where no mount is configured or present, outside Kubernetes",
    ),
    var("Egress", "EGRESS_ALLOWLIST_DIR", "/etc/kars/egress", "Mount with allowlist.json"),
    var("Egress", "EGRESS_APPROVAL_DIR", "/etc/kars/egress-approvals", "Mount with approval-*.json"),
    var(
        "Egress",
        "EGRESS_FRONTING",
        "refuse",
        "What becomes of a connection whose CONNECT host, SNI and Host differ or are hidden: refuse or allow",
    ),
    var(
        "Egress",
        "EGRESS_MAX_CONNECTIONS",
        "4096",
        "Connections through the egress proxy at one time; more get 503",
    ),
    var(
        "Egress",
        "EGRESS_HEAD_TIMEOUT_SECS",
        "10",
        "A client's request head or TLS client hello, from accept",
    ),
    var("Egress", "EGRESS_DNS_TIMEOUT_SECS", "5", "Name resolution of a destination"),
    var("Egress", "EGRESS_CONNECT_TIMEOUT_SECS", "10", "TCP connect to a destination, per address"),
    var("Egress", "EGRESS_IDLE_TIMEOUT_SECS", "300", "Silence of a tunnel in both directions"),
    var("Egress", "EGRESS_LIFETIME_SECS", "3600", "Longest life of a tunnel; 0 for no bound"),
    var(
        "Egress",
        "EGRESS_MAX_BYTES",
        "0",
        "Bytes that one tunnel may move where its rule has no maxBytes; 0 for no bound",
    ),
    var(
        "Egress",
        "EGRESS_DNS_SERVERS",
        "",
        "Name servers, comma-separated address:port; empty: the system's configuration",
    ),
    var(
        "Egress",
        "EGRESS_LEARNED_PATH",
        "/var/lib/kars/egress-learned.jsonl",
        "What learn mode recorded; empty for memory only",
    ),
    var(
        "Egress",
        "BLOCKLIST_ENABLED",
        "true",
        "Blocklists, blocked top-level domains and IP literals: true or false",
    ),
    var(
        "Egress",
        "BLOCKLIST_SEED_PATH",
        "/etc/kars/blocklist/domains.txt",
        "A blocklist file, in domain, hosts or adblock form",
    ),
    var(
        "Egress",
        "BLOCKLIST_FEEDS",
        "auto",
        "URLs of blocklist feeds, comma-separated; auto: OISD small and URLhaus in Kubernetes, none elsewhere",
    ),
    var("Egress", "BLOCKLIST_REFRESH_SECS", "21600", "Seconds between two reads of the feeds"),
    var("Policy", "TOKEN_BUDGET_DAILY", "0", "Daily token budget where the policy has none; 0 for none"),
    var(
        "Policy",
        "TOKEN_BUDGET_PER_REQUEST",
        "0",
        "Output cap per request where the policy has none; 0 for none",
    ),
    var(
        "Records",
        "TOKEN_BUDGET_PERSIST_PATH",
        "/var/lib/kars/token-budgets.json",
        "Budget journal (beside this name, .journal); empty for memory only",
    ),
    var(
        "Records",
        "KARS_AUDIT_DIR",
        "/var/log/kars/audit",
        "Audit log directory; empty or 'disabled' for none",
    ),
    var("Records", "RUST_LOG", "kars=info", "Log filter: a level, or target=level pairs, comma-separated"),
    var("Records", "KARS_LOG_FORMAT", "json", "Log lines on standard error: json or text"),
];

/// What a call without any policy gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingPolicy {
    /// 503 until a policy is there.
    Deny,
    /// Only the environment's limits apply.
    Open,
}

/// Each wait has its own bound and its own error.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// TCP connect, per address.
    pub connect: Duration,
    /// TLS handshake.
    pub tls: Duration,
    /// From the request sent to the response head.
    pub first_byte: Duration,
    /// Silence between two reads of an answer.
    pub idle: Duration,
    /// A whole call; `None` for no bound.
    pub total: Option<Duration>,
    /// A client's head, from its first byte.
    pub head: Duration,
    /// Silence between two reads of a request body.
    pub body: Duration,
    /// An idle client connection.
    pub client_idle: Duration,
    /// A client that does not read.
    pub client_stall: Duration,
    /// Silence in a stream before a keepalive; `None` for no keepalive.
    pub keepalive: Option<Duration>,
}

/// The settings, valid as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Inference API address.
    pub bind: IpAddr,
    /// Inference API port; 0 picks one.
    pub port: u16,
    /// Metrics port; `None` for no listener, 0 picks one.
    pub metrics_port: Option<u16>,
    /// Serving threads.
    pub workers: usize,
    /// Client connections, over all workers.
    pub max_connections: usize,
    /// Calls in flight, over all workers.
    pub concurrency: usize,
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// Bytes that all request bodies together may hold.
    pub body_memory: usize,
    /// Grace for calls in flight on shutdown.
    pub grace: Duration,
    /// This sandbox.
    pub sandbox: SandboxName,
    /// Addresses that may use admin routes; empty for any.
    pub admin_allow: Vec<IpAddr>,
    /// Model of requests that name none.
    pub default_model: String,
    /// Whether to speak HTTP/2 to upstreams.
    pub upstream_h2: bool,
    /// Certificate authorities to trust instead of the system's.
    pub upstream_ca: Option<PathBuf>,
    /// Idle connections per upstream and worker.
    pub upstream_idle: usize,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Mount of the inference policy.
    pub policy_dir: PathBuf,
    /// Fallback poll of the mounts.
    pub watch_interval: Duration,
    /// What happens without a policy.
    pub missing_policy: MissingPolicy,
    /// Daily budget without a policy's own; 0 for none.
    pub daily_budget: u64,
    /// Output cap without a policy's own; 0 for none.
    pub per_request: u64,
    /// Budget journal, and whether it was asked for by name.
    pub budget_path: Option<(PathBuf, bool)>,
    /// Audit directory, and whether it was asked for by name.
    pub audit_dir: Option<(PathBuf, bool)>,
    /// Log filter.
    pub log_filter: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// The egress proxy.
    pub egress: Egress,
    vars: HashMap<String, String>,
}

/// Settings of the egress proxy.
#[derive(Debug, Clone)]
pub struct Egress {
    /// Port; `None` for no listener, 0 picks one.
    pub port: Option<u16>,
    /// Addresses to listen on.
    pub bind: Vec<IpAddr>,
    /// Whether it starts in learn mode.
    pub learn: bool,
    /// Mount of the allowlist.
    pub allowlist_dir: PathBuf,
    /// Mount of the approvals.
    pub approval_dir: PathBuf,
    /// Whether names that differ or are hidden are refused.
    pub strict_names: bool,
    /// Connections, over all workers.
    pub max_connections: usize,
    /// A request head or client hello.
    pub head: Duration,
    /// Name resolution.
    pub dns: Duration,
    /// TCP connect, per address.
    pub connect: Duration,
    /// Silence of a tunnel.
    pub idle: Duration,
    /// Life of a tunnel.
    pub lifetime: Option<Duration>,
    /// Bytes of a tunnel whose rule states none; 0 for no bound.
    pub max_bytes: u64,
    /// Name servers instead of the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// What learn mode recorded, and whether the path was asked for by name.
    pub learned_path: Option<(PathBuf, bool)>,
    /// Whether blocklists are consulted.
    pub blocklist: bool,
    /// The seed file.
    pub blocklist_seed: PathBuf,
    /// Feed URLs.
    pub blocklist_feeds: Vec<String>,
    /// Between two reads of the feeds.
    pub blocklist_refresh: Duration,
}

/// The feeds that `BLOCKLIST_FEEDS=auto` means in Kubernetes.
const FEEDS: [&str; 2] =
    ["https://small.oisd.nl/domainswild", "https://urlhaus.abuse.ch/downloads/hostfile/"];

impl Settings {
    /// Parses a block of NUL-separated `NAME=VALUE`; the error names the variable and what it takes.
    pub fn parse(block: &[u8]) -> Result<Self> {
        let vars: HashMap<String, String> = block
            .split(|b| *b == 0)
            .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let env = Env { vars: &vars };
        let policy_dir = env.path("INFERENCE_POLICY_DIR")?;
        Ok(Self {
            bind: env.parse("ROUTER_BIND", "an IP address")?,
            port: env.parse("ROUTER_PORT", "a port number")?,
            metrics_port: match env.text("ROUTER_METRICS_PORT")?.as_str() {
                "off" => None,
                _ => Some(env.parse("ROUTER_METRICS_PORT", "a port number or 'off'")?),
            },
            workers: env.within("ROUTER_WORKERS", 1, 64)?,
            max_connections: env.within("ROUTER_MAX_CONNECTIONS", 1, 1_000_000)?,
            concurrency: env.within("ROUTER_CONCURRENCY_LIMIT", 1, limits::RESERVATIONS)?,
            body_limit: env.within("ROUTER_BODY_LIMIT_BYTES", 1024, 1 << 32)?,
            body_memory: env.within("ROUTER_BODY_MEMORY_BYTES", 1024, 1 << 40)?,
            grace: env.grace()?,
            sandbox: SandboxName::parse(&env.text("SANDBOX_NAME")?)
                .map_err(|e| env.wrong("SANDBOX_NAME", e.detail()))?,
            admin_allow: env.addresses("ROUTER_ADMIN_ALLOW_IPS")?,
            default_model: env
                .first(&["DEFAULT_MODEL", "AZURE_OPENAI_DEPLOYMENT", "OPENCLAW_MODEL"], "gpt-4.1"),
            upstream_h2: env.choice("UPSTREAM_HTTP", &[("1.1", false), ("2", true)])?,
            upstream_ca: Some(env.path("UPSTREAM_CA_FILE")?).filter(|p| !p.as_os_str().is_empty()),
            upstream_idle: env.within("UPSTREAM_IDLE_CONNECTIONS", 0, 65_536)?,
            timeouts: env.timeouts()?,
            missing_policy: env.missing_policy(&policy_dir)?,
            policy_dir,
            watch_interval: env.seconds("INFERENCE_POLICY_WATCH_INTERVAL")?.max(Duration::from_millis(100)),
            daily_budget: env.parse("TOKEN_BUDGET_DAILY", "a number of tokens")?,
            per_request: env.parse("TOKEN_BUDGET_PER_REQUEST", "a number of tokens")?,
            budget_path: env.optional_path("TOKEN_BUDGET_PERSIST_PATH")?,
            audit_dir: env.optional_path("KARS_AUDIT_DIR")?,
            log_filter: env.text("RUST_LOG")?,
            log_json: env.choice("KARS_LOG_FORMAT", &[("json", true), ("text", false)])?,
            egress: env.egress()?,
            vars,
        })
    }

    /// A variable's raw value where it is set and not empty (endpoints and keys, read by their room).
    pub fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).filter(|v| !v.is_empty()).cloned()
    }
}

struct Env<'a> {
    vars: &'a HashMap<String, String>,
}

impl Env<'_> {
    fn set(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The value, or the table's default; a name outside the table is a mistake of ours.
    fn text(&self, name: &str) -> Result<String> {
        let row = VARIABLES
            .iter()
            .find(|v| v.name == name)
            .ok_or_else(|| Error::new(Kind::Bug, format!("{name} is not in the table of variables")))?;
        Ok(self.set(name).unwrap_or(row.default).to_owned())
    }

    fn wrong(&self, name: &str, takes: &str) -> Error {
        let got = self.set(name).unwrap_or("");
        Error::new(Kind::Config, format!("{name}={got:?}: it takes {takes}"))
    }

    fn parse<T: std::str::FromStr>(&self, name: &str, takes: &str) -> Result<T> {
        self.text(name)?.trim().parse().map_err(|_| self.wrong(name, takes))
    }

    fn within(&self, name: &str, min: usize, max: usize) -> Result<usize> {
        let takes = format!("a whole number from {min} to {max}");
        let n: usize = self.parse(name, &takes)?;
        if (min..=max).contains(&n) { Ok(n) } else { Err(self.wrong(name, &takes)) }
    }

    fn seconds(&self, name: &str) -> Result<Duration> {
        let takes = "a number of seconds, such as 15 or 0.5";
        let n: f64 = self.parse(name, takes)?;
        Duration::try_from_secs_f64(n)
            .ok()
            .filter(|d| d.as_secs() <= 31_536_000)
            .ok_or_else(|| self.wrong(name, takes))
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.text(name)?;
        let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
        choices
            .iter()
            .find(|(n, _)| *n == text)
            .map(|(_, v)| *v)
            .ok_or_else(|| self.wrong(name, &names.join(" or ")))
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(self.text(name)?))
    }

    /// A path that an empty value (or `disabled`) turns off; the flag says whether it was set by name.
    fn optional_path(&self, name: &str) -> Result<Option<(PathBuf, bool)>> {
        match self.vars.get(name).map(String::as_str) {
            Some("" | "disabled") => Ok(None),
            set => Ok(Some((self.path(name)?, set.is_some()))),
        }
    }

    fn first(&self, names: &[&str], default: &str) -> String {
        names.iter().find_map(|n| self.set(n)).unwrap_or(default).to_owned()
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let text = self.text(name)?;
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts.map(|p| p.parse().map_err(|_| self.wrong(name, "IP addresses, comma-separated"))).collect()
    }

    fn grace(&self) -> Result<Duration> {
        if self.set("SHUTDOWN_TIMEOUT_SECS").is_some() {
            return self.seconds("SHUTDOWN_TIMEOUT_SECS");
        }
        if self.set("TERMINATION_GRACE_PERIOD_SECS").is_some() {
            let period = self.seconds("TERMINATION_GRACE_PERIOD_SECS")?;
            return Ok(period.saturating_sub(Duration::from_secs(5)).max(Duration::from_secs(10)));
        }
        Ok(Duration::from_secs(25))
    }

    fn timeouts(&self) -> Result<Timeouts> {
        let positive = |name| match self.seconds(name) {
            Ok(d) if d.is_zero() => Err(self.wrong(name, "more than 0 seconds")),
            other => other,
        };
        Ok(Timeouts {
            connect: positive("ROUTER_CONNECT_TIMEOUT_SECS")?,
            tls: positive("ROUTER_TLS_TIMEOUT_SECS")?,
            first_byte: positive("ROUTER_FIRST_BYTE_TIMEOUT_SECS")?,
            idle: positive("ROUTER_IDLE_TIMEOUT_SECS")?,
            total: Some(self.seconds("ROUTER_TOTAL_TIMEOUT_SECS")?).filter(|d| !d.is_zero()),
            head: positive("ROUTER_HEAD_TIMEOUT_SECS")?,
            body: positive("ROUTER_BODY_TIMEOUT_SECS")?,
            client_idle: positive("ROUTER_CLIENT_IDLE_SECS")?,
            client_stall: positive("ROUTER_CLIENT_STALL_SECS")?,
            keepalive: Some(self.seconds("ROUTER_KEEPALIVE_SECS")?).filter(|d| !d.is_zero()),
        })
    }

    fn egress(&self) -> Result<Egress> {
        let positive = |name| match self.seconds(name) {
            Ok(d) if d.is_zero() => Err(self.wrong(name, "more than 0 seconds")),
            other => other,
        };
        let pod = self.vars.contains_key("KUBERNETES_SERVICE_HOST");
        let allowlist_dir = self.path("EGRESS_ALLOWLIST_DIR")?;
        Ok(Egress {
            port: match self.text("FORWARD_PROXY_PORT")?.as_str() {
                "off" => None,
                _ => Some(self.parse("FORWARD_PROXY_PORT", "a port number or 'off'")?),
            },
            bind: self.addresses("FORWARD_PROXY_BIND")?,
            learn: match self.text("EGRESS_MODE")?.to_ascii_lowercase().as_str() {
                "strict" => false,
                "learn" => true,
                "auto" => !(pod || self.vars.contains_key("EGRESS_ALLOWLIST_DIR") || allowlist_dir.exists()),
                _ => return Err(self.wrong("EGRESS_MODE", "strict, learn or auto")),
            },
            allowlist_dir,
            approval_dir: self.path("EGRESS_APPROVAL_DIR")?,
            strict_names: self.choice("EGRESS_FRONTING", &[("refuse", true), ("allow", false)])?,
            max_connections: self.within("EGRESS_MAX_CONNECTIONS", 1, 1_000_000)?,
            head: positive("EGRESS_HEAD_TIMEOUT_SECS")?,
            dns: positive("EGRESS_DNS_TIMEOUT_SECS")?,
            connect: positive("EGRESS_CONNECT_TIMEOUT_SECS")?,
            idle: positive("EGRESS_IDLE_TIMEOUT_SECS")?,
            lifetime: Some(self.seconds("EGRESS_LIFETIME_SECS")?).filter(|d| !d.is_zero()),
            max_bytes: self.parse("EGRESS_MAX_BYTES", "a number of bytes")?,
            dns_servers: self.sockets("EGRESS_DNS_SERVERS")?,
            learned_path: self.optional_path("EGRESS_LEARNED_PATH")?,
            blocklist: self.choice("BLOCKLIST_ENABLED", &[("true", true), ("false", false)])?,
            blocklist_seed: self.path("BLOCKLIST_SEED_PATH")?,
            blocklist_feeds: match self.text("BLOCKLIST_FEEDS")?.as_str() {
                "auto" if pod => FEEDS.map(str::to_owned).to_vec(),
                "auto" | "off" => Vec::new(),
                given => {
                    given.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
                }
            },
            blocklist_refresh: positive("BLOCKLIST_REFRESH_SECS")?,
        })
    }

    fn sockets(&self, name: &str) -> Result<Vec<SocketAddr>> {
        let text = self.text(name)?;
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        let takes = "addresses with ports, such as 10.0.0.10:53, comma-separated";
        parts.map(|p| p.parse().map_err(|_| self.wrong(name, takes))).collect()
    }

    /// `auto` is open only where nobody can have meant a policy to apply.
    fn missing_policy(&self, dir: &std::path::Path) -> Result<MissingPolicy> {
        let choices =
            [("auto", None), ("deny", Some(MissingPolicy::Deny)), ("open", Some(MissingPolicy::Open))];
        let meant = self.vars.contains_key("INFERENCE_POLICY_DIR")
            || self.vars.contains_key("KUBERNETES_SERVICE_HOST")
            || dir.exists();
        let auto = if meant { MissingPolicy::Deny } else { MissingPolicy::Open };
        Ok(self.choice("INFERENCE_POLICY_MISSING", &choices)?.unwrap_or(auto))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_gives_the_documented_defaults() {
        let s = Settings::parse(b"").unwrap();
        assert_eq!((s.port, s.metrics_port), (8443, Some(9090)));
        assert_eq!(s.default_model, "gpt-4.1");
        assert_eq!(s.grace, Duration::from_secs(25));
        assert_eq!(s.timeouts.keepalive, Some(Duration::from_secs(15)));
    }

    #[test]
    fn a_wrong_value_is_refused_by_name() {
        for (block, name) in [
            (&b"ROUTER_PORT=http"[..], "ROUTER_PORT"),
            (b"SANDBOX_NAME=No Caps", "SANDBOX_NAME"),
            (b"ROUTER_CONNECT_TIMEOUT_SECS=0", "ROUTER_CONNECT_TIMEOUT_SECS"),
            (b"INFERENCE_POLICY_MISSING=maybe", "INFERENCE_POLICY_MISSING"),
            (b"ROUTER_ADMIN_ALLOW_IPS=10.0.0.1,x", "ROUTER_ADMIN_ALLOW_IPS"),
        ] {
            let error = Settings::parse(block).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.detail().contains(name), "{error}");
        }
    }

    #[test]
    fn a_configured_mount_makes_a_missing_policy_deny() {
        let open = Settings::parse(b"").unwrap();
        assert_eq!(open.missing_policy, MissingPolicy::Open);
        let meant = Settings::parse(b"INFERENCE_POLICY_DIR=/nowhere").unwrap();
        assert_eq!(meant.missing_policy, MissingPolicy::Deny);
        let pod = Settings::parse(b"KUBERNETES_SERVICE_HOST=10.0.0.1").unwrap();
        assert_eq!(pod.missing_policy, MissingPolicy::Deny);
    }
}
