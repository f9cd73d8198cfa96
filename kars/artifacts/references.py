"""Where an artifact or an image is: host, repository, digest or tag, parsed strictly before anything is asked."""

from __future__ import annotations

import re

import msgspec

from kars.artifacts.refused import Refused
from kars.model.common import OciArtifactRef

DIGEST = re.compile(r"sha256:[a-f0-9]{64}\Z")
# A host name or IPv4 address, or an IPv6 address in brackets, and a port; neither a path nor a user.
HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*\Z")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
# The distribution specification's advice for host and repository together.
LONGEST_REPOSITORY = 255
DOCKER_HUB = "docker.io"
# Other names of Docker Hub in references; cosign writes the first one.
DOCKER_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io", DOCKER_HUB})


class Repository(msgspec.Struct, frozen=True):
    """A repository of a registry."""

    host: str  # host[:port]
    name: str

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"


class Image(msgspec.Struct, frozen=True):
    """An image: by digest where one is given, by tag otherwise."""

    repository: Repository
    tag: str = "latest"
    digest: str = ""


def repository(host: str, name: str) -> Repository:
    """Check host and name; `Refused` with InvalidRef."""
    if not HOST.match(host):
        raise Refused("InvalidRef", f"registry {host!r} is not a host with an optional port")
    if len(name) > LONGEST_REPOSITORY or not REPOSITORY.match(name):
        raise Refused("InvalidRef", f"repository {name!r} is not lower-case path components of a registry")
    return Repository("docker.io" if host in DOCKER_ALIASES else host, name)


def artifact(reference: OciArtifactRef, media_type: str) -> tuple[Repository, str]:
    """Return the repository and the digest of a reference; `Refused` with InvalidRef when it cannot be one."""
    place = repository(reference.registry, reference.repository)
    if not DIGEST.match(reference.digest):
        raise Refused("InvalidRef", f"digest {reference.digest!r} is not sha256: and 64 lower-case hex digits")
    named = getattr(reference, "artifact_type", media_type)
    if named != media_type:
        raise Refused("InvalidRef", f"artifactType {named!r} is not {media_type}")
    return place, reference.digest


def image(text: str) -> Image:
    """Parse an image as a Pod names it; a name without a host is Docker Hub's."""
    rest, _, digest = text.partition("@")
    if "@" in text and not DIGEST.match(digest):
        raise Refused("InvalidRef", f"image {text!r}: the digest is not sha256: and 64 lower-case hex digits")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, "latest"
    if not TAG.match(tag):
        raise Refused("InvalidRef", f"image {text!r}: the tag is not a registry's")
    host, slash, name = head.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, name = DOCKER_HUB, head
    if host in DOCKER_ALIASES and "/" not in name:
        name = f"library/{name}"
    return Image(repository(host, name), tag, digest)
