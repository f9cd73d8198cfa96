"""Two network namespaces of the tests' own: a sandbox whose guard redirects the agent, and a piece of Internet behind it.

The sandbox has no route but to the other namespace, which holds addresses that are global elsewhere. Its guard is the
very text that the egress-guard container of a pod runs. Needs root, `ip` and iptables.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kars.desired import guard

AGENT, ROUTER, PROXY_PORT = guard.AGENT_UID, guard.ROUTER_UID, guard.PROXY_PORT

#: Addresses of the far side; nobody outside these namespaces is ever reached.
INTERNET_V4 = ("93.184.216.34", "93.184.216.35")
INTERNET_V6 = ("2606:2800:220:1:248:1893:25c8:1946",)

numbers = itertools.count()


def run(*command: str) -> None:
    """Runs a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"


class Sandbox:
    """Both namespaces; `stop` takes them away with everything in them."""

    def __init__(self, *, nameservers: Sequence[str] = ("127.0.0.1",), guarded: bool = True) -> None:
        self.nameservers, self.guarded = nameservers, guarded
        number = f"{os.getpid()}-{next(numbers)}"
        self.inside = f"kars-in-{number}"
        self.outside = f"kars-out-{number}"
        self.settings = Path("/etc/netns") / self.inside
        self.links = (f"ki{number}"[-15:], f"ko{number}"[-15:])

    def start(self) -> None:
        """Makes the namespaces, the link between them, addresses, routes and the guard."""
        for name in (self.inside, self.outside):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        near, far = self.links
        run("ip", "link", "add", near, "netns", self.inside, "type", "veth", "peer", "name", far, "netns", self.outside)
        run("ip", "-n", self.inside, "address", "add", "10.77.0.2/24", "dev", near)
        run("ip", "-n", self.outside, "address", "add", "10.77.0.1/24", "dev", far)
        run("ip", "-n", self.inside, "address", "add", "fd77::2/64", "dev", near, "nodad")
        run("ip", "-n", self.outside, "address", "add", "fd77::1/64", "dev", far, "nodad")
        for name, link in ((self.inside, near), (self.outside, far)):
            run("ip", "-n", name, "link", "set", link, "up")
        run("ip", "-n", self.inside, "route", "add", "default", "via", "10.77.0.1")
        run("ip", "-n", self.inside, "-6", "route", "add", "default", "via", "fd77::1")
        for address in INTERNET_V4:
            run("ip", "-n", self.outside, "address", "add", f"{address}/32", "dev", "lo")
        for address in INTERNET_V6:
            run("ip", "-n", self.outside, "address", "add", f"{address}/128", "dev", "lo", "nodad")
        # Every other address answers over there, too.
        run("ip", "-n", self.outside, "route", "add", "local", "default", "dev", "lo", "table", "main")
        run("ip", "-n", self.outside, "-6", "route", "add", "local", "default", "dev", "lo", "table", "main")
        # `ip netns exec` lays these over /etc.
        self.settings.mkdir(parents=True, exist_ok=True)
        servers = "".join(f"nameserver {one}\n" for one in self.nameservers)
        (self.settings / "resolv.conf").write_text(f"search example.com\n{servers}options timeout:2 attempts:1\n")
        if self.guarded:
            run(*self.guarding())

    def guarding(self, *, sre: bool = False) -> list[str]:
        """The command that sets the guard up."""
        return ["ip", "netns", "exec", self.inside, "sh", "-c", guard.script(sre=sre)]

    def stop(self) -> None:
        """Takes everything away."""
        for name in (self.inside, self.outside):
            with contextlib.suppress(AssertionError):
                run("ip", "netns", "delete", name)
        shutil.rmtree(self.settings, ignore_errors=True)

    def within(self, user: int, command: Sequence[str]) -> list[str]:
        """A command as a user of the sandbox. It may read files wherever the checkout lies, and nothing else is special."""
        rights = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
        drop = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", *rights, "--"]
        return ["ip", "netns", "exec", self.inside, *drop, *command]

    def beyond(self, command: Sequence[str]) -> list[str]:
        """A command on the far side."""
        return ["ip", "netns", "exec", self.outside, *command]

    def agent(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program as the agent, to its end."""
        return subprocess.run(
            self.within(AGENT, command),
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
