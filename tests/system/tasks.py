"""The end of a server that has an event loop to itself."""

import asyncio


async def end(server: asyncio.Server) -> None:
    """Stop listening, then cancel every other task of this loop and wait for their ends."""
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener.fileno())
    # What was accepted in this turn becomes a connection in the next; for a closed server it would be dropped unclosed.
    await asyncio.sleep(0)
    server.close()
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
