"""The loads every subject gets, as data."""

from __future__ import annotations

from dataclasses import dataclass

from .subjects import Running

PACE = "mock-paced-t64-f25000-i5000"


@dataclass(frozen=True)
class Load:
    """One kind of traffic through one subject."""

    name: str
    scenario: str
    about: str
    model: str
    connections: int
    # Seconds of a full run and of a quick one; 0 leaves it out of the quick one.
    seconds: float
    quick_seconds: float
    # What CPU time is divided by: `calls` or `events`.
    unit: str = "calls"
    stream: bool = False
    tokens: int = 64
    request_bytes: int = 846
    # Calls per second; 0: as fast as answers come.
    rate: int = 0
    # Subject, mock and client on one core: path length without wake-ups across cores.
    one_core: bool = False
    # Also for subjects a thousand times slower than the others.
    for_slow: bool = False

    def command(self, binary: str, running: Running, seconds: float) -> list[str]:
        """The command line of a client that puts it on a subject."""
        return running.client_command(binary, self.model, *self.words(seconds))

    def words(self, seconds: float) -> list[str]:
        """Its options for the client."""
        words = ["--connections", str(self.connections), "--seconds", str(seconds)]
        words += ["--request-bytes", str(self.request_bytes)]
        if self.stream:
            words += ["--stream", "--tokens", str(self.tokens)]
        if self.rate:
            words += ["--rate", str(self.rate)]
        return words


LOADS = {
    load.name: load
    for load in (
        Load("json", "S1", "JSON 0.85/1 KB, 32 connections", "mock-json-b1024", 32, 6, 2.5, for_slow=True),
        Load("json_c1", "S1", "JSON, 1 connection", "mock-json-b1024", 1, 2, 1, for_slow=True),
        Load("json_one_core", "S1", "JSON, 1 connection, one core", "mock-json-b1024", 1, 2, 0, one_core=True),
        Load("json_2000rps", "S1", "JSON, fixed 2 000 calls/s", "mock-json-b1024", 32, 4, 2, rate=2_000),
        Load("json_16k", "S1", "16 KiB prompt", "mock-json-b1024", 32, 3, 0, request_bytes=16_384),
        Load("json_100k", "S1", "100 KiB prompt", "mock-json-b1024", 32, 3, 1.5, request_bytes=102_400),
        Load("paced_1", "S2", "1 paced stream", PACE, 1, 2, 1, "events", stream=True, for_slow=True),
        Load("paced_16", "S2", "16 paced streams", PACE, 16, 3, 0, "events", stream=True),
        Load("paced_128", "S2", "128 paced streams", PACE, 128, 5, 3, "events", stream=True),
        Load(
            "burst", "S3", "67 events at once, 32 connections", "mock-burst-t64", 32, 4, 1.5, stream=True, for_slow=True
        ),
        Load("flush", "S3", "a write per event, unpaced", "mock-flush-t64", 32, 3, 0, "events", stream=True),
        Load(
            "nagle", "S4", "128 paced streams, upstream with Nagle", PACE + "-nagle", 128, 5, 2, "events", stream=True
        ),
    )
}

# 60 seconds of one event in 100 ms each; streams of 5.4 MB at once; a model only a new policy permits.
HELD_MODEL = "mock-paced-t600-f500000-i100000"
STALLED_MODEL = "mock-burst-t20000"
PROBE_MODEL = "mock-json-b64"

# The first is the one start-up is probed with.
MODELS = (*dict.fromkeys(load.model for load in LOADS.values()), HELD_MODEL, STALLED_MODEL)
