"""Where the API server is and as whom we call it: the pod's account or a kubeconfig, as the official client reads them.

Only `transport` imports this, and that only once a client connects: the official client costs much to import.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, incluster_config, kube_config, load_incluster_config

from kars import settings
from kars.errors import NotFoundError, SettingsError

DEFAULT = "~/.kube/config"
# Seconds between looks at a token that rotates on disk or comes from a plugin; kubelet renews an hour before the end.
LOOK = 60.0
# What a token may have in characters; those of the API server have one or two thousand.
TOKEN = 64 << 10
LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")


class Account:
    """A server and a credential. `described` says where they come from, for messages."""

    def __init__(self, configuration: Configuration, described: str) -> None:
        self.configuration = configuration
        self.described = described
        self.loader: kube_config.KubeConfigLoader | None = None
        self.token_file = ""
        self.looked = time.monotonic()

    @property
    def server(self) -> str:
        """The address, without a slash at the end."""
        return str(self.configuration.host).rstrip("/")

    async def authorization(self) -> str:
        """Return the value of the Authorization header; empty where a certificate speaks for us."""
        if time.monotonic() - self.looked >= LOOK:
            self.looked = time.monotonic()
            await self.look()
        return str(self.configuration.api_key.get("BearerToken") or "").strip()

    async def look(self) -> None:
        """Take a newer token where there may be one; the old one stays when there is not."""
        if self.token_file:
            try:
                token = token_in(self.token_file)
            except OSError:
                return
            if token:
                self.configuration.api_key["BearerToken"] = f"Bearer {token}"
        elif self.loader is not None and hasattr(self.loader, "exec_plugin_expiry"):
            # Without a time of expiry a plugin's token counts until the server refuses it.
            await self.loader.load_from_exec_plugin()  # type: ignore[no-untyped-call]
            self.configuration.api_key["BearerToken"] = self.loader.token


def token_in(path: str) -> str:
    """Read a token; empty for what no header can hold. A file on a local mount, small enough for the loop to wait."""
    with Path(path).open(encoding="ascii", errors="replace") as file:
        token = file.read(TOKEN).strip()
    return token if token.isascii() and token.isprintable() else ""


async def find(*, kubeconfig: str = "", context: str = "") -> Account:
    """Find the account; first of: `kubeconfig`, KUBECONFIG, the pod's, ~/.kube/config (with `context` no pod's).

    The order is that of controller-runtime. `NotFoundError` when there is none, `SettingsError` when it cannot be used.
    """
    given = kubeconfig or settings.variable("KUBECONFIG", "")
    if not given and not context and (account := in_pod()):
        return checked(account)
    return checked(await from_files(given or DEFAULT, context=context, given=bool(given)))


def in_pod() -> Account | None:
    """Return the pod's account; None outside of a pod."""
    configuration = Configuration()
    try:
        load_incluster_config(configuration, try_refresh_token=False)  # type: ignore[no-untyped-call]
    except ConfigException:
        return None
    account = Account(configuration, "the pod's service account")
    account.token_file = incluster_config.SERVICE_TOKEN_FILENAME
    return account


async def from_files(paths: str, *, context: str, given: bool) -> Account:
    """Read one or more kubeconfig files, joined by colons; what stands in an earlier one counts."""
    merged = merge(paths, given=given)
    contexts = [str(one["name"]) for one in merged.config.value["contexts"]]
    # The official client takes the last file's current context, kubectl the first's.
    current = next((one["current-context"] for one in merged.config_files.values() if one.get("current-context")), "")
    chosen = context or current
    if chosen not in contexts:
        known = ", ".join(sorted(contexts)) or "none"
        what = f"there is no context {chosen}" if chosen else "no context is chosen"
        raise NotFoundError(f"{what} in {paths}", hint=f"contexts: {known}; choose one by --context")
    configuration = Configuration()
    account = Account(configuration, f"context {chosen} of {paths}")
    try:
        loader = kube_config.KubeConfigLoader(merged.config, active_context=chosen, config_base_path=None)  # type: ignore[no-untyped-call]
        await loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        # Past " in " the client prints the entry as it stands, credentials and all.
        raise SettingsError(f"{account.described} cannot be used: {str(error).split(' in ')[0]}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError(f"{account.described} cannot be used: {type(error).__name__}") from None
    account.loader = loader
    user: Any = merged_user(merged, loader)
    if "exec" in user and not (configuration.api_key.get("BearerToken") or configuration.cert_file):
        command = user["exec"].get("command")
        raise SettingsError(f"{account.described}: the plugin {command} gave no credential", hint=f"try {command}")
    if user.get("tokenFile") and not user.get("token"):
        account.token_file = user["tokenFile"]
    return account


def merged_user(merged: kube_config.KubeConfigMerger, loader: kube_config.KubeConfigLoader) -> dict[str, Any]:
    """Return the user entry of the chosen context; empty when it has none."""
    name = loader.current_context["context"].get("user")
    for one in merged.config.value["users"]:
        if one["name"] == name:
            return one.value.get("user") or {}
    return {}


def merge(paths: str, *, given: bool) -> kube_config.KubeConfigMerger:
    """Read the files; `NotFoundError` when none is there."""
    if not any(Path(path).expanduser().exists() for path in paths.split(":") if path):
        tried = paths if given else f"KUBECONFIG is not set, this is no pod, and {paths} is not there"
        raise NotFoundError(
            f"no cluster: {tried}" if not given else f"no kubeconfig: {paths} is not there",
            hint="name a kubeconfig by --kubeconfig FILE or KUBECONFIG",
        )
    try:
        merged = kube_config.KubeConfigMerger(paths)  # type: ignore[no-untyped-call]
        if all(isinstance(one, dict) for one in merged.config_files.values()):
            return merged
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"kubeconfig {paths} is no YAML{where}") from None
    except OSError as error:
        raise SettingsError(f"kubeconfig {paths} cannot be read: {error.strerror}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise SettingsError(f"kubeconfig {paths} is not valid")


def checked(account: Account) -> Account:
    """Refuse what would send a credential to somebody whose name was not verified."""
    configuration = account.configuration
    if not configuration.verify_ssl:
        raise SettingsError(
            f"{account.described} switches TLS verification off",
            hint="name the cluster's CA by certificate-authority instead of insecure-skip-tls-verify",
        )
    token = (configuration.api_key.get("BearerToken") or "").strip()
    if not (token.isascii() and token.isprintable()):
        raise SettingsError(f"{account.described}: its token has characters that no header can hold")
    address = urlsplit(account.server)
    if address.scheme != "https" and not LOOPBACK.fullmatch(address.hostname or ""):
        raise SettingsError(f"{account.described}: {account.server} is not https")
    return account
