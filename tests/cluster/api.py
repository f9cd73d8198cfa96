"""Requests to the API server with plain HTTP, so that tests see objects as they are stored."""

from collections.abc import Mapping
from typing import Any

import requests

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(AssertionError):
    """The API server refused; `status` is HTTP's, `body` its Status object."""

    def __init__(self, method: str, path: str, status: int, body: Object) -> None:
        super().__init__(f"{method} {path}: {status} {body.get('message', body)}")
        self.status = status
        self.body = body

    @property
    def message(self) -> str:
        """What the API server says to people."""
        return str(self.body.get("message", ""))


class Api:
    """One account at one API server. Paths are the server's own: `/api/v1/namespaces/x/pods/y`."""

    def __init__(self, url: str, *, authority: str, token: str) -> None:
        self.url = url
        self.session = requests.Session()
        # Neither proxies nor bundles of the environment: these requests stay on the loopback.
        self.session.trust_env = False
        self.session.verify = authority
        self.session.headers["Authorization"] = f"Bearer {token}"

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = "application/json",
        seconds: float = 30.0,
        **query: str,
    ) -> Object:
        """Send one request; the decoded answer. An `ApiError` for every status from 400 on."""
        answer = self.session.request(
            method,
            self.url + path,
            params=query,
            json=body,
            headers={"Content-Type": content} if body is not None else None,
            timeout=seconds,
        )
        if answer.status_code >= 400:
            try:
                found = answer.json()
            except ValueError:
                found = {"message": answer.text}
            raise ApiError(method, path, answer.status_code, found)
        return answer.json() if answer.headers.get("Content-Type") == "application/json" else {"text": answer.text}

    def get(self, path: str, **query: str) -> Object:
        """Read an object or a collection."""
        return self.request("GET", path, None, content="application/json", seconds=30.0, **query)

    def items(self, path: str, **query: str) -> list[Object]:
        """Read a collection's objects."""
        found: list[Object] = self.get(path, **query)["items"]
        return found

    def find(self, path: str) -> Object | None:
        """Read an object; None when it is not there."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, body: Mapping[str, object]) -> Object:
        """Create an object in a collection."""
        return self.request("POST", path, body)

    def merge(self, path: str, patch: Mapping[str, object]) -> Object:
        """Change an object by a JSON merge patch."""
        return self.request("PATCH", path, patch, content=MERGE)

    def apply(self, path: str, body: Mapping[str, object], *, manager: str = "test") -> Object:
        """Server-side apply one object, by force."""
        return self.request("PATCH", path, body, content=APPLY, fieldManager=manager, force="true")

    def delete(self, path: str, body: Mapping[str, object] | None = None) -> Object:
        """Delete an object."""
        return self.request("DELETE", path, body)

    def drop(self, path: str, body: Mapping[str, object] | None = None) -> None:
        """Delete an object if it is there."""
        try:
            self.delete(path, body)
        except ApiError as error:
            if error.status != 404:
                raise

    def close(self) -> None:
        """Close every connection."""
        self.session.close()
