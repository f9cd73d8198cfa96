"""Child processes that write to log files, can be paused, and never outlive the test run."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# What a failure shows of a log.
TAIL_LINES = 30
# The kernel tells a child that its parent died when the *thread* that started it ends, so one thread that lives as
# long as the run starts them all.
STARTER = ThreadPoolExecutor(1, thread_name_prefix="starter")


class Process:
    """One program; `setpriv` has the kernel kill it when the test run dies, however it dies."""

    def __init__(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self.env = dict(os.environ if env is None else env)
        self.cwd = cwd
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Process":
        """Start it; its output is added to the log."""
        with self.log.open("ab") as log:
            self.child = STARTER.submit(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", "KILL", *self.command],
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).result()
        return self

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.command[0]} was not started"
        return self.child.pid

    def ended(self) -> int | None:
        """The exit status (the negative signal when one ended it), or None while it runs."""
        return None if self.child is None else self.child.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self.child is not None:
            self.child.send_signal(number)

    def wait(self, seconds: float = 15.0) -> int:
        """Wait for its end; the exit status."""
        assert self.child is not None
        return self.child.wait(seconds)

    def kill(self) -> None:
        """End it without warning."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def stop(self, seconds: float = 10.0) -> None:
        """Ask it to end, and end it when it has not after `seconds`."""
        if self.child is None:
            return
        self.child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(seconds)
            return
        self.kill()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return "(no log)"
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 64 * 1024))
            return b"\n".join(log.read().splitlines()[-lines:]).decode(errors="replace")
