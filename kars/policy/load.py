"""Find a mounted bundle's files and read them, bounded. No policy is understood here, and nothing is decided.

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
# An approval is about half a KiB and a ConfigMap 1 MiB at most, so a mount of more files is no mount of ours.
MAX_FILES = 2048
# Listings before a vanishing file counts as absent: a swap takes one, so three is already a broken mount.
ATTEMPTS = 3


class Bundle:
    """What a mount holds: where, the files under the names that the digest takes, and what was passed over."""

    __slots__ = ("files", "problems", "source")

    def __init__(self, source: str, files: list[tuple[str, bytes]], problems: list[str]) -> None:
        self.source = source
        self.files = files
        self.problems = problems


def find(directory: str, kind: Kind) -> list[str]:
    """Return the names of the kind's files in sort order; none when the directory is not there."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise PolicyError(f"{directory}: {error.strerror}") from error
    return sorted(name for name in names if kind.takes(name) and os.path.isfile(os.path.join(directory, name)))


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


def mounted(directory: str, kind: Kind) -> Bundle | None:
    """Return the bundle in `directory`, or None when there is none.

    Of a bundle of one file, an unreadable one is a `PolicyError`. Files of a bundle of many stand alone: an unreadable
    one is passed over and told, so that it cannot keep in force what was taken away beside it.
    """
    for _ in range(ATTEMPTS):
        names = find(directory, kind)
        if not names:
            return None
        try:
            if kind.file:
                path = os.path.join(directory, names[0])
                return Bundle(path, [(kind.file, read(path))], [])
            return gather(directory, names)
        except NotFoundError:
            continue
    return None


def gather(directory: str, names: list[str]) -> Bundle:
    """Read the files of a bundle of many; a `NotFoundError` when one has vanished since the listing."""
    bundle = Bundle(directory, [], [])
    for name in names[:MAX_FILES]:
        try:
            bundle.files.append((name, read(os.path.join(directory, name))))
        except PolicyError as error:
            bundle.problems.append(str(error))
    if len(names) > MAX_FILES:
        bundle.problems.append(f"{directory}: {len(names)} files, of which only the first {MAX_FILES} are read")
    return bundle
