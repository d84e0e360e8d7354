"""The HTTP face: monitoring and control routes for FastAPI, a whole ASGI app, and cached responses (extra ``web``)."""

try:
    import fastapi as _fastapi  # noqa: F401  # only to say in one sentence that it is missing
except ModuleNotFoundError as missing:
    if missing.name not in ("fastapi", "starlette", "pydantic"):
        raise
    msg = f"genesis_cache.web needs {missing.name!r}: install it with pip install 'genesis-cache[web]'"
    raise ModuleNotFoundError(msg, name=missing.name) from None

from genesis_cache.web.endpoint import endpoint
from genesis_cache.web.mounting import CacheDep, app, current_cache, install
from genesis_cache.web.routes import router

__all__ = ["CacheDep", "app", "current_cache", "endpoint", "install", "router"]
