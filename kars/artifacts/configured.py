"""What fetches artifacts, as the controller's settings say; and the files that they name.

The trusted root is read when the process starts, so that a bad one is known before anything is verified by it. Registry
credentials are read again whenever their file changes: the kubelet renews mounted Secrets, and tokens are short-lived.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kars.artifacts.tokens import Basic, docker_config
from kars.errors import SettingsError
from kars.settings.controller import Controller

if TYPE_CHECKING:
    from kars.artifacts.azure import Azure
    from kars.artifacts.fetch import Artifacts

log = logging.getLogger(__name__)

# The public-good root takes 7 KiB; one with the logs and authorities of many years some more.
ROOT_BYTES = 1 << 20
# A Secret holds 1 MiB.
CONFIG_BYTES = 1 << 20
TRUSTED_ROOT, REGISTRY_CONFIG = "KARS_SIGSTORE_TRUSTED_ROOT", "KARS_REGISTRY_CONFIG"


class RootDocument(msgspec.Struct, rename="camel"):
    """A TrustedRoot, as far as one glance tells: sigstore_trustroot.proto of sigstore/protobuf-specs."""

    media_type: str = ""
    tlogs: tuple[msgspec.Raw, ...] = ()
    certificate_authorities: tuple[msgspec.Raw, ...] = ()


class DockerConfig:
    """Credentials by host from a docker config file, as the file stands."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen: tuple[int, int, int] | None = None
        self.found: dict[str, Basic] = {}

    def get(self, host: str) -> Basic | None:
        """Return the credentials for a host; those that were read last, when the file cannot be read now."""
        try:
            self.refresh()
        except SettingsError as error:
            log.warning("artifacts.credentials", extra={"error": str(error)})
        return self.found.get(host)

    def refresh(self) -> None:
        """Read the file if it is another one than before; `SettingsError` never shows what stands in it."""
        try:
            stat = Path(self.path).stat()
        except OSError as error:
            raise unreadable(REGISTRY_CONFIG, self.path, error) from None
        state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if state != self.seen:
            self.found = docker_config(contents(REGISTRY_CONFIG, self.path, CONFIG_BYTES))
            self.seen = state


def artifacts(settings: Controller) -> Artifacts:
    """Make what fetches and verifies; loads the libraries that take, so only when an artifact is named."""
    from kars.artifacts.fetch import Artifacts

    if settings.insecure_registries:
        log.warning("artifacts.insecure", extra={"registries": ", ".join(settings.insecure_registries)})
    return Artifacts(
        trusted_root=trusted_root(settings.trusted_root),
        insecure_hosts=frozenset(settings.insecure_registries),
        credentials=DockerConfig(settings.registry_config) if settings.registry_config else None,
        azure=azure(settings),
    )


def check(settings: Controller) -> None:
    """Read the files once, for a process that cannot use them to say so at its start (`SettingsError`)."""
    trusted_root(settings.trusted_root)
    if settings.registry_config:
        DockerConfig(settings.registry_config).refresh()


def azure(settings: Controller) -> Azure | None:
    """Return the pod's identity, where it has one."""
    from kars.artifacts.azure import Azure

    if not (settings.azure_tenant_id and settings.azure_client_id and settings.azure_token_file):
        return None
    return Azure(
        tenant_id=settings.azure_tenant_id,
        client_id=settings.azure_client_id,
        token_file=settings.azure_token_file,
        authority=settings.azure_authority,
    )


def trusted_root(path: str) -> bytes | None:
    """Return a TrustedRoot's bytes, None without a path."""
    if not path:
        return None
    data = contents(TRUSTED_ROOT, path, ROOT_BYTES)
    try:
        document = msgspec.json.decode(data, type=RootDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = RootDocument()
    if not (document.certificate_authorities and document.tlogs):
        raise SettingsError(
            f"{TRUSTED_ROOT}: {path} is no Sigstore TrustedRoot with a certificate authority and a log",
            hint="docs/signing.md says how to export one",
        )
    return data


def contents(variable: str, path: str, most: int) -> bytes:
    """Read a file that a variable names, at most so many bytes."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise unreadable(variable, path, error) from None
    if len(data) > most:
        raise SettingsError(f"{variable}: {path} has more than {most} bytes")
    return data


def unreadable(variable: str, path: str, error: OSError) -> SettingsError:
    """Say that a file cannot be read."""
    return SettingsError(f"{variable}: {path} cannot be read: {error.strerror or type(error).__name__}")
