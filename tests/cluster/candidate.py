"""A process that wants a Lease: it writes down every moment at which it believes that it leads.

    candidate.py KUBECONFIG NAMESPACE NAME IDENTITY DURATION RENEW FILE

SIGTERM gives the lease up. Each line of FILE is `<monotonic seconds> <identity>`; the clock is the machine's.
"""

import asyncio
import os
import signal
import sys
import time

from kars.kube.client import Client
from kars.kube.lease import Lease, Lost
from kars.kube.types import Key


async def main(kubeconfig, namespace, name, identity, duration, renew, path):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with await Client.connect(kubeconfig=kubeconfig) as client:
        lease = Lease(client, Key(namespace, name), identity=identity, duration=float(duration), renew=float(renew))

        async def note():
            while True:
                if lease.leads():
                    os.write(file, f"{time.monotonic():.6f} {identity}\n".encode())
                await asyncio.sleep(0.01)

        async def lead():
            while True:
                await lease.acquire()
                try:
                    await lease.hold()
                except Lost:
                    continue

        noting, leading = asyncio.create_task(note()), asyncio.create_task(lead())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leading.cancel)
        await asyncio.wait([leading])
        noting.cancel()
        await lease.release()
    os.close(file)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
