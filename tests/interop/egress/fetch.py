"""Fetches a URL with a client of Python's and prints status and body: `fetch.py requests|httpx|aiohttp URL`."""

import asyncio
import sys


def by_requests(url: str) -> tuple[int, str]:
    import requests

    response = requests.get(url, timeout=20)
    return response.status_code, response.text


def by_httpx(url: str) -> tuple[int, str]:
    import httpx

    response = httpx.get(url, timeout=20)
    return response.status_code, response.text


def by_aiohttp(url: str) -> tuple[int, str]:
    import ssl

    import aiohttp

    async def get() -> tuple[int, str]:
        # aiohttp reads the proxy variables only when it is asked to.
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.get(url, ssl=ssl.create_default_context()) as response,
        ):
            return response.status, await response.text()

    return asyncio.run(get())


if __name__ == "__main__":
    try:
        status, text = globals()[f"by_{sys.argv[1]}"](sys.argv[2])
    except Exception as error:  # noqa: BLE001 - whatever the client makes of it is shown
        print("failed", error)
        sys.exit(1)
    print(status, text.strip())
