"""What a pod's volumes hold, and folders that change as the kubelet changes them: in one rename."""

import base64
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.api import Object
from tests.cluster.watching import Key

Files = dict[str, bytes]


class Missing(Exception):
    """Something that a pod needs is not there yet."""


class Sources:
    """ConfigMaps and Secrets as they are now, and the tokens that were asked for."""

    def __init__(self, maps: Mapping[Key, Object], hidden: Mapping[Key, Object], tokens: Mapping[str, str]) -> None:
        self.maps = maps
        self.hidden = hidden
        self.tokens = tokens

    def entries(self, kind: str, namespace: str, source: Object) -> Files | None:
        """All keys of a ConfigMap or Secret; None when it is not there and need not be."""
        name = source.get("name") or source.get("secretName", "")
        found = (self.maps if kind == "configMap" else self.hidden).get((namespace, name))
        if found is None:
            if source.get("optional"):
                return None
            raise Missing(f'{kind.lower()} "{name}" not found')
        if kind == "configMap":
            texts = {name: value.encode() for name, value in (found.get("data") or {}).items()}
            return texts | {name: base64.b64decode(value) for name, value in (found.get("binaryData") or {}).items()}
        return {name: base64.b64decode(value) for name, value in (found.get("data") or {}).items()}


def render(volume: Object, pod: Object, sources: Sources) -> Files | None:
    """The files of a volume; None for one that the pod writes itself. `Missing` when it cannot be mounted yet."""
    for kind in ("configMap", "secret"):
        if kind in volume:
            return pick(kind, volume[kind], pod, sources)
    if "downwardAPI" in volume:
        return downward(volume["downwardAPI"], pod)
    if "projected" not in volume:
        return None
    files: Files = {}
    for source in volume["projected"].get("sources", []):
        if "serviceAccountToken" in source:
            wanted = source["serviceAccountToken"]
            files[wanted["path"]] = sources.tokens[wanted.get("audience", "")].encode()
        elif "downwardAPI" in source:
            files |= downward(source["downwardAPI"], pod)
        else:
            ((kind, content),) = source.items()
            files |= pick(kind, content, pod, sources)
    return files


def pick(kind: str, source: Object, pod: Object, sources: Sources) -> Files:
    """The files that a ConfigMap or Secret becomes, under the names that `items` gives them."""
    found = sources.entries(kind, pod["metadata"]["namespace"], source)
    if found is None:
        return {}
    if not source.get("items"):
        return found
    absent = [item["key"] for item in source["items"] if item["key"] not in found]
    if absent and not source.get("optional"):
        raise Missing(f"references non-existent {kind.lower()} key: {absent[0]}")
    return {item["path"]: found[item["key"]] for item in source["items"] if item["key"] in found}


def downward(source: Object, pod: Object) -> Files:
    """The files of a downward API volume."""
    return {item["path"]: field(item["fieldRef"]["fieldPath"], pod).encode() for item in source.get("items", [])}


def field(path: str, pod: Object) -> str:
    """What `fieldPath` means in a pod."""
    head, _, key = path.partition("[")
    place: object = pod
    for part in head.split("."):
        place = place.get(part, "") if isinstance(place, dict) else ""
    if not isinstance(place, dict):
        return str(place)
    if key:
        return str(place.get(key.strip("]'\""), ""))
    return "\n".join(f'{name}="{value}"' for name, value in sorted(place.items()))


def audiences(pod: Object) -> set[str]:
    """The audiences of all service account tokens that a pod mounts; empty for the API server's own."""
    return {
        source["serviceAccountToken"].get("audience", "")
        for volume in pod["spec"].get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }


class Folder:
    """A mounted volume: visible names are links into `..data`, and that is swapped in one rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: Files | None = None
        path.mkdir(parents=True)

    def swap(self, files: Files) -> bool:
        """Show exactly these files (names may have folders); false when they are what is there."""
        if files == self.files:
            return False
        version = self.path / f"..{secrets.token_hex(6)}"
        for name, data in files.items():
            (version / name).parent.mkdir(parents=True, exist_ok=True)
            (version / name).write_bytes(data)
        version.mkdir(exist_ok=True)
        current = self.path / "..data"
        before = current.readlink() if current.is_symlink() else None
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(current)
        wanted = {name.partition("/")[0] for name in files}
        for name in wanted:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for visible in self.path.iterdir():
            if not visible.name.startswith("..") and visible.name not in wanted:
                visible.unlink()
        if before is not None:
            shutil.rmtree(self.path / before)
        self.files = files
        return True
