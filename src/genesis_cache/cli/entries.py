"""Commands on entries: get, set, delete, invalidate, clear."""

# ruff: noqa: FBT001, FBT002  # typer makes options of parameters and passes them by name

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from genesis_cache.cache import Cache
from genesis_cache.cli.options import (
    Json,
    Namespace,
    Owner,
    Pattern,
    Place,
    Priority,
    Tags,
    Ttl,
    Urls,
    Yes,
    place,
    ttl_of,
)
from genesis_cache.cli.output import COULD_NOT, DONE, UsageError, complain, emit
from genesis_cache.cli.session import with_cache
from genesis_cache.model.missing import MISSING, UNSET
from genesis_cache.model.plain import plain

Key = Annotated[str, typer.Argument(help="The key.", metavar="KEY")]


def get(key: Key, namespace: Namespace = None, owner: Owner = None, urls: Urls = None, as_json: Json = False) -> int:
    """Print a fresh value; exit code 1 if there is none."""

    async def work(cache: Cache) -> object:
        return await cache.get(key, MISSING)

    value = with_cache(place(urls, namespace, owner), work)
    if value is MISSING:
        if as_json:
            emit({"key": key, "found": False}, as_json, _silent)
        else:
            complain(f"no tier holds a fresh value of {key!r}")
        return COULD_NOT
    emit({"key": key, "found": True, "value": value}, as_json, lambda _: _print_value(value))
    return DONE


def set_(
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON if it parses, else text; - reads it from standard input.")],
    ttl: Ttl = None,
    tags: Tags = None,
    priority: Priority = None,
    namespace: Namespace = None,
    owner: Owner = None,
    urls: Urls = None,
    as_json: Json = False,
) -> int:
    """Store a value in every tier."""
    options: dict[str, Any] = {"tags": tags or ()}
    if (lifetime := ttl_of(ttl)) is not UNSET:
        options["ttl"] = lifetime
    if priority is not None:
        options["priority"] = priority.priority
    parsed = _parsed(sys.stdin.read() if value == "-" else value)

    async def work(cache: Cache) -> tuple[str, ...]:
        return tuple((await cache.set(key, parsed, **options)).degraded)

    return _told("stored", {"key": key}, with_cache(place(urls, namespace, owner), work), as_json)


def delete(
    keys: Annotated[list[str], typer.Argument(help="The keys.", metavar="KEY...")],
    namespace: Namespace = None,
    owner: Owner = None,
    urls: Urls = None,
    as_json: Json = False,
) -> int:
    """Delete keys from every tier."""
    return _invalidated(place(urls, namespace, owner), keys, [], None, as_json)


def invalidate(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys.", metavar="[KEY...]")] = None,
    tags: Tags = None,
    pattern: Pattern = None,
    namespace: Namespace = None,
    owner: Owner = None,
    urls: Urls = None,
    as_json: Json = False,
) -> int:
    """Forget keys, all with a tag, or all whose key matches a pattern, in every tier and process."""
    if not keys and not tags and pattern is None:
        raise UsageError("say what to invalidate: KEY..., --tag TAG or --pattern GLOB; clear forgets everything")
    return _invalidated(place(urls, namespace, owner), keys or [], tags or [], pattern, as_json)


def clear(
    namespace: Namespace = None, owner: Owner = None, urls: Urls = None, yes: Yes = False, as_json: Json = False
) -> int:
    """Forget everything, or everything of a namespace or an owner."""
    what = " of ".join(["everything", *(repr(name) for name in (owner, namespace) if name is not None)])
    if not yes:
        if as_json:
            raise UsageError("with --json nothing can be asked: add --yes")
        word = namespace or owner or "everything"
        question = f"This forgets {what}, in every tier. To go on, type {word}"
        if typer.prompt(question, default="", show_default=False, err=True) != word:
            complain("nothing was cleared: that was not the word")
            return COULD_NOT

    async def work(cache: Cache) -> tuple[str, ...]:
        return tuple((await cache.clear()).degraded)

    told = {"namespace": namespace, "owner": owner}
    return _told(f"cleared {what}", told, with_cache(place(urls, namespace, owner), work), as_json)


def _invalidated(where: Place, keys: list[str], tags: list[str], pattern: str | None, as_json: bool) -> int:
    async def work(cache: Cache) -> tuple[str, ...]:
        outcomes = [await cache.delete(*keys)] if keys else []
        if tags:
            outcomes.append(await cache.delete_by_tag(*tags))
        if pattern is not None:
            outcomes.append(await cache.delete_by_pattern(pattern))
        return tuple(dict.fromkeys(tier for outcome in outcomes for tier in outcome.degraded))

    document = {"keys": keys, "tags": tags, "pattern": pattern}
    named = [*map(repr, keys), *(f"tag {tag!r}" for tag in tags), *([f"pattern {pattern!r}"] if pattern else [])]
    return _told(f"forgot {', '.join(named)}", document, with_cache(where, work), as_json)


def _told(done: str, document: dict[str, Any], degraded: tuple[str, ...], as_json: bool) -> int:
    status = "degraded" if degraded else "applied"
    whole = document | {"status": status, "degraded": degraded}
    said = f"{done}, but not everywhere" if degraded else done
    emit(whole, as_json, lambda console: console.print(said, markup=False))
    if degraded:
        complain(f"not every tier was told: {', '.join(degraded)} could not be reached")
    return COULD_NOT if degraded else DONE


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print_value(value: object) -> None:
    if isinstance(value, bytes | bytearray | memoryview):
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
    elif isinstance(value, str):
        sys.stdout.write(value + "\n")
    else:
        sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n")


def _silent(_console: Console) -> None:
    """For a document that only `--json` shows."""
