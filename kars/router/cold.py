"""The cold server: granian in this process, on a Unix socket that only this user reaches, started when first needed.

The Rust front checks the admin token and the body's size before it relays a call; here only the answer is made.
uvloop, granian and msgspec are imported in the server's own thread, so neither traffic nor a policy change waits.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from granian.server.embed import Server

    from kars import _core

# A stopping server has at most a few admin calls to finish; the pod's grace belongs to the streams.
STOP_SECONDS = 2.0
# Binding takes a millisecond; a machine under load takes longer, a broken one must not be waited for.
READY_SECONDS = 10.0


class Cold:
    """One cold server and its thread. `start` once, `stop` once; dropping it leaves a daemon thread behind."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine
        self.directory = tempfile.mkdtemp(prefix="kars-cold-")  # made with mode 0700
        self.thread = threading.Thread(target=self.run, name="cold", daemon=True)
        self.lock = threading.Lock()
        self.stopping = False
        self.server: Server | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def path(self) -> Path:
        """The socket."""
        return Path(self.directory) / "http.sock"

    def start(self) -> None:
        """Start the thread; the core learns the socket once it listens."""
        self.thread.start()

    def alive(self) -> bool:
        """Whether the thread runs, be it still importing."""
        return self.thread.is_alive()

    def stop(self) -> None:
        """Stop serving, wait a little for calls in flight, remove the socket's directory."""
        with self.lock:
            self.stopping = True
            if self.loop is not None and self.server is not None:
                self.loop.call_soon_threadsafe(self.server.stop)
        self.thread.join(STOP_SECONDS)
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self) -> None:
        """Serve until stopped. A failure is told once on standard error; the next cold event tries again."""
        try:
            self.serve()
        except Exception as error:  # noqa: BLE001 - the thread's end: whatever it was, the router itself goes on
            sys.stderr.write(f"cold routes stopped: {type(error).__name__}: {error}\n")
            shutil.rmtree(self.directory, ignore_errors=True)

    def serve(self) -> None:
        """Import, bind, serve."""
        import asyncio

        import uvloop
        from granian.constants import Interfaces
        from granian.server.embed import Server

        from kars.router.routes import App

        async def main() -> None:
            server = Server(
                App(self.engine),
                uds=self.path,
                interface=Interfaces.RSGI,
                websockets=False,
                log_enabled=False,
                backlog=128,
            )
            with self.lock:
                if self.stopping:
                    return
                self.server, self.loop = server, asyncio.get_running_loop()
            try:
                async with asyncio.TaskGroup() as tasks:
                    opening = tasks.create_task(self.attach())
                    await server.serve()
                    opening.cancel()
            finally:
                with self.lock:
                    self.server = self.loop = None

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    async def attach(self) -> None:
        """Tell the core of the socket once it takes connections: granian's own hooks come before it listens."""
        import asyncio

        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_unix_connection(self.path)
                except OSError:
                    await asyncio.sleep(0.005)
                else:
                    writer.close()
                    self.engine.attach_cold(str(self.path))
                    return
