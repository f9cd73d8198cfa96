"""What the API server can answer, as exceptions of one tree.

ApiError                 any answer of 400 and above; `status` and `reason` are the server's
├── Missing              404
├── Conflict             409: the object changed, is there already, or belongs to another field manager
├── Gone                 410: the resource version is too old; list again
├── Invalid              422 and 400: the object is not valid; the same request will never pass
├── Forbidden            401 and 403: no right, or an admission policy said no
└── Busy                 429, 5xx, timeouts and lost connections: the same request may pass later
"""

from __future__ import annotations

from kars.errors import FailureError


class ApiError(FailureError):
    """An answer that is no success."""

    code = "api"

    def __init__(self, message: str, *, status: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason


class Missing(ApiError):
    """There is no such object."""


class Conflict(ApiError):
    """Somebody else was there first."""


class Gone(ApiError):
    """The resource version is too old to go on from."""


class Invalid(ApiError):
    """The API server refuses the object as it is."""


class Forbidden(ApiError):
    """Not allowed."""


class Busy(ApiError):
    """Not now; `after` is how many seconds the server asks to wait, None when it did not say."""

    retryable = True

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", hint: str = "", after: float | None = None
    ) -> None:
        super().__init__(message, status=status, reason=reason, hint=hint)
        self.after = after
