"""Decorated functions: the key made from the arguments, the near hit answered in the wrapper itself.

A wrapper is compiled for each function, as `dataclasses` does for ``__init__``: it has the function's own parameters,
so that Python binds the arguments. The keys of recent calls are remembered by their arguments and the arguments' types,
because writing a key costs more than looking one up. A call that hits memory costs the wrapper and two dict look-ups;
everything else goes the engine's road.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, overload

from genesis_cache.engine.loading import Load
from genesis_cache.model.argkeys import argument_key, template_key, template_tag
from genesis_cache.model.keys import tag_name, text_key
from genesis_cache.model.options import EntryOptions

if TYPE_CHECKING:
    from genesis_cache.cache import Cache
    from genesis_cache.engine.core import View
    from genesis_cache.engine.engine import Engine

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)

_INLINE_BYTES = 800  # of argument text that may stand in a key as it is; longer arguments are hashed

_INLINE_INT = 10**18  # whole numbers up to it stand in a key as they are

_REMEMBERED = 8192  # keys of one function's calls; beyond it they are made anew
_PLAIN = frozenset({int, str, bool, bytes, type(None)})  # equal and of one such type: the same argument

# Names of its own begin with _gc_, so that a parameter may be called key, type or _now.
_WRAPPER = """
{head} _gc_wrapper({parameters}):
    {key}
    _gc_entry = _gc_lookup(_gc_key)
    if _gc_entry is not None:
        if (
            _gc_entry.epoch is _gc_floors.epoch
            and _gc_floors.heard_until > (_gc_now := _gc_clock())
            and _gc_now < _gc_entry.quick_until
        ):
            if not _gc_entry.mark:
                _gc_entry.mark = True
            _gc_meter.near_hits += 1
            return _gc_entry.value
    return {wait} _gc_miss(_gc_key{arguments})

def _gc_key_of({parameters}):
    {key}
    return _gc_key
"""

_STREAM_WRAPPER = """
async def _gc_wrapper({parameters}):
    {key}
    _gc_items = _gc_stream(_gc_key{arguments})
    try:
        async for _gc_item in _gc_items:
            yield _gc_item
    finally:
        await _gc_items.aclose()

def _gc_key_of({parameters}):
    {key}
    return _gc_key
"""

_REMEMBERED_KEY = """try:
        _gc_key = _gc_known(({signs}))
    except TypeError:
        _gc_key = None
    if _gc_key is None:
        _gc_key = _gc_make_key({names})"""


class CachedFunction(Protocol[P, R_co]):
    """A decorated function: called as before, with four things more."""

    cache: Cache
    """The view that holds its values."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The cached value, or the function's own result, stored on the way."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None
    ) -> Callable[Q, R_co]: ...

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """The method of an instance, without its ``self``, as of any function."""

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Forget the value of a call everywhere; awaited where the function is async or an async generator."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function now, store what it returns and return it; of an async generator, iterate it anew."""


class Decorator(Protocol):
    """What `Cache.cached` returns."""

    def __call__(self, function: Callable[P, R_co]) -> CachedFunction[P, R_co]:
        """Wrap a function."""


def decorator(
    cache: Cache, engine: Engine, view: View, key: object, prefix: str | None, options: dict[str, Any]
) -> Decorator:
    """A decorator that caches by a template, by a function of the arguments, or by all arguments.

    TypeError for an unknown option, a template that is no string, or a function that cannot be cached; ValueError, when
    a function is decorated, for a template with a name that is no parameter of it.
    """
    if key is not None and not isinstance(key, str) and not callable(key):
        msg = f"cached() takes a key template, a function that makes the key, or nothing; got {type(key).__name__}"
        raise TypeError(msg)
    checked = EntryOptions.of(**{name: value for name, value in options.items() if name != "tags"})
    tags = EntryOptions.of(tags=options["tags"]).tags if "tags" in options else ()
    engine.core.plan(view, checked)  # refuses now what a call would refuse

    def wrap(function: Callable[P, R_co]) -> CachedFunction[P, R_co]:
        return _Wrapping(cache, engine, view, function, key, prefix, checked, tags).build()

    return wrap


class _Wrapping:
    """One function being wrapped."""

    def __init__(
        self,
        cache: Cache,
        engine: Engine,
        view: View,
        function: Callable[..., Any],
        key: object,
        prefix: str | None,
        options: EntryOptions,
        tags: Any,
    ) -> None:
        if not callable(function):
            hint = ": put it above cached()" if isinstance(function, classmethod | staticmethod) else ""
            msg = f"cached() decorates a function, got {type(function).__name__}{hint}"
            raise TypeError(msg)
        if inspect.isgeneratorfunction(function):
            msg = f"{_name(function)} is a plain generator: make it `async def` to share its stream, or return a list"
            raise TypeError(msg)
        self.cache = cache
        self.engine = engine
        self.view = view
        self.function = function
        self.is_stream = inspect.isasyncgenfunction(function)
        self.is_async = inspect.iscoroutinefunction(function) or self.is_stream
        self.signature = inspect.signature(function)
        self.key_function = key if callable(key) else None
        self.template = template_key(key, self.signature) if isinstance(key, str) else None
        self.prefix = prefix
        self.options = options
        plain = [tag for tag in tags if "{" not in tag]
        self.plain_tags = EntryOptions.of(tags=plain) if plain else None
        self.tag_templates = [template_tag(tag, self.signature) for tag in tags if "{" in tag]
        self.names: dict[str, Any] = {}
        self.known: dict[tuple[Any, ...], str] = {}
        self._plans: dict[tuple[str, ...], Any] = {}
        self._annotated = False

    def build(self) -> CachedFunction[Any, Any]:
        """The wrapper, looking like the function it wraps."""
        parameters, arguments = self._parameters()
        source = (_STREAM_WRAPPER if self.is_stream else _WRAPPER).format(
            head="async def" if self.is_async else "def",
            wait="await" if self.is_async else "",
            parameters=parameters,
            arguments=arguments and ", " + arguments,
            key=self._key_lines(arguments),
        )
        core = self.engine.core
        names = self.names | {"_gc_lookup": self.view.lookup, "_gc_floors": core.floors, "_gc_clock": core.clock.now}
        names |= {
            "_gc_meter": self.view.space.meter,
            "_gc_miss": self._miss if self.is_async else self._miss_blocking,
            "_gc_stream": self._stream,
            "_gc_known": self.known.get,
            "_gc_type": type,
        }
        names["_gc_make_key"] = self._make_key if self.key_function is None else self.key_function
        exec(compile(source, f"<cached {_name(self.function)}>", "exec"), names)  # noqa: S102  # made of parsed names only
        wrapper = names["_gc_wrapper"]
        update_wrapper(wrapper, self.function)
        self.key_of = names["_gc_key_of"]
        self.key_of.__qualname__ = f"{_name(self.function)}.key"  # for the TypeError of a wrong call
        wrapper.key = self._checked_key
        wrapper.cache = self.cache
        wrapper.invalidate = self._invalidate if self.is_async else self._invalidate_blocking
        refresh = self._refresh if self.is_async else self._refresh_blocking
        wrapper.refresh = self._stream_anew if self.is_stream else refresh
        return wrapper  # type: ignore[no-any-return]  # made by exec just above, with the four attributes set

    # -- source -------------------------------------------------------------------------------------------------------

    def _parameters(self) -> tuple[str, str]:
        """The parameter list of the function as source, defaults by name, and the arguments that pass them on."""
        parts: list[str] = []
        passed: list[str] = []
        star = slash = False
        for n, parameter in enumerate(self.signature.parameters.values()):
            text = parameter.name
            if slash and parameter.kind is not parameter.POSITIONAL_ONLY:
                parts.append("/")
            slash = parameter.kind is parameter.POSITIONAL_ONLY
            if parameter.kind is parameter.KEYWORD_ONLY and not star:
                parts.append("*")
                star = True
            if parameter.kind is parameter.VAR_POSITIONAL:
                text, star = f"*{text}", True
            elif parameter.kind is parameter.VAR_KEYWORD:
                text = f"**{text}"
            passed.append(f"{text}={text}" if parameter.kind is parameter.KEYWORD_ONLY else text)
            if parameter.default is not parameter.empty:
                self.names[f"_gc_default_{n}"] = parameter.default
                text += f"=_gc_default_{n}"
            parts.append(text)
        if slash:
            parts.append("/")
        return ", ".join(parts), ", ".join(passed)

    def _key_lines(self, arguments: str) -> str:
        """The lines that set ``_cached_key``."""
        parameters = self.signature.parameters.values()
        if self.key_function is not None:
            return f"_gc_key = _gc_make_key({arguments})"
        if self.template is not None and not self.template.slots:
            return "_gc_key = _gc_make_key()"
        names = [parameter.name for parameter in parameters]
        if not names or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            return f"_gc_key = _gc_make_key({', '.join(names)})"
        signs = ", ".join(f"{name}, _gc_type({name})" for name in names)
        return _REMEMBERED_KEY.format(signs=signs, names=", ".join(names))

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _make_key(self, *values: Any) -> str:
        """The key for the parameters' values in order; remembered where equal arguments make equal keys."""
        arguments = dict(zip(self.signature.parameters, values, strict=False))
        if self.template is not None:
            key = self.template.write(arguments)
        else:
            name = f"{self.function.__module__}.{_name(self.function)}"
            key = argument_key(self.prefix, name, arguments)
        if all(type(value) in _PLAIN for value in values):
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[tuple(part for value in values for part in (value, type(value)))] = key
        return key

    # -- calls --------------------------------------------------------------------------------------------------------

    def _checked_key(self, *args: Any, **kwargs: Any) -> str:
        return text_key(self.key_of(*args, **kwargs))

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The options of one call: its tags are written from its arguments."""
        tags: tuple[str, ...] = ()
        if self.tag_templates:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            tags = tuple(tag_name(template.write(bound.arguments)) for template in self.tag_templates)
        plan = self._plans.get(())
        if plan is None:
            options = self.options if self.plain_tags is None else self.options.merged(self.plain_tags)
            plan = self._plans[()] = self.engine.core.plan(self.view, options)
        return plan.with_tags(tags) if tags else plan

    def _load(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Load:
        if not self._annotated:
            self._annotated = True
            self.engine.expect(self.function)
        return Load(partial(self.function, *args, **kwargs), self.is_async, takes_context=False)

    async def _miss(self, key: str, /, *args: Any, **kwargs: Any) -> Any:
        load, plan = self._load(args, kwargs), self._plan(args, kwargs)
        return await self.engine.reading.get_or_set(self.view, key if type(key) is str else text_key(key), load, plan)

    def _miss_blocking(self, key: str, /, *args: Any, **kwargs: Any) -> Any:
        return self.engine.portal.run(self._miss(key, *args, **kwargs))

    def _stream(self, key: str, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        load, plan = self._load(args, kwargs), self._plan(args, kwargs)
        return self.engine.streams.items(self.view, text_key(key), load, plan)

    def _stream_anew(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        load, plan = self._load(args, kwargs), self._plan(args, kwargs)
        return self.engine.streams.items(self.view, self._checked_key(*args, **kwargs), load, plan, anew=True)

    async def _invalidate(self, *args: Any, **kwargs: Any) -> Any:
        return await self.cache.delete(self._checked_key(*args, **kwargs))

    def _invalidate_blocking(self, *args: Any, **kwargs: Any) -> Any:
        return self.engine.portal.run(self._invalidate(*args, **kwargs))

    async def _refresh(self, *args: Any, **kwargs: Any) -> Any:
        key = self._checked_key(*args, **kwargs)
        return await self.engine.reading.refresh(self.view, key, self._load(args, kwargs), self._plan(args, kwargs))

    def _refresh_blocking(self, *args: Any, **kwargs: Any) -> Any:
        return self.engine.portal.run(self._refresh(*args, **kwargs))


def _name(function: Callable[..., Any]) -> str:
    """What a callable is called, for keys and messages; what has no name of its own goes by its class."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__
