"""The guard's own shell text in a network namespace, and packets against it, in both families."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kars.desired import guard
from tests.interop.egress.conftest import spawned
from tests.interop.egress.namespaces import AGENT, INTERNET_V4, INTERNET_V6, PROXY_PORT, ROUTER, Sandbox, run

HERE = Path(__file__).parent
LISTEN, KNOCK = str(HERE / "listen.py"), str(HERE / "knock.py")
V4, OTHER_V4 = INTERNET_V4
(V6,) = INTERNET_V6
OTHER_V6 = "2606:2800:220:1::7"
OUTSIDE_PORTS = "53,80,443,5353,8080"
FAMILIES = ("ipv4", "ipv6")
HOSTS = {"ipv4": (V4, OTHER_V4, "127.0.0.1"), "ipv6": (V6, OTHER_V6, "::1")}


@pytest.fixture(scope="module", autouse=True)
def needed():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    missing = [name for name in ("ip", "iptables", "ip6tables", "setpriv") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def make_sandbox():
    made = []

    def make(**given):
        made.append(Sandbox(**given))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="module")
def guarded():
    """A guarded sandbox; outside, everything answers `outside`, inside the proxy and the router say who they are."""
    sandbox = Sandbox(nameservers=(V4, V6))
    processes = []
    try:
        sandbox.start()
        processes += servers(sandbox)
        yield sandbox
    finally:
        stop(processes)
        sandbox.stop()


def servers(sandbox):
    python = [sys.executable, LISTEN]
    return [
        spawned(sandbox.beyond([*python, "outside", f"{V4},{OTHER_V4},{V6},{OTHER_V6}", OUTSIDE_PORTS])),
        spawned(sandbox.within(ROUTER, [*python, "proxy", "127.0.0.1,::1", str(PROXY_PORT)])),
        spawned(sandbox.within(ROUTER, [*python, "router", "0.0.0.0,::", "8443"])),
        spawned(sandbox.within(AGENT, [*python, "agent", "0.0.0.0,::", "18789"])),
    ]


def stop(processes):
    for one in processes:
        one.kill()
        one.wait()
        one.stdout.close()


def ask(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return [line.rsplit(" ", 1)[1] for line in done.stdout.splitlines()]


def knock(sandbox, user, *specs):
    return ask(sandbox.within(user, [sys.executable, KNOCK, *specs]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_agent_gets_out_by_the_proxy_alone(guarded, family):
    host, other, loopback = HOSTS[family]
    said = knock(
        guarded,
        AGENT,
        f"tcp:{host}:443",
        f"tcp:{other}:80",
        f"tcp:{host}:8080",
        f"udp:{host}:443",
        f"tcp:{loopback}:8443",
    )
    assert said == ["proxy", "proxy", "refused", "refused", "router"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_agent_asks_its_own_name_servers_and_no_others(guarded, family):
    host, other, _ = HOSTS[family]
    said = knock(
        guarded, AGENT, f"udp:{host}:53", f"tcp:{host}:53", f"udp:{other}:53", f"tcp:{other}:53", f"udp:{host}:5353"
    )
    assert said == ["outside", "outside", "refused", "refused", "refused"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_router_gets_everywhere(guarded, family):
    host, other, _ = HOSTS[family]
    assert knock(guarded, ROUTER, f"tcp:{host}:443", f"tcp:{other}:8080", f"udp:{other}:53") == ["outside"] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_user_is_a_way_around(guarded, family):
    host, _, loopback = HOSTS[family]
    specs = [f"tcp:{host}:443", f"udp:{host}:53", f"tcp:{host}:8080", f"tcp:{loopback}:8443"]
    users = (0, 999, 1002, 65534, guard.LAST_UID)
    with ThreadPoolExecutor(len(users)) as threads:
        said = list(threads.map(lambda user: knock(guarded, user, *specs), users))
    # A datagram that is dropped is an error at once, a connection waits.
    assert said == [["silent", "refused", "silent", "router"]] * len(users)


@pytest.mark.parametrize("host", ["10.77.0.2", "fd77::2"])
def test_the_agents_own_port_answers_those_outside(guarded, host):
    assert ask(guarded.beyond([sys.executable, KNOCK, f"tcp:{host}:18789", f"tcp:{host}:8443"])) == ["agent", "router"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_agent_reaches_itself_by_its_pods_address(guarded, family):
    host = {"ipv4": "10.77.0.2", "ipv6": "fd77::2"}[family]
    assert knock(guarded, AGENT, f"tcp:{host}:18789") == ["agent"]


def test_the_agent_cannot_answer_in_the_routers_place(make_sandbox):
    """While the router restarts nobody holds its ports, and the agent is on the same network."""
    sandbox = make_sandbox()
    ports = ",".join(map(str, guard.ROUTER_PORTS))
    processes = [spawned(sandbox.within(AGENT, [sys.executable, LISTEN, "agent", "0.0.0.0,::", ports + ",18789"]))]
    try:
        for host in ("10.77.0.2", "fd77::2"):
            specs = [f"tcp:{host}:{port}" for port in (*guard.ROUTER_PORTS, 18789)]
            assert ask(sandbox.beyond([sys.executable, KNOCK, *specs])) == ["silent"] * 3 + ["agent"]
        # Not even a connection is made, in which something could be sent to it.
        hear = "import socket, sys; socket.create_connection((sys.argv[1], 8443), timeout=2)"
        for host in ("10.77.0.2", "fd77::2"):
            done = subprocess.run(sandbox.beyond([sys.executable, "-c", hear, host]), capture_output=True, timeout=30)
            assert b"TimeoutError" in done.stderr
        assert knock(sandbox, ROUTER, "tcp:127.0.0.1:8443", "tcp:::1:8443") == [
            "silent",
            "silent",
        ]
    finally:
        stop(processes)


def listing(sandbox):
    """The rules as they stand, of both families and both tables."""
    found = []
    for program in ("iptables", "ip6tables"):
        for table in ("filter", "nat"):
            done = subprocess.run(
                ["ip", "netns", "exec", sandbox.inside, program, "-w", "-t", table, "-S", "OUTPUT"],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            found.append(done.stdout.splitlines())
    return found


def test_started_again_it_adds_nothing(make_sandbox):
    sandbox = make_sandbox()
    before = listing(sandbox)
    run(*sandbox.guarding())
    assert listing(sandbox) == before


@pytest.mark.parametrize("after", [0, 1, 4, 9, 15])
def test_started_again_after_it_stopped_half_way_it_has_the_same_rules_in_the_same_order(make_sandbox, tmp_path, after):
    whole = listing(make_sandbox())
    broken = make_sandbox(guarded=False)
    for name in ("iptables", "ip6tables"):
        # Fails for good once so many rules were added.
        (tmp_path / name).write_text(
            f'#!/bin/sh\ncase " $* " in *" -A "*) echo >>{tmp_path}/added; [ "$(wc -l <{tmp_path}/added)" -le {after} ] || exit 1 ;; esac\nexec {shutil.which(name)} "$@"\n'
        )
        (tmp_path / name).chmod(0o755)
    # A rule that may be missing (REJECT) is passed over, everything else ends it.
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(broken.guarding(), env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode != 0
    run(*broken.guarding())
    assert strip_reject(listing(broken)) == strip_reject(whole)


def strip_reject(tables):
    return [[line for line in lines if "REJECT" not in line] for lines in tables]


def without_ip6tables(folder):
    """A PATH on which everything that the text uses is, but ip6tables."""
    for name in ("sh", "cat", "iptables"):
        (folder / name).symlink_to(shutil.which(name))
    return {"PATH": str(folder)}


def test_without_ip6tables_nothing_starts_where_ipv6_is_on(make_sandbox, tmp_path):
    sandbox = make_sandbox(guarded=False)
    command = [shutil.which(sandbox.guarding()[0]), *sandbox.guarding()[1:]]
    done = subprocess.run(command, env=without_ip6tables(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    assert "no ip6tables" in done.stderr


def test_without_ip6tables_it_starts_where_ipv6_is_off(make_sandbox, tmp_path):
    sandbox = make_sandbox(guarded=False)
    run(
        "ip",
        "netns",
        "exec",
        sandbox.inside,
        "sh",
        "-c",
        "for one in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$one; done",
    )
    command = [shutil.which(sandbox.guarding()[0]), *sandbox.guarding()[1:]]
    done = subprocess.run(command, env=without_ip6tables(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "transparent proxy on :8444 (learn + enforce)" in done.stdout


def test_a_rule_that_cannot_be_set_ends_it(make_sandbox, tmp_path):
    sandbox = make_sandbox(guarded=False)
    (tmp_path / "iptables").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "iptables").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert subprocess.run(sandbox.guarding(), env={**os.environ, "PATH": path}, capture_output=True).returncode != 0


@pytest.mark.parametrize(("family", "server"), [("ipv4", OTHER_V4), ("ipv6", OTHER_V6)])
def test_the_sre_reaches_the_api_server_and_nothing_else_past_the_proxy(make_sandbox, family, server):
    sandbox = make_sandbox(guarded=False)
    processes = servers(sandbox)
    try:
        environment = {**os.environ, "KUBERNETES_SERVICE_HOST": server, "KUBERNETES_SERVICE_PORT_HTTPS": "443"}
        done = subprocess.run(sandbox.guarding(sre=True), env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "+ apiserver bypass (SRE mode)" in done.stdout
        host = HOSTS[family][0]
        said = knock(sandbox, AGENT, f"tcp:{server}:443", f"tcp:{host}:443", f"tcp:{server}:80", f"tcp:{server}:8080")
        assert said == ["outside", "proxy", "proxy", "refused"]
    finally:
        stop(processes)


def test_the_text_is_one_that_a_plain_shell_takes():
    for sre in (False, True):
        done = subprocess.run(["sh", "-n"], input=guard.script(sre=sre), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
