"""An event loop on a thread of its own, for what must go on beside a test."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future

STOP_SECONDS = 15.0


class Background:
    """Runs coroutines until they are stopped."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="background", daemon=True)
        self.thread.start()

    def start(self, coroutine: Coroutine[object, object, None]) -> Future[None]:
        """Start one; `cancel` the answer to end it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """Cancel everything, wait for its end, and end the thread."""
        self.start(cancel_all()).result(STOP_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(STOP_SECONDS)
        self.loop.close()


async def cancel_all() -> None:
    """Cancel every task of this loop but this one, and wait for them."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
