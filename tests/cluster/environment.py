"""A container's environment as its router process is given it, outside a container: paths lead into the pod's folders."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import kars
from kars import _core
from tests.cluster.api import Object
from tests.cluster.volumes import Missing, Sources, field

REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
# Nothing can be read or made there: what a read-only root without a mount is to its container.
NOWHERE = Path("/proc/self/nowhere")
# Files that the router looks for at fixed places, and the variable that says the same.
CONTENTS = {"/etc/kars/secrets/admin-token": "ADMIN_TOKEN", "/run/secrets/admin-token": "ADMIN_TOKEN"}
FILES = {
    "/run/secrets/azure-openai-key": "AZURE_OPENAI_API_KEY_FILE",
    "/run/secrets/openai-api-key": "OPENAI_API_KEY_FILE",
    "/run/secrets/anthropic-api-key": "ANTHROPIC_API_KEY_FILE",
}


def variables(container: Object, pod: Object, sources: Sources) -> dict[str, str]:
    """The environment that the pod's author wrote; `Missing` when a part of it is not there yet."""
    found: dict[str, str] = {}
    namespace = pod["metadata"]["namespace"]
    for source in container.get("envFrom", []):
        for reference, kind in (("configMapRef", "configMap"), ("secretRef", "secret")):
            if reference in source:
                entries = sources.entries(kind, namespace, source[reference]) or {}
                found |= {source.get("prefix", "") + name: value.decode() for name, value in entries.items()}
    for one in container.get("env", []):
        if "valueFrom" in one:
            value = derived(one["valueFrom"], container, pod, sources)
            if value is not None:
                found[one["name"]] = value
        else:
            found[one["name"]] = expand(one.get("value", ""), found)
    return found


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` where the name is known; `$$` is one dollar."""
    return REFERENCE.sub(lambda m: "$" if m[1] == "$" else known.get(m[2], m[0]), text)


def derived(source: Object, container: Object, pod: Object, sources: Sources) -> str | None:
    """A variable's value from elsewhere; None when it is optional and not there."""
    for reference, kind in (("configMapKeyRef", "configMap"), ("secretKeyRef", "secret")):
        if reference in source:
            wanted = source[reference]
            entries = sources.entries(kind, pod["metadata"]["namespace"], wanted) or {}
            if wanted["key"] in entries:
                return entries[wanted["key"]].decode()
            if wanted.get("optional"):
                return None
            raise Missing(f"couldn't find key {wanted['key']} in {kind} {wanted['name']}")
    if "fieldRef" in source:
        return field(source["fieldRef"]["fieldPath"], pod)
    what, _, resource = source["resourceFieldRef"]["resource"].partition(".")
    return str(container.get("resources", {}).get(what, {}).get(resource, "0"))


class Mounts:
    """Where a container's paths lead."""

    def __init__(self, container: Object, folders: Mapping[str, Path]) -> None:
        mounts = container.get("volumeMounts", [])
        places = [(one["mountPath"].rstrip("/"), folders[one["name"]] / one.get("subPath", "")) for one in mounts]
        self.places: list[tuple[str, Path]] = sorted(places, key=lambda place: -len(place[0]))

    def find(self, path: str) -> Path | None:
        """Where a path is that lies at or under a mount; None elsewhere."""
        for mount, folder in self.places:
            if path == mount or path.startswith(f"{mount}/"):
                return folder / path[len(mount) + 1 :]
        return None


def adapted(given: Mapping[str, str], mounts: Mounts, *, address: str, api: str) -> dict[str, str]:
    """The environment of the process: the given one with paths led into the mounts, listening at the pod's address."""
    made = {name: str(mounts.find(value) or value) if value.startswith("/") else value for name, value in given.items()}
    for name, default, *_ in _core.settings_table():
        if name not in made and default.startswith("/"):
            if place := mounts.find(default):
                made[name] = str(place)
            elif not default.startswith("/etc/"):
                made[name] = str(NOWHERE) + default
    for path, name in CONTENTS.items():
        place = mounts.find(path)
        if place is not None and place.is_file():
            made[name] = place.read_text().strip()
    for path, name in FILES.items():
        place = mounts.find(path)
        if place is not None and place.is_file():
            made.setdefault(name, str(place))
    host, _, port = api.removeprefix("https://").partition(":")
    # A pod's router reads blocklists from the internet unless told otherwise; tests stay on the loopback.
    if made.get("BLOCKLIST_FEEDS", "auto") == "auto":
        made["BLOCKLIST_FEEDS"] = "off"
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(kars.__file__).parents[1]),
        **made,
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "ROUTER_BIND": address,
        "FORWARD_PROXY_BIND": address,
    }
