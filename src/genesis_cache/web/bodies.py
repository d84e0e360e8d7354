"""The bodies of the control routes: read strictly, refused in plain sentences. Pure; knows no HTTP."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from genesis_cache.model.errors import InvalidKey
from genesis_cache.model.keys import nested, tag_name, text_key
from genesis_cache.model.patterns import check_pattern

MOST_NAMES = 10_000  # keys or tags in one body

Target = Literal["key", "keys", "tag", "tags", "pattern", "user_id"]
TARGETS: tuple[Target, ...] = ("key", "keys", "tag", "tags", "pattern", "user_id")

_NAMESPACE = {"type": "string", "minLength": 1, "maxLength": 256, "description": "Names nest with slashes."}
_DRY_RUN = {"type": "boolean", "default": False, "description": "Only count what it would reach."}
_NAME = {"type": "string", "minLength": 1, "maxLength": 1024}
_TIER = {
    "type": "string",
    "enum": ["memory", "disk", "redis", "database", "l1", "l2", "l3", "l4"],
    "description": "Only this tier's copies, named by its kind or its layer.",
}


def _either(parts: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with exactly one of these parts."""
    return {
        "oneOf": [
            {
                "title": f"by {name}",
                "type": "object",
                "properties": {name: dict(part), **common},
                "required": [name],
                "additionalProperties": False,
            }
            for name, part in parts.items()
        ]
    }


CLEAR_SCHEMA = _either(
    {"namespace": _NAMESPACE, "all": {"const": True, "type": "boolean"}}, {"tier": _TIER, "dry_run": _DRY_RUN}
)
INVALIDATE_SCHEMA = _either(
    {
        "key": _NAME,
        "keys": {"type": "array", "items": _NAME, "minItems": 1, "maxItems": MOST_NAMES},
        "tag": _NAME,
        "tags": {"type": "array", "items": _NAME, "minItems": 1, "maxItems": MOST_NAMES},
        "pattern": {"type": "string", "minLength": 1, "maxLength": 128, "description": "A glob: *, at most 2, and ?."},
        "user_id": {"anyOf": [_NAME, {"type": "integer"}], "description": "Everything owned by user:<id>."},
    },
    {"namespace": _NAMESPACE, "dry_run": _DRY_RUN},
)


class Refused(ValueError):
    """A body that cannot be meant; the message says what to send instead."""


class Clear(msgspec.Struct, frozen=True):
    """What is to be cleared: a namespace, or all (None); in every tier (None) or one."""

    namespace: str | None
    tier: str | None
    dry_run: bool


class Invalidate(msgspec.Struct, frozen=True):
    """What is to be invalidated, and in which namespace."""

    by: Target
    names: list[str]
    namespace: str | None
    dry_run: bool


def read_clear(raw: bytes) -> Clear:
    """The body of ``POST /cache/clear``; `Refused` in a sentence."""
    body = _object(raw, ("namespace", "all", "tier", "dry_run"))
    namespace = _namespace(body)
    everything = body.get("all")
    if everything is not None and not isinstance(everything, bool):
        raise Refused('all must be true: {"all": true}')
    if (namespace is None) is (everything is not True):
        raise Refused('say what to clear: {"namespace": "..."} or {"all": true}, one of the two')
    tier = body.get("tier")
    if tier is not None and (not isinstance(tier, str) or not tier):
        raise Refused('tier must be the name of a tier: "memory", "disk", "redis", "database", or its layer, as "l1"')
    return Clear(namespace, tier, _dry_run(body))


def read_invalidate(raw: bytes) -> Invalidate:
    """The body of ``POST /cache/invalidate``; `Refused` in a sentence."""
    body = _object(raw, (*TARGETS, "namespace", "dry_run"))
    said = [target for target in TARGETS if target in body]
    if len(said) != 1:
        told = "nothing" if not said else " and ".join(said)
        raise Refused(f"say exactly one of {', '.join(TARGETS)}; the body says {told}")
    by = said[0]
    return Invalidate(by, _names(by, body[by]), _namespace(body), _dry_run(body))


def _object(raw: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused(f"the body must be a JSON object, got {_kind(body)}")
    for name in body:
        if name not in known:
            raise Refused(f"there is no field {name!r:.80} here: use {', '.join(known)}")
    return body


def _namespace(body: Mapping[str, Any]) -> str | None:
    if body.get("namespace") is None:
        return None
    return _checked(lambda name: nested("", name), body["namespace"])


def _dry_run(body: Mapping[str, Any]) -> bool:
    said = body.get("dry_run", False)
    if not isinstance(said, bool):
        raise Refused("dry_run must be true or false")
    return said


def _names(by: Target, said: object) -> list[str]:
    match by:
        case "key":
            return [_checked(text_key, said)]
        case "tag":
            return [_checked(tag_name, said)]
        case "pattern":
            return [_checked(check_pattern, said)]
        case "keys":
            return [_checked(text_key, one) for one in _list(by, said)]
        case "tags":
            return [_checked(tag_name, one) for one in _list(by, said)]
    if isinstance(said, bool) or not isinstance(said, int | str) or said == "":
        raise Refused(f"user_id must be a text that is not empty, or a whole number, got {_kind(said)}")
    return [_checked(text_key, f"user:{said}")]


def _list(by: Target, said: object) -> list[object]:
    if not isinstance(said, list) or not said:
        raise Refused(f"{by} must be a list of at least one string")
    if len(said) > MOST_NAMES:
        raise Refused(f"{by} has {len(said)} names: send at most {MOST_NAMES} at once")
    return said


def _checked(check: Callable[[Any], str], said: object) -> str:
    try:
        return check(said)
    except InvalidKey as error:
        raise Refused(str(error)) from None


def _kind(said: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(said), "a number")
