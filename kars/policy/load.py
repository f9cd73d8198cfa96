"""Find a mounted bundle's file and read it, bounded. No policy is understood here, and nothing is decided.

A Kubernetes mount is a symlink `..data` that the kubelet swaps in one step: a file can vanish between listing and
reading, and then the next listing has its successor.
"""

from __future__ import annotations

import os

from kars.errors import NotFoundError, PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.policy.kinds import Kind

# An etcd object is at most 1.5 MiB, so a mounted file is never larger; the core has the same bound.
MAX_BYTES = 2 * 1024 * 1024
# Listings before a vanishing file counts as absent: a swap takes one, so three is already a broken mount.
ATTEMPTS = 3


def find(directory: str, kind: Kind) -> str | None:
    """Return the path of the bundle's file: the first in sort order with the kind's suffix, dot files left out."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PolicyError(f"{directory}: {error.strerror}") from error
    for name in sorted(names):
        path = os.path.join(directory, name)
        if name.endswith(kind.suffix) and not name.startswith(".") and os.path.isfile(path):
            return path
    return None


def read(path: str) -> bytes:
    """Read one file whole; more than `MAX_BYTES` is a `PolicyError`, an absent one a `NotFoundError`."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = bytearray()
            while chunk := file.read(MAX_BYTES + 1 - len(data)):
                data += chunk
    except FileNotFoundError as gone:
        raise NotFoundError(f"{path}: no such file") from gone
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{path}: more than {MAX_BYTES} bytes")
    return bytes(data)


def mounted(directory: str, kind: Kind) -> tuple[str, bytes] | None:
    """Return the path and bytes of the bundle in `directory`, or None when there is none."""
    for _ in range(ATTEMPTS):
        path = find(directory, kind)
        if path is None:
            return None
        try:
            return path, read(path)
        except NotFoundError:
            continue
    return None
