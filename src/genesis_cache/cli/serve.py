"""The command that runs the cache's HTTP face by itself: serve."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

from genesis_cache.cache import Cache
from genesis_cache.cli.options import Json, Urls, place
from genesis_cache.cli.output import DONE, UsageError, emit
from genesis_cache.model.errors import CacheError

PORT = 8000
GRACE_S = 3  # for requests under way when the server is told to stop

_PAGES = {
    "dashboard": "/monitoring/cache/dashboard",
    "figures": "/monitoring/cache",
    "metrics": "/metrics",
    "health": "/healthz",
}


def serve(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port; 0: any that is free.", min=0, max=65535)] = PORT,
    urls: Urls = None,
    as_json: Json = False,
) -> int:
    """Serve the dashboard, the figures, the metrics and the control routes until stopped."""
    try:
        import uvicorn  # noqa: PLC0415  # needs the optional extra "web"

        from genesis_cache import web  # noqa: PLC0415  # the same
    except ModuleNotFoundError as missing:
        told = f"serve needs {missing.name!r}: install it with pip install 'genesis-cache[web]'"
        raise CacheError(told) from None
    tiers = place(urls).urls
    cache = Cache.from_url(*tiers) if tiers else Cache()
    app = web.app(cache)
    listening = _listening(host, port)
    shown_host = f"[{host}]" if ":" in host else host
    base = f"http://{shown_host}:{listening.getsockname()[1]}"
    document = {
        "urls": {name: base + path for name, path in _PAGES.items()},
        "control": cache.settings.cache_control_token is not None,
    }
    emit(document, as_json, lambda console: _show(console, document))
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S)

    class Server(uvicorn.Server):
        """Stops at a signal like any command that has done its work."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """End the streams, then the server, at the first signal; at the second, do not wait."""
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._told, number)
            yield

        def _told(self, number: int) -> None:
            app.state.genesis_cache_feed.stop()
            self.handle_exit(number, None)

    with listening:
        asyncio.run(Server(config).serve(sockets=[listening]))
    return DONE


def _listening(host: str, port: int) -> socket.socket:
    """A socket bound to the address; `UsageError` where that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        told = error.strerror or str(error)
        raise UsageError(f"cannot listen on {host} port {port}: {told}; choose another by --host or --port") from None


def _show(console: Console, document: dict[str, Any]) -> None:
    for name, url in document["urls"].items():
        console.print(f"{name:<10} {url}", markup=False)
    if not document["control"]:
        console.print("control    off: set CACHE_CONTROL_TOKEN to clear and invalidate over HTTP", markup=False)
