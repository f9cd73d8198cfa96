"""Bring a cluster's CustomResourceDefinitions to what this version of kars works with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal

import msgspec

from kars.kube import types
from kars.kube.client import Client
from kars.kube.errors import ApiError, Busy, Conflict, Forbidden, Missing
from kars.kube.types import DEFINITION, Object

MANAGER = "kars-crds"
# Seconds between looks at a definition that is not served yet; it takes about a second.
LOOK = 0.2

Outcome = Literal["created", "changed", "unchanged", "failed"]


class Applied(msgspec.Struct, kw_only=True):
    """What became of a definition; `error` says why it failed, or why it is not served."""

    name: str
    outcome: Outcome
    established: bool = False
    error: str = ""
    hint: str = ""


async def apply(
    client: Client, documents: Sequence[Object], *, dry: bool = False, force: bool = False, seconds: float = 60.0
) -> AsyncGenerator[Applied, None]:
    """Apply the definitions, wait until the API server serves them, and yield in order what became of each.

    A definition that cannot be applied does not keep the others from it. `dry` asks the server what would happen.
    Raises what `Client.version` does when there is no server at all.
    """
    await client.version()
    deadline = time.monotonic() + seconds

    async def bring(document: Object) -> Applied:
        done = await one(client, document, dry=dry, force=force)
        if done.outcome != "failed" and not dry:
            await establish(client, done, deadline)
        return done

    tasks = [asyncio.create_task(bring(document)) for document in documents]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def one(client: Client, document: Object, *, dry: bool, force: bool) -> Applied:
    """Apply one definition and say what that changed."""
    key = types.key(document)
    done = Applied(name=key.name, outcome="failed")
    try:
        try:
            before: Object | None = await client.get(DEFINITION, key)
        except Missing:
            before = None
        after = await client.apply(document, manager=MANAGER, force=force, dry=dry)
    except ApiError as error:
        done.error, done.hint = plainly(error, key), error.hint or advice(error)
        return done
    done.outcome = "created" if before is None else "unchanged" if said(before) == said(after) else "changed"
    return done


async def establish(client: Client, done: Applied, deadline: float) -> None:
    """Wait until a definition is served, its names are refused, or the time is over."""
    key = types.Key("", done.name)
    while True:
        try:
            standing = conditions(await client.get(DEFINITION, key))
            done.error = ""
        except Busy as error:
            standing, done.error = {}, str(error)
        except ApiError as error:
            done.error, done.hint = plainly(error, key), error.hint or advice(error)
            return
        if standing.get("Established", {}).get("status") == "True":
            done.established = True
            return
        names = standing.get("NamesAccepted", {})
        if names.get("status") == "False":
            done.error = f"its names are refused: {names.get('message')}"
            done.hint = "another definition has them; see kubectl get crds"
            return
        if time.monotonic() >= deadline:
            done.error = done.error or "it is not served yet"
            return
        await asyncio.sleep(LOOK)


def said(definition: Object) -> tuple[object, ...]:
    """Return what a definition says, without what the server notes down about it."""
    metadata = definition["metadata"]
    return metadata.get("labels"), metadata.get("annotations"), definition.get("spec")


def conditions(definition: Object) -> dict[str, dict[str, Any]]:
    """Return a definition's conditions by type."""
    listed = (definition.get("status") or {}).get("conditions") or ()
    return {one.get("type", ""): one for one in listed}


def plainly(error: ApiError, key: types.Key) -> str:
    """Say what an error says, without the definition's name, which is told beside."""
    return str(error).removeprefix(f"{DEFINITION.plural} {key.name}: ")


def advice(error: ApiError) -> str:
    """Say what may help."""
    if isinstance(error, Conflict):
        return "another field manager (a Helm release?) wants it otherwise; --force-conflicts takes the fields over"
    if isinstance(error, Forbidden):
        return "it takes the right to get and patch customresourcedefinitions, as cluster-admin has it"
    return ""
