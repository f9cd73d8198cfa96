"""Whether the cluster can be reached, knows our kinds and lets us see them; asked once, before anything is begun."""

from __future__ import annotations

import asyncio

from kars.errors import DeniedError, NotFoundError, UnavailableError
from kars.kube import types
from kars.kube.answers import UNAUTHORIZED, UNKNOWN
from kars.kube.client import Client
from kars.kube.errors import ApiError, Busy, Forbidden, Missing
from kars.model.base import GROUP, Resource
from kars.model.kinds import KINDS

# An API server that restarts beside us is back within seconds; one that is not makes the kubelet start us again.
ATTEMPTS = 3
PAUSE = 1.0
# A name that no resource can have: the question is about the kind.
NOBODY = "metadata.name=-"


async def check(client: Client, stop: asyncio.Event) -> None:
    """Raise unless all of our kinds can be listed; return early when the process is told to end meanwhile."""
    for attempt in range(1, ATTEMPTS + 1):
        answers = await asyncio.gather(*(ask(client, kind) for kind in KINDS.values()))
        lost = next((one for one in answers if isinstance(one, Busy)), None)
        if lost is None:
            refuse(dict(zip(KINDS, answers, strict=True)))
            return
        if attempt == ATTEMPTS:
            raise UnavailableError(
                f"no API server: {lost}",
                hint=lost.hint or "--kubeconfig and --context choose a cluster; in a pod it is the service account's",
            ) from lost
        try:
            async with asyncio.timeout(PAUSE * attempt):
                await stop.wait()
                return
        except TimeoutError:
            continue


async def ask(client: Client, kind: type[Resource]) -> ApiError | None:
    """List none of a kind; what is wrong with that."""
    try:
        await client.list(types.custom(kind), fields=NOBODY, page=1)
    except ApiError as error:
        return error
    return None


def refuse(answers: dict[str, ApiError | None]) -> None:
    """Raise for what will not pass by itself."""
    missing = [kind for kind, error in answers.items() if isinstance(error, Missing)]
    if missing:
        raise NotFoundError(
            f"the cluster has no custom resource definition of {named(missing)}",
            hint="install them with `kars crds apply`",
        )
    strangers = [error for error in answers.values() if isinstance(error, Forbidden) and error.status == UNAUTHORIZED]
    if strangers:
        raise DeniedError(UNKNOWN, hint=strangers[0].hint) from strangers[0]
    denied = [kind for kind, error in answers.items() if isinstance(error, Forbidden)]
    if denied:
        raise DeniedError(
            f"not allowed to list {named(denied)}", hint="the chart's ClusterRole kars-controller has the rights"
        )
    for error in answers.values():
        if error is not None:
            raise error


def named(kinds: list[str]) -> str:
    """Name kinds, or say that it is all of them."""
    return f"any kind of {GROUP}" if len(kinds) == len(KINDS) else ", ".join(kinds)
