"""The service under load: a FastAPI app with the same answer as a constant, as a near hit and as a cached endpoint."""

import asyncio
import socket
import sys

import uvicorn
from fastapi import FastAPI

from genesis_cache.cache import Cache
from genesis_cache.web import endpoint, install

PRODUCT = {"id": 7, "name": "a kettle", "price": "19.90", "tags": ["kitchen", "steel"], "stock": 42}


def app() -> FastAPI:
    """The routes, over a cache in memory."""
    cache = Cache.from_url("memory://")
    whole = FastAPI()
    install(whole, cache)

    @cache.cached("product:{product_id}", ttl="1h", tags=["product:{product_id}"])
    async def product(product_id: int) -> dict[str, object]:
        return {**PRODUCT, "id": product_id}

    @whole.get("/constant")
    async def constant() -> dict[str, object]:
        return PRODUCT

    @whole.get("/hit")
    async def hit() -> dict[str, object]:
        return await product(7)

    @whole.get("/endpoint")
    @endpoint(cache, ttl="1h")
    async def whole_response() -> dict[str, object]:
        return PRODUCT

    return whole


def main() -> None:
    """Serve on a free port, which is printed."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    place.listen(2048)
    sys.stdout.write(f"{place.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app(), access_log=False, log_level="warning", backlog=2048, timeout_keep_alive=600)
    asyncio.run(uvicorn.Server(config).serve(sockets=[place]))


if __name__ == "__main__":
    main()
