"""Serving: an ASGI app on a socket, inside the event loop that runs; uvicorn does the work."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from genesis_cache.model.errors import SettingsError

GRACE_S = 3  # for requests under way when the server is told to stop


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 is any that is free. SettingsError where that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        told = (error.strerror or str(error)).partition(" (while")[0]  # the address follows, which is said already
        raise SettingsError(
            f"cannot listen on {host} port {port}: {told}; choose another by --host or --port"
        ) from None


def base_url(bound: socket.socket, host: str) -> str:
    """Where a bound socket is reached: at the host that it was asked for, or here where that means every address."""
    named = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # a comparison, not a binding
    shown = f"[{named}]" if ":" in named else named
    return f"http://{shown}:{bound.getsockname()[1]}"


class Server(uvicorn.Server):
    """A server that ends its streams before it stops; at SIGINT and SIGTERM too, if the signals are its own matter."""

    def __init__(self, app: ASGIApp, end_streams: Callable[[], object], *, lifespan: bool, signals: bool) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                interface="asgi3",
                lifespan="on" if lifespan else "off",
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._end_streams = end_streams
        self._has_signals = signals

    def stop(self) -> None:
        """End the streams, then the server."""
        self._end_streams()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal like any command that has done its work; at the second, do not wait."""
        if self._has_signals:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._told, number)
        yield

    def _told(self, number: int) -> None:
        self._end_streams()
        self.handle_exit(number, None)
