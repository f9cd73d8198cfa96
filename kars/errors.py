"""One tree of exceptions, each with a code, an exit status, a hint, and whether trying again can help.

    KarsError
    ├── UsageError        exit 2   the command line is wrong
    ├── SettingsError     exit 2   an environment variable or a flag has a value that the router refuses
    ├── NotFoundError     exit 3   a file, a directory or a route is not there
    ├── DeniedError       exit 4   a policy said no
    └── FailureError      exit 1   everything else that a person has to act on
        ├── PolicyError            a policy file is not valid
        ├── ResourceError          a custom resource is not valid
        │   ├── Unfit              nothing can be published of a policy (policy.compiled)
        │   └── Unplannable        no pod can be made of a sandbox (desired)
        ├── ApiError               an answer of the API server that is no success (kube.errors): Missing, Conflict,
        │                          Gone, Invalid (Immutable), Forbidden; Busy is retryable
        ├── NotOurs                an object that is needed belongs to somebody else (controller)
        ├── Refused                a signed artifact is not used (artifacts)
        ├── AuditError             the audit log is broken or cannot be read
        └── UnavailableError       a listener, socket or process is not there (yet); retryable

A text never holds a secret or a prompt: names, sizes, codes and the operator's own file paths only.
"""

from __future__ import annotations


class KarsError(Exception):
    """The root: `str(error)` is for people, `code` for machines."""

    code = "failure"
    exit_status = 1
    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(KarsError):
    """The command line is wrong."""

    code = "usage"
    exit_status = 2


class SettingsError(KarsError):
    """A variable or flag has a value that the router refuses; the text names it."""

    code = "settings"
    exit_status = 2


class NotFoundError(KarsError):
    """What was named is not there."""

    code = "not_found"
    exit_status = 3


class DeniedError(KarsError):
    """A policy said no."""

    code = "denied"
    exit_status = 4


class FailureError(KarsError):
    """Something went wrong that a person has to act on."""


class PolicyError(FailureError):
    """A policy file is not valid."""

    code = "policy"


class ResourceError(FailureError):
    """A custom resource is not valid; the text names the path, what is wrong there and what is allowed."""

    code = "resource"


class AuditError(FailureError):
    """The audit log is broken or cannot be read."""

    code = "audit"


class UnavailableError(FailureError):
    """A listener, socket or process is not there, or not yet."""

    code = "unavailable"
    retryable = True


def from_core(error: Exception) -> KarsError:
    """Turn a `kars._core.CoreError` into this tree by its `kind`."""
    kind = getattr(error, "kind", "")
    message = str(error)
    if kind == "config":
        return SettingsError(message, hint="`kars router --help` lists every variable with its default")
    if kind == "policy":
        return PolicyError(message, hint="docs/policy.md lists the fields; `kars policy validate FILE` checks one")
    if kind == "io":
        return UnavailableError(message)
    return FailureError(message)
