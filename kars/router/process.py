"""The sidecar's main thread: start the engine, then wait for what only Python can do.

Before the first byte is served nothing is imported that a bare interpreter lacks, but `kars._core` and this package's
own few modules: every module is start-up time and memory in each pod. `tests/unit/test_startup.py` holds that.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` itself imports enum, types, operator and more

from kars import _core, settings
from kars.errors import KarsError, from_core
from kars.policy import publish
from kars.router import flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kars.router.cold import Cold

# A Python signal handler runs only between two bytecodes of the main thread, so this is the longest that a SIGTERM
# waits before the drain begins. Two wake-ups per second cost nothing that can be measured.
WAIT_SECONDS = 0.5


def run(arguments: Sequence[str]) -> int:
    """Run the router until it has drained; the exit status. Raises `KarsError` when it cannot start."""
    overrides = flags.parse(arguments)
    try:
        engine = _core.Engine(settings.block(overrides))
        publish.publish_all(engine)
        handle_signals(engine)
        engine.start()
    except _core.CoreError as error:
        raise from_core(error) from error
    return Loop(engine).serve()


def handle_signals(engine: _core.Engine) -> None:
    """Drain on SIGTERM and SIGINT; a second one ends what is left at once."""
    seen = 0

    def drain(_number: int, _frame: object) -> None:
        nonlocal seen
        seen += 1
        engine.drain(None if seen == 1 else 0.0)

    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, drain)


class Loop:
    """Wait for events until the engine has stopped."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine
        self.cold: Cold | None = None

    def serve(self) -> int:
        """Handle events; returns 0 when the engine has drained. The cold server ends with it."""
        try:
            while True:
                event = self.engine.wait(WAIT_SECONDS)
                if event == "stopped":
                    return 0
                if event is not None:
                    self.handle(event)
        finally:
            if self.cold is not None:
                self.cold.stop()

    def handle(self, event: str) -> None:
        """Handle one event; one that this version does not know is left alone."""
        if event == "policy":
            publish.publish_all(self.engine)
        elif event == "cold":
            self.serve_cold()

    def serve_cold(self) -> None:
        """Start the cold server, unless it runs. Its imports take longer than a policy change may wait."""
        if self.cold is not None and self.cold.alive():
            return
        from kars.router.cold import Cold

        self.cold = Cold(self.engine)
        self.cold.start()


def main(arguments: Sequence[str]) -> int:
    """`kars router`: run, and turn what goes wrong into a line for people and an exit status."""
    try:
        return run(arguments)
    except KarsError as error:
        from kars.router.complain import complain

        return complain(error)
