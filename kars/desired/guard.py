"""The egress guard: what lets the agent out by the router only, set up before anything else of the pod runs."""

from __future__ import annotations

from kars.desired import names, runtime
from kars.desired.facts import Facts
from kars.kube.types import Object

AGENT_UID = 1000
ROUTER_UID = 1001
PROXY_PORT = 8444
# What the router listens on: inference, proxy, metrics.
ROUTER_PORTS = (8443, PROXY_PORT, 9090)
# The last user there is: 2^32 - 1 means "none".
LAST_UID = 2**32 - 2

# The rules go on where they stopped when the container is started again (-C before -A), so their order always holds.
#
# Loopback is let through by address beside `-o lo`: a redirected packet goes to 127.0.0.1 or ::1, but still shows the
# interface that it was meant for. Names are asked only of the pod's own name servers, so that a question cannot be
# carried to anybody's. Users other than the agent's and the router's have no business here and get nowhere, and a
# packet of the kernel's own, which has no user, matches none of this. REJECT tells a client at once what DROP, which is
# what counts, would let it wait for; it is left out where the kernel has none.
#
# A port of the router's belongs to nobody while it restarts. The agent may take it, but what it says from there, the
# second packet of a connection above all, gets nowhere: it cannot pass for the router, to the controller, to probes or
# to peers, and is sent nothing that is the router's to hear.
#
# Without ip6tables IPv6 would be a way around, so that is an error wherever an interface can have an IPv6 address.
SCRIPT = """\
set -eu
agent={agent} others="0-{below} {above}-{last}" proxy={proxy}
add() {{
  tool=$1 table=$2
  shift 2
  "$tool" -w -t "$table" -C OUTPUT "$@" 2>/dev/null || "$tool" -w -t "$table" -A OUTPUT "$@"
}}
family() {{
  case $1 in
    *:*) echo ip6tables ;;
    *) echo iptables ;;
  esac
}}
guard() {{
  tables=$1 loopback=$2
  for port in {held}; do
    add "$tables" filter -m owner --uid-owner "$agent" -p tcp --sport "$port" -j DROP
  done
  add "$tables" filter -m owner --uid-owner "$agent" -o lo -j ACCEPT
  add "$tables" filter -m owner --uid-owner "$agent" -d "$loopback" -j ACCEPT
  while read -r word server rest; do
    server=${{server%%%*}}
    if [ "$word" = nameserver ] && [ "$(family "$server")" = "$tables" ]; then
      add "$tables" filter -m owner --uid-owner "$agent" -d "$server" -p udp --dport 53 -j ACCEPT
      add "$tables" filter -m owner --uid-owner "$agent" -d "$server" -p tcp --dport 53 -j ACCEPT
    fi
  done </etc/resolv.conf
  add "$tables" filter -m owner --uid-owner "$agent" -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
{accept}  add "$tables" filter -m owner --uid-owner "$agent" -p tcp -j REJECT --reject-with tcp-reset 2>/dev/null || :
  add "$tables" filter -m owner --uid-owner "$agent" -j REJECT 2>/dev/null || :
  add "$tables" filter -m owner --uid-owner "$agent" -j DROP
  for users in $others; do
    add "$tables" filter -m owner --uid-owner "$users" -d "$loopback" -j ACCEPT
    add "$tables" filter -m owner --uid-owner "$users" -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    add "$tables" filter -m owner --uid-owner "$users" -j DROP
  done
{bypass}  for port in 80 443; do
    add "$tables" nat -m owner --uid-owner "$agent" ! -o lo -p tcp --dport "$port" -j REDIRECT --to-port "$proxy"
  done
}}
ipv6() {{
  for switch in /proc/sys/net/ipv6/conf/*/disable_ipv6; do
    case $switch in
      */conf/all/* | */conf/default/* | */conf/lo/* | */conf/\\**) continue ;;
    esac
    [ "$(cat "$switch")" = 1 ] || return 0
  done
  return 1
}}
guard iptables 127.0.0.0/8
if ipv6; then
  command -v ip6tables >/dev/null || {{
    echo "egress-guard: IPv6 is on, but the image has no ip6tables: nothing may start" >&2
    exit 1
  }}
  guard ip6tables ::1/128
fi
echo "{banner}"
"""

# The API server, for the one sandbox that may reach it: before the end of the filter, and before the redirect.
TO_API_SERVER = (
    '-m owner --uid-owner "$agent" -d "$KUBERNETES_SERVICE_HOST" -p tcp'
    ' --dport "${{KUBERNETES_SERVICE_PORT_HTTPS:-443}}"'
)
ONLY = """\
  if [ "$(family "$KUBERNETES_SERVICE_HOST")" = "$tables" ]; then
    add "$tables" {table} {match} -j {target}
  fi
"""
BANNER = "egress-guard: user {agent} gets out by the router alone: transparent proxy on :{proxy} (learn + enforce)"
SRE_BANNER = " + apiserver bypass (SRE mode)"


def script(*, sre: bool = False) -> str:
    """Return the shell text of the guard's container."""
    match = TO_API_SERVER.format()
    return SCRIPT.format(
        agent=AGENT_UID,
        below=AGENT_UID - 1,
        above=ROUTER_UID + 1,
        last=LAST_UID,
        held=" ".join(map(str, ROUTER_PORTS)),
        proxy=PROXY_PORT,
        accept=ONLY.format(table="filter", match=match, target="ACCEPT") if sre else "",
        bypass=ONLY.format(table="nat", match=match, target="RETURN") if sre else "",
        banner=BANNER.format(agent=AGENT_UID, proxy=PROXY_PORT) + (SRE_BANNER if sre else ""),
    )


def container(facts: Facts) -> Object:
    """Return the guard's container: the only one that is root, and the only one with capabilities."""
    image = runtime.pinned(facts, facts.platform.guard_image or facts.platform.sandbox_image)
    return {
        "name": names.GUARD,
        "image": image,
        "imagePullPolicy": runtime.pull_policy(facts, image),
        "command": ["sh", "-c", script(sre=facts.sre)],
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "200m", "memory": "256Mi"},
        },
        # iptables keeps its lock in /run.
        "volumeMounts": [{"name": "guard-run", "mountPath": "/run"}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
