"""What a registry is told about who asks: challenges, basic credentials, bearer tokens, Azure workload identity.

https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from kars.artifacts.references import DOCKER_ALIASES, DOCKER_HUB, HOST
from kars.errors import SettingsError

# A challenge is a realm, a service and a scope; more than this is no registry's.
CHALLENGE_LENGTH = 4096
PARAMETER = re.compile(r'([A-Za-z_]{1,32})="([^"\\]*)"')
# Registries of Azure's clouds: the only hosts that the pod's identity is shown to.
AZURE = re.compile(r"[a-z0-9]{5,50}(-[a-z0-9]+)?(\.[a-z]+)?\.azurecr\.(io|cn|us)\Z")
# Registries in one docker config; a person writes a handful.
CREDENTIALS = 256


class Basic(msgspec.Struct, frozen=True):
    """A user and a password; printed without the password."""

    user: str
    password: str

    def header(self) -> str:
        """Return the value of Authorization."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return f"Basic(user={self.user!r}, password=...)"


class Challenge(msgspec.Struct, frozen=True):
    """How a registry wants to be asked."""

    scheme: str  # bearer or basic
    realm: str = ""
    service: str = ""


class Token(msgspec.Struct, frozen=True):
    """A bearer token until a moment of the loop's clock; printed without the token."""

    value: str
    until: float

    def __repr__(self) -> str:
        return f"Token(until={self.until})"


def challenge(header: str) -> Challenge | None:
    """Read WWW-Authenticate; None when it is neither Basic nor Bearer with a realm."""
    if len(header) > CHALLENGE_LENGTH:
        return None
    scheme, _, rest = header.strip().partition(" ")
    scheme = scheme.lower()
    if scheme == "basic":
        return Challenge("basic")
    parameters = {name.lower(): value for name, value in PARAMETER.findall(rest)}
    if scheme != "bearer" or not parameters.get("realm"):
        return None
    return Challenge("bearer", parameters["realm"], parameters.get("service", ""))


def host_of(key: str) -> str:
    """Return the host that a key of a docker config is about: https://index.docker.io/v1/ is docker.io."""
    host = urlsplit(key if "://" in key else f"//{key}").netloc
    return DOCKER_HUB if host in DOCKER_ALIASES else host


def docker_config(text: bytes) -> dict[str, Basic]:
    """Read the `auths` of a docker config JSON by host; `SettingsError` never shows what stands in it."""
    hint = "the file is what `docker login` writes: {auths: {host: {auth: base64 of user:password}}}"
    try:
        document = msgspec.json.decode(text, type=dict[str, Any])
        auths = msgspec.convert(document.get("auths", {}), dict[str, dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise SettingsError("the docker config is not JSON with auths", hint=hint) from None
    if len(auths) > CREDENTIALS:
        raise SettingsError(f"the docker config has {len(auths)} registries; at most {CREDENTIALS} are read")
    found = {}
    for key, entry in auths.items():
        host, basic = host_of(key), credentials(entry)
        if basic is None or not HOST.match(host):
            raise SettingsError(f"the docker config's entry for {host!r} has no user and password", hint=hint)
        found[host] = basic
    return found


def credentials(entry: Mapping[str, Any]) -> Basic | None:
    """Read one entry: auth, or username and password."""
    user, password, auth = entry.get("username"), entry.get("password"), entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return Basic(user, password.rstrip("\x00")) if colon else None
    return Basic(user, password) if isinstance(user, str) and isinstance(password, str) else None
