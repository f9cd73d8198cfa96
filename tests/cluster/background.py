"""An event loop on a thread of its own, for what must go on beside a test."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future

STOP_SECONDS = 15.0
GOODBYE_SECONDS = 0.1


class Background:
    """Runs coroutines until they are stopped."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="background", daemon=True)
        self.thread.start()
        self.running: list[Future[None]] = []

    def start(self, coroutine: Coroutine[object, object, None]) -> Future[None]:
        """Start one; `cancel` the answer to end it."""
        self.running.append(asyncio.run_coroutine_threadsafe(coroutine, self.loop))
        return self.running[-1]

    def check(self) -> None:
        """Raise what ended one of them before its time."""
        for one in self.running:
            if one.done() and not one.cancelled():
                one.result()

    def stop(self) -> None:
        """Cancel everything, wait for its end, and end the thread."""
        asyncio.run_coroutine_threadsafe(cancel_all(), self.loop).result(STOP_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(STOP_SECONDS)
        self.loop.close()


async def cancel_all() -> None:
    """Cancel every task of this loop but this one, and wait for them."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Connections with TLS say goodbye after they were closed; a loop that ends before leaves them open.
    await asyncio.sleep(GOODBYE_SECONDS)
