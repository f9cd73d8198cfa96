"""The loads every subject gets, as data."""

from __future__ import annotations

from dataclasses import dataclass

from suite.subjects import Running


@dataclass(frozen=True)
class Load:
    """One kind of traffic through tunnels."""

    name: str
    about: str
    # The client's mode, and how many tunnels there are at one time.
    mode: str
    tunnels: int
    # Seconds of a full run and of a quick one.
    seconds: float
    quick_seconds: float
    # What CPU time is divided by: operations, or millions of bytes.
    unit: str = "ops"
    # How people call one of those.
    noun: str = "round trip"
    scenario: str = "S5"
    one_core: bool = False

    def command(self, binary: str, running: Running, seconds: float) -> list[str]:
        """The command line of a client that puts it on a subject."""
        return client_command(binary, running, self.mode, self.tunnels, seconds)

    @property
    def speed(self) -> str:
        """What the client's report calls its speed."""
        return "gb_per_s" if self.unit == "mb" else "ops_per_s"


def client_command(binary: str, running: Running, mode: str, tunnels: int, seconds: float) -> list[str]:
    """The client's command line for a subject."""
    target = ["--target", str(running.upstream)] if running.subject.by_connect else []
    words = ["--mode", mode, "--tunnels", str(tunnels), "--seconds", str(seconds)]
    return [binary, "tunnel-client", "--port", str(running.port), *target, *words]


LOADS = {
    load.name: load
    for load in (
        Load("connects", "CONNECT, one byte answered, close; 16 at a time", "connects", 16, 5, 2, noun="tunnel"),
        Load("pingpong_1", "1 byte to and fro, 1 tunnel", "pingpong", 1, 3, 1),
        Load("pingpong_32", "1 byte to and fro, 32 tunnels", "pingpong", 32, 4, 1.5),
        Load("bulk_1", "the far end streams, 1 tunnel", "bulk", 1, 5, 1.5, unit="mb", noun="MB"),
        Load("bulk_8", "the far end streams, 8 tunnels", "bulk", 8, 5, 2, unit="mb", noun="MB"),
    )
}

# Kept open, each used once, while memory is looked at.
IDLE_TUNNELS = 1_000
