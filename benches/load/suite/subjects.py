"""Whatever stands between client and mock: how each is started, and what may be expected of it."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers

from . import procs
from .mount import PolicyMount

TEMPLATES = Path(peers.__file__).parent / "peers"
SANDBOX = "bench"
# Opens the cold routes, whose first call brings the control plane in.
ADMIN_TOKEN = "bench"
START_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Site:
    """What a subject is told before it starts."""

    port: int
    upstream: int
    # A folder of its own.
    run: Path
    binary: str
    kars: str
    # Every model name the loads use: some gateways refuse names they were not told.
    models: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """A command line and what it needs."""

    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    # Written by a subject that chooses its own port.
    port_file: Path | None = None
    # Where its metrics are, when they are compared with the mock's totals.
    metrics_port: int = 0


@dataclass(frozen=True)
class Subject:
    """One contestant."""

    name: str
    about: str
    launch: Callable[[Site], Launch]
    # Bodies arrive byte for byte as the mock sent them.
    is_transparent: bool = True
    # Too slow for the loads with many streams.
    is_slow: bool = False
    is_optional: bool = False
    path: str = "/v1/chat/completions"
    model_prefix: str = ""
    # Asked for a tunnel by CONNECT; else its port is the way in.
    by_connect: bool = True
    # Whether it serves, where that is not one successful call: its port, its upstream's.
    is_up: Callable[[int, int], bool] | None = None
    peer: str | None = None

    def missing(self, kars: str) -> str | None:
        """Why it cannot run here, or None."""
        if self.peer and not peers.program(self.peer):
            return f"not installed; python3 benches/load/peers.py {self.peer}"
        if self.name.startswith("kars") and not Path(shlex.split(kars)[0]).exists():
            return f"{shlex.split(kars)[0]} is not there; make build, or --kars COMMAND"
        return None


@dataclass
class Running:
    """A started subject."""

    subject: Subject
    process: subprocess.Popen[bytes]
    port: int
    run: Path
    # Start of the process to the first 200 that came through it, in milliseconds.
    cold_ms: float
    metrics_port: int = 0
    upstream: int = 0

    @property
    def pid(self) -> int:
        """The root of its tree."""
        return self.process.pid

    def client_command(self, binary: str, model: str, *words: str) -> list[str]:
        """The command line of the client that calls it."""
        name = self.subject.model_prefix + model
        return [binary, "client", "--port", str(self.port), "--path", self.subject.path, "--model", name, *words]

    def stop(self) -> None:
        """Ends it."""
        procs.stop(self.process)


def render(template: str, site: Site, **more: str) -> Path:
    """Fills a template of `peers/` in and returns where it was put."""
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    each = re.compile(r"#each model\n(.*?)#end\n", re.DOTALL)
    text = each.sub(lambda block: "".join(block[1].replace("@MODEL@", model) for model in site.models), text)
    values = {"PORT": site.port, "UPSTREAM": site.upstream, "RUN": site.run, **more}
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    target = site.run / template
    target.write_text(text, encoding="utf-8")
    return target


def own(*words: str) -> Callable[[Site], Launch]:
    """A subcommand of our own binary."""

    def launch(site: Site) -> Launch:
        upstream = [] if words[0] == "mock" else ["--upstream", str(site.upstream)]
        return Launch([site.binary, words[0], "--port", str(site.port), *upstream, *words[1:]])

    return launch


def nginx(site: Site) -> Launch:
    config = render("nginx.conf", site)
    return Launch([str(peers.program("nginx")), "-c", str(config), "-e", str(site.run / "nginx.err")])


def haproxy(site: Site) -> Launch:
    return Launch([str(peers.program("haproxy")), "-f", str(render("haproxy.cfg", site))])


def envoy(site: Site) -> Launch:
    config = render("envoy.yaml", site)
    return Launch([str(peers.program("envoy")), "-c", str(config), "--concurrency", "1", "-l", "off"])


def litellm(site: Site) -> Launch:
    words = ["--host", "127.0.0.1", "--port", str(site.port), "--num_workers", "1", "--telemetry", "False"]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
    return Launch([str(peers.program("litellm")), "--config", str(render("litellm.yaml", site)), *words], env)


def tensorzero(site: Site) -> Launch:
    port_file = site.run / "port"
    script = str(TEMPLATES / "tensorzero_gateway.py")
    command = [str(peers.program("tensorzero")), script, str(render("tensorzero.toml", site)), str(port_file)]
    return Launch(command, {"TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1"}, port_file)


def kars(site: Site) -> Launch:
    """Governed: 1 000 rules, a budget, audit to disk."""
    PolicyMount(site.run / "policy").write(governed_policy(site.models, 1_000))
    return kars_launch(
        site,
        INFERENCE_POLICY_DIR=str(site.run / "policy"),
        KARS_AUDIT_DIR=str(site.run / "audit"),
        TOKEN_BUDGET_PERSIST_PATH=str(site.run / "budget.json"),
    )


def kars_plain(site: Site) -> Launch:
    """As little governance as the settings allow: no policy, no audit, nothing persisted."""
    return kars_launch(
        site,
        INFERENCE_POLICY_DIR="",
        INFERENCE_POLICY_MISSING="open",
        KARS_AUDIT_DIR="disabled",
        TOKEN_BUDGET_PERSIST_PATH="",
    )


def kars_launch(site: Site, **settings: str) -> Launch:
    """What both have in common: one upstream, nothing but loopback."""
    metrics_port = free_port()
    env = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{site.upstream}/v1",
        "OPENAI_API_KEY": "sk-upstream-secret",
        "SANDBOX_NAME": SANDBOX,
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "ROUTER_BIND": "127.0.0.1",
        "ROUTER_PORT": str(site.port),
        "ROUTER_METRICS_PORT": str(metrics_port),
        "FORWARD_PROXY_PORT": str(free_port()),
        "BLOCKLIST_ENABLED": "false",
    }
    return Launch(shlex.split(site.kars), env | settings, metrics_port=metrics_port)


def governed_policy(models: tuple[str, ...], rules: int) -> dict[str, Any]:
    """A policy of so many rules, half of them models allowed and half tools denied, under a huge budget."""
    half = rules // 2
    allow = [f"model-{number:05d}" for number in range(half - len(models))] + list(models)
    return {
        "appliesTo": {"sandboxName": SANDBOX},
        "displayName": "bench",
        "tokenBudget": {"perRequestTokens": 128_000, "dailyTokens": 10**14},
        "models": {"allow": allow},
        "tools": {"deny": [f"tool_{number:05d}" for number in range(rules - half)]},
    }


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("direct", "the mock itself, no proxy", own("mock")),
        Subject("floor", "the least a proxy can do: the kernel's share", own("floor")),
        Subject("floor-quickack", "floor, acknowledging at once", own("floor", "--quickack"), is_optional=True),
        Subject("kars", "governed: 1 000 rules, budget, metering, hash-chained audit", kars),
        Subject("kars-plain", "kars, all of that off where it can be", kars_plain),
        Subject("naive", "hyper 1.x server and client", own("naive")),
        Subject("nginx", "proxy_buffering off", nginx, peer="nginx"),
        Subject("haproxy", "option http-no-delay", haproxy, peer="haproxy"),
        Subject("envoy", "router filter only, no policy", envoy, peer="envoy"),
        Subject("litellm", "one worker", litellm, is_transparent=False, is_slow=True, peer="litellm"),
        Subject(
            "tensorzero",
            "gateway of the Python package, no observability",
            tensorzero,
            is_transparent=False,
            is_optional=True,
            path="/openai/v1/chat/completions",
            model_prefix="tensorzero::model_name::",
            peer="tensorzero",
        ),
    )
}


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(subject: Subject, site: Site, core: int) -> Running:
    """Starts a subject and waits for the first call that comes through it."""
    site.run.mkdir(parents=True, exist_ok=True)
    launch = subject.launch(site)
    log = site.run / "log"
    began = time.perf_counter()
    process = procs.spawn(launch.command, core=core, log=log, env=launch.env)
    try:
        port = await_port(launch, site, process, began)
        model = subject.model_prefix + site.models[0]
        while not (subject.is_up(port, site.upstream) if subject.is_up else answers(port, subject.path, model)):
            check_alive(process, log, began)
            time.sleep(0.0005)
    except BaseException:
        procs.stop(process)
        raise
    cold_ms = (time.perf_counter() - began) * 1e3
    return Running(subject, process, port, site.run, cold_ms, launch.metrics_port, site.upstream)


def await_port(launch: Launch, site: Site, process: subprocess.Popen[bytes], began: float) -> int:
    if launch.port_file is None:
        return site.port
    while not (launch.port_file.exists() and launch.port_file.read_text(encoding="ascii")):
        check_alive(process, site.run / "log", began)
        time.sleep(0.005)
    return int(launch.port_file.read_text(encoding="ascii"))


def check_alive(process: subprocess.Popen[bytes], log: Path, began: float) -> None:
    if process.poll() is None and time.perf_counter() - began < START_TIMEOUT_S:
        return
    tail = log.read_text(encoding="utf-8", errors="replace")[-800:]
    raise RuntimeError(f"did not come up (exit {process.poll()}): {tail}")


def answers(port: int, path: str, model: str) -> bool:
    """Whether one small call succeeds."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-test\r\n"
    head += f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(30)
            connection.sendall((head + body).encode())
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
