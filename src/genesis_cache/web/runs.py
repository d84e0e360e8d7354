"""Runs: a route run once for the cache alone, with the declared inputs only, its response taken in instead of sent."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import ASGIApp, Message, Scope

from genesis_cache.web.http_cache import CONDITIONS, CREDENTIALS

MARK = "genesis_cache.run"


class Unfit(Exception):
    """A response that cannot be taken in: larger than allowed, or a stream without an end."""


class Taken:
    """An ASGI ``send`` that keeps a response of at most so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, message: Message) -> None:
        """Take in one message; `Unfit` for what cannot be kept."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            if any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers):
                raise Unfit("stream")
        elif message["type"] == "http.response.body":
            part = message.get("body", b"")
            self._size += len(part)
            if self._size > self._most_bytes:
                raise Unfit("too large")
            self._parts.append(bytes(part))

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


def run_scope(scope: Scope, marked_by: object, *, only: Collection[bytes] | None) -> dict[str, Any]:
    """The scope of a run: the request as a GET without conditions, and with ``only`` these headers and no client.

    What is not declared cannot reach the handler, so it cannot get into what others are given.
    """
    headers = [(name, value) for name, value in scope["headers"] if name not in CONDITIONS]
    run = {**scope, "method": "GET", "extensions": {}, MARK: marked_by}
    if isinstance(scope.get("state"), dict):
        run["state"] = dict(scope["state"])
    if only is not None:
        headers = [(name, value) for name, value in headers if name in only]
        run["client"] = None
        if not CREDENTIALS & set(only):
            nobody = {"session": {}, "user": UnauthenticatedUser(), "auth": AuthCredentials()}  # as middleware has it
            run.update({name: value for name, value in nobody.items() if name in run})
    run["headers"] = headers
    return run


def receiving() -> Callable[[], Any]:
    """An ASGI ``receive`` of a request without a body, whose client never leaves."""
    is_told = False

    async def receive() -> Message:
        nonlocal is_told
        if is_told:
            await asyncio.Event().wait()
        is_told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def taken(app: ASGIApp, scope: Scope, most_bytes: int) -> Taken:
    """Run an app and take in its response; `Unfit` where that cannot be done."""
    response = Taken(most_bytes)
    try:
        await app(scope, receiving(), response)
    except Unfit:
        raise
    except Exception as error:
        if (unfit := _unfit_in(error)) is not None:
            raise unfit from None
        raise
    return response


def _unfit_in(error: BaseException) -> Unfit | None:
    """The reason inside the groups and wrappings that a framework puts around what its ``send`` raises."""
    if isinstance(error, Unfit):
        return error
    inner = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    inner += [one for one in (error.__cause__, error.__context__) if one is not None]
    return next((found for one in inner if (found := _unfit_in(one)) is not None), None)
