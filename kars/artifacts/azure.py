"""Azure workload identity for Azure Container Registry: the pod's token becomes a registry's refresh token.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation
https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from yarl import URL

from kars.artifacts.references import Repository
from kars.artifacts.refused import Refused
from kars.artifacts.tokens import AZURE, Basic

if TYPE_CHECKING:
    from kars.artifacts.registry import Registry

# The user that goes with a refresh token.
NOBODY = "00000000-0000-0000-0000-000000000000"
SCOPE = "https://management.azure.com/.default"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# A projected service account token takes some 1.5 KiB.
ASSERTION_BYTES = 16 << 10
TOKEN = re.compile(r"[!-~]{1,32768}\Z")


class Azure(msgspec.Struct, frozen=True, kw_only=True):
    """The pod's identity, from the variables AZURE_* that workload identity injects."""

    tenant_id: str
    client_id: str
    token_file: str
    authority: str = "https://login.microsoftonline.com/"

    async def credentials(self, registry: Registry, place: Repository) -> Basic | None:
        """Return what one of Azure's registries takes for a password; None for others, and where it knows nobody."""
        if not AZURE.match(place.host):
            return None
        access = await self.access_token(registry, place)
        form = {"grant_type": "access_token", "service": place.host, "tenant": self.tenant_id, "access_token": access}
        answer = await registry.post(URL(f"https://{place.host}/oauth2/exchange"), form, place)
        if answer.status == 401:
            return None
        return Basic(NOBODY, member(answer.status, answer.data, "refresh_token", place))

    async def access_token(self, registry: Registry, place: Repository) -> str:
        """Exchange the pod's token for one of Entra's."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "scope": SCOPE,
            "client_assertion_type": ASSERTION,
            "client_assertion": await asyncio.to_thread(self.assertion, place),
        }
        url = URL(self.authority) / self.tenant_id / "oauth2/v2.0/token"
        answer = await registry.post(url, form, place)
        return member(answer.status, answer.data, "access_token", place)

    def assertion(self, place: Repository) -> str:
        """Read the pod's token; the kubelet renews the file, so it is read each time."""
        try:
            with Path(self.token_file).open("rb") as file:
                return file.read(ASSERTION_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError):
            raise Refused("Unauthorized", f"{place}: the pod's identity token cannot be read") from None


def member(status: int, data: bytes, name: str, place: Repository) -> str:
    """Return a token of an answer; `Refused` when there is none."""
    if status == 429 or status >= 500:
        raise Refused("Transient", f"{place}: Azure's token service answered {status}")
    try:
        value: Any = msgspec.json.decode(data, type=dict[str, Any]).get(name)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = None
    if status != 200 or not isinstance(value, str) or not TOKEN.match(value):
        raise Refused("Unauthorized", f"{place}: Azure's token service gave no token ({status})")
    return value
