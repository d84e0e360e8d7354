"""The command that runs the cache's HTTP face by itself: serve."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

import asyncio
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from genesis_cache.cache import Cache
from genesis_cache.cli.options import Json, Urls, place
from genesis_cache.cli.output import DONE, emit
from genesis_cache.model.errors import CacheError

PORT = 8000

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
        from genesis_cache import web  # noqa: PLC0415  # needs the optional extra "web"
        from genesis_cache.web import serving  # noqa: PLC0415  # the same
    except ModuleNotFoundError as missing:
        told = f"serve needs {missing.name!r}: install it with pip install 'genesis-cache[web]'"
        raise CacheError(told) from None
    tiers = place(urls).urls
    cache = Cache.from_url(*tiers) if tiers else Cache()
    app = web.app(cache)
    bound = serving.listening(host, port)
    base = serving.base_url(bound, host)
    document = {
        "urls": {name: base + path for name, path in _PAGES.items()},
        "control": cache.settings.cache_control_token is not None,
    }
    emit(document, as_json, lambda console: _show(console, document))
    sys.stdout.flush()
    with bound:
        server = serving.Server(app, app.state.genesis_cache_feed.stop, lifespan=True, signals=True)
        asyncio.run(server.serve(sockets=[bound]))
    return DONE


def _show(console: Console, document: dict[str, Any]) -> None:
    for name, url in document["urls"].items():
        console.print(f"{name:<10} {url}", markup=False)
    if not document["control"]:
        console.print("control    off: set CACHE_CONTROL_TOKEN to clear and invalidate over HTTP", markup=False)
