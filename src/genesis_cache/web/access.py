"""Access: who may control the cache, and how often. The token is compared in constant time and never shown."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic

from fastapi import HTTPException

SCHEME = "bearer"


@dataclass(frozen=True, repr=False)
class Token:
    """The control token, or None where none was configured."""

    secret: str | None

    def require(self, authorization: str | None) -> None:
        """Pass, or raise 403 where no token is configured and 401 where none, or a wrong one, was sent."""
        if self.secret is None:
            raise HTTPException(
                403,
                "no control token is configured, so the cache cannot be controlled over HTTP: "
                "set CACHE_CONTROL_TOKEN, or pass token= where the routes are made",
            )
        scheme, _, sent = (authorization or "").partition(" ")
        is_right = hmac.compare_digest(sent.strip().encode("utf-8", "replace"), self.secret.encode())
        if scheme.lower() == SCHEME and is_right:
            return
        told = "the control token is wrong" if authorization else "the control token is missing"
        raise HTTPException(
            401,
            f"{told}: send the header Authorization: Bearer <CACHE_CONTROL_TOKEN>",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def __repr__(self) -> str:
        return f"Token({'None' if self.secret is None else '***'})"


class RateLimit:
    """A token bucket: ``burst`` calls at once, ``per_second`` in the long run; of one process."""

    def __init__(self, burst: int, per_second: float, now: Callable[[], float] = monotonic) -> None:
        self._burst = burst
        self._per_second = per_second
        self._now = now
        self._left = float(burst)
        self._filled_at = now()

    def take(self) -> float:
        """0.0 if the call may go on; else the seconds until the next may."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._per_second
        self._left -= 1.0
        return 0.0

    def require(self, what: str) -> None:
        """Pass, or raise 429 with ``Retry-After``."""
        wait_s = self.take()
        if wait_s:
            raise HTTPException(
                429,
                f"too many {what}: {self._burst} at once and {self._per_second:g} a second are taken, "
                f"so wait {ceil(wait_s)} s",
                headers={"Retry-After": str(ceil(wait_s))},
            )
