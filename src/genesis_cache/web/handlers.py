"""Handlers: what can be known of a function that answers requests, and how it is called by FastAPI or Starlette."""

import inspect
import string
from collections.abc import Awaitable, Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from fastapi import Depends
from fastapi.security.base import SecurityBase
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from genesis_cache.model.argkeys import Template, template_tag
from genesis_cache.model.keys import tag_name

REQUEST, RESPONSE, IDENTITY = "gc_request_", "gc_response_", "gc_identity_"

Handler = Callable[..., Any]


class Facts(NamedTuple):
    """What a FastAPI route says of itself."""

    headers: tuple[str, ...]
    """Header parameters, its own and its dependencies', lower case."""
    is_secured: bool
    """Whether a security scheme stands before it."""


NO_FACTS = Facts((), is_secured=False)


class Called:
    """A decorated handler: its signature with what the cache needs added to it, and how to call it."""

    def __init__(self, handler: Any, identity: object) -> None:
        if not callable(handler) or inspect.isclass(handler):
            msg = f"endpoint() decorates a function that answers requests, got {type(handler).__name__}"
            raise TypeError(msg)
        if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
            msg = f"{handler.__qualname__} is a generator: streams cannot be cached"
            raise TypeError(msg)
        self.handler = handler
        self.is_async = inspect.iscoroutinefunction(handler)
        self.own = inspect.signature(handler)
        self.identity = Identity(identity, self.own)
        self.request_name = self._own_name(Request, "Request", REQUEST)
        self.response_name = self._own_name(Response, "Response", RESPONSE)
        self.signature = self._signature()

    def _own_name(self, kind: type, word: str, otherwise: str) -> str:
        """The handler's own parameter of that class, if it has one."""
        for name, parameter in self.own.parameters.items():
            if parameter.annotation is kind or parameter.annotation == word:
                return name
        return otherwise

    def _signature(self) -> inspect.Signature:
        """The handler's own parameters and, for FastAPI to fill in, those that it lacks."""
        added = [(self.request_name, REQUEST, Request), (self.response_name, RESPONSE, Response)]
        extra = [inspect.Parameter(hidden, _KEYWORD, annotation=kind) for name, hidden, kind in added if name == hidden]
        if self.identity.dependency is not None:
            depends = Depends(self.identity.dependency)
            extra.append(inspect.Parameter(IDENTITY, _KEYWORD, annotation=Any, default=depends))
        parameters = list(self.own.parameters.values())
        at = next((n for n, one in enumerate(parameters) if one.kind is one.VAR_KEYWORD), len(parameters))
        return self.own.replace(parameters=[*parameters[:at], *extra, *parameters[at:]])

    def split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Request, Response | None, Any]:
        """The request, FastAPI's response in the making (None under Starlette), and what the identity depends on.

        What the handler did not ask for is taken out of ``kwargs``.
        """
        if args and isinstance(args[-1], Request):
            return args[-1], None, None
        request = kwargs.pop(REQUEST) if self.request_name == REQUEST else kwargs[self.request_name]
        response = kwargs.pop(RESPONSE) if self.response_name == RESPONSE else kwargs[self.response_name]
        return request, response, kwargs.pop(IDENTITY, None)

    async def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The handler's own result; a plain one runs in a thread, as in its framework."""
        if self.is_async:
            return await self.handler(*args, **kwargs)
        return await run_in_threadpool(self.handler, *args, **kwargs)


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Identity:
    """Whose answer it is: by a parameter's name (``"user.id"``), a function of the request, or a FastAPI dependency."""

    def __init__(self, said: object, signature: inspect.Signature) -> None:
        self.is_named = said is not None
        self.dependency: Callable[..., Any] | None = None
        self._parameter: Callable[[Any], Any] | None = None
        self._function: Callable[..., Any] | None = None
        if isinstance(said, str):
            name = said.partition(".")[0]
            if name not in signature.parameters:
                msg = (
                    f"identity={said!r} names no parameter of the handler: {', '.join(signature.parameters) or 'none'}"
                )
                raise ValueError(msg)
            self._name = name
            self._parameter = attrgetter(said.partition(".")[2]) if "." in said else lambda value: value
        elif callable(said):
            if _takes_a_request(said):
                self._function = said
                self._waits = not inspect.isfunction(said) or inspect.iscoroutinefunction(said)
            else:
                self.dependency = said
        elif said is not None:
            msg = f"identity= takes a parameter's name, a function of the request or a dependency, got {said!r:.80}"
            raise TypeError(msg)

    def at_once(self, request: Request, kwargs: Mapping[str, Any]) -> str | None:
        """The same without waiting, where that is possible and somebody is named; else None."""
        if self._function is not None:
            who = None if self._waits else self._function(request)
            if inspect.iscoroutine(who):  # a plain function that hands on another's
                who.close()
                self._waits = True
        elif self._parameter is not None:
            holder = kwargs.get(self._name)
            who = None if holder is None else self._parameter(holder)
        else:
            who = kwargs.get(IDENTITY)
        return who if type(who) is str and who else str(who) if type(who) is int else None

    async def of(
        self, request: Request, kwargs: Mapping[str, Any], depended: object, *, is_fastapi: bool
    ) -> str | None:
        """The identity as text; None for nobody. TypeError for what is neither text nor a whole number."""
        if self._parameter is not None:
            holder = kwargs.get(self._name)
            who = None if holder is None else self._parameter(holder)
        elif self._function is not None:
            who = self._function(request)
            who = await who if isinstance(who, Awaitable) else who
        elif is_fastapi:
            who = depended
        else:
            msg = "identity= is a dependency, which only FastAPI can solve: pass a function of the request"
            raise TypeError(msg)
        if who is None:
            return None
        if isinstance(who, bool) or not isinstance(who, int | str) or who == "":
            gave = "an empty text" if who == "" else type(who).__name__
            msg = f"identity= must give a text or a whole number, or None for nobody; it gave {gave}"
            raise TypeError(msg)
        return str(who)


class Tags:
    """The tags of an answer, written from the handler's arguments and the path's parameters."""

    def __init__(self, tags: tuple[str, ...], signature: inspect.Signature) -> None:
        self.plain = [tag_name(tag) for tag in tags if "{" not in tag]
        self._templates = [_tag_template(tag, signature) for tag in tags if "{" in tag]

    def of(self, request: Request, kwargs: Mapping[str, Any]) -> list[str]:
        """All of them. ValueError where the path has no parameter that a template names."""
        if not self._templates:
            return self.plain
        arguments = {**request.path_params, **kwargs}
        try:
            return self.plain + [tag_name(template.write(arguments)) for template in self._templates]
        except KeyError as missing:
            msg = f"a tag names {missing}, which is no parameter of {request.url.path!r}: it has {', '.join(arguments)}"
            raise ValueError(msg) from None


def facts_of(scope: Scope) -> Facts:
    """What the route of a request says of itself, whichever router it was included by."""
    route = scope.get("route")
    context = scope.get("fastapi", {}).get("effective_route_context")  # FastAPI's own: with the routers' dependencies
    if context is None or getattr(context, "original_route", None) is not route:
        context = route
    dependant = getattr(context, "dependant", None)
    if dependant is None:
        return NO_FACTS
    headers: dict[str, None] = {}
    is_secured = False
    for one in _flat(dependant):
        headers.update(dict.fromkeys(field.alias.lower() for field in one.header_params))
        is_secured |= isinstance(inspect.unwrap(one.call), SecurityBase) if callable(one.call) else False
        is_secured |= bool(getattr(one, "own_oauth_scopes", None))
    return Facts(tuple(headers), is_secured)


def _flat(dependant: Any) -> Iterator[Any]:
    yield dependant
    for one in dependant.dependencies:
        yield from _flat(one)


def _takes_a_request(function: Callable[..., Any]) -> bool:
    """Whether a function has one required parameter, of no class or of Request's."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        return False
    needed = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    kinds = (inspect.Parameter.empty, Request, "Request")
    return len(needed) == 1 and any(needed[0].annotation is kind or needed[0].annotation == kind for kind in kinds)


def _tag_template(tag: str, signature: inspect.Signature) -> Template:
    """A tag's template, whose names are parameters of the handler or, if it takes the request, of its path."""
    names = [field for _, field, _, _ in string.Formatter().parse(tag) if field]
    has_request = any(one.annotation in (Request, "Request", one.empty) for one in signature.parameters.values())
    known = dict(signature.parameters)
    if has_request:
        for name in names:
            first = name.partition(".")[0]
            if first.isidentifier():
                known.setdefault(first, inspect.Parameter(first, _KEYWORD))
    return template_tag(tag, inspect.Signature([one.replace(kind=_KEYWORD) for one in known.values()]))
