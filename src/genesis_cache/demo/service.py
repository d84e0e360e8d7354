"""The service under load: a shop's assistant as an application would write it, its two functions behind the cache."""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar

from genesis_cache.cache import Cache
from genesis_cache.demo.backend import Backend, Product
from genesis_cache.demo.traffic import is_question

P = ParamSpec("P")
T = TypeVar("T")


class Service(Protocol):
    """What a visitor can ask for."""

    async def __call__(self, number: int) -> Product | str:
        """The product's row or, where the visit is a question, the assistant's answer about it."""


def service(backend: Backend, cache: Cache | None) -> Service:
    """The same service with the cache or, given None, without it."""
    cached = _uncached if cache is None else cache.cached

    @cached("product:{number}", ttl="1h", tags=["product:{number}"])
    async def product(number: int) -> Product:
        return await backend.query(number)

    @cached("answer:{number}", content_type="llm_responses", tags=["product:{number}"])
    async def answer(number: int) -> str:
        return await backend.ask(await product(number))

    async def visit(number: int) -> Product | str:
        return await answer(number) if is_question(number) else await product(number)

    return visit


def _uncached(_key: str, **_options: object) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    return lambda function: function
