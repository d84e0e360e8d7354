"""Options: what a caller says about one entry (`EntryOptions`), and the same with every default filled in (`Plan`)."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from inspect import iscoroutinefunction
from math import isfinite
from operator import attrgetter
from typing import Final, Self, TypeVar

import msgspec

from genesis_cache.model.durations import seconds
from genesis_cache.model.entry import CachePriority
from genesis_cache.model.keys import scope_of, tag_name
from genesis_cache.model.missing import MISSING, UNSET, Unset
from genesis_cache.model.settings import CacheSettings, ReadStrategy

REFRESH_AHEAD_SHARE = 0.8  # of the ttl, under CACHE_READ_STRATEGY=REFRESH_AHEAD
RETRY_AFTER_S = 1.0

_MEMO_SIZE = 1024  # sets of options remembered; beyond it they are forgotten and checked anew

_T = TypeVar("_T")
_K = TypeVar("_K")

ErrorTtls = tuple[tuple[type[Exception], float], ...]
"""Seconds for which an error of a class is kept, by class."""


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Everything there is to know about how one entry shall live. Lengths of time are seconds."""

    ttl: float | None
    """Seconds of freshness; None: for ever."""
    tags: tuple[str, ...] = ()
    priority: CachePriority = CachePriority.NORMAL
    content_type: str | None = None
    swr: float = 0.0
    """Seconds after ``ttl`` in which it may be served while a new one is fetched (RFC 5861)."""
    sie: float = 0.0
    """Seconds after ``ttl`` in which it may be served when the loader fails (RFC 5861)."""
    retry_after: float = RETRY_AFTER_S
    refresh_ahead: float | None = None
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    jitter: float = 0.0
    negative_ttl: float | None = None
    """Seconds for a loader's None; None: as ``ttl``; 0.0: not kept."""
    cache_if: Callable[[object], object] | None = None
    version: int | None = None
    sensitive: bool = False
    isolate: bool = False
    tiers: frozenset[str] | None = None
    owner: str | None = None
    error_ttl: ErrorTtls = ()
    no_stale_on: tuple[type[Exception], ...] = ()
    fallback: object = MISSING
    """What a caller gets when a load fails and no old value may serve; a function is called with the error."""
    early_refresh: float | None = None
    """How early, in times the load's own length, a refresh may start (the beta of XFetch); None: off."""
    refresh_every: float | None = None

    def error_ttl_of(self, error: BaseException) -> float:
        """Seconds for which this error is kept: those of its nearest class; 0.0: not at all."""
        spans = dict(self.error_ttl)
        return next((spans[kind] for kind in type(error).__mro__ if kind in spans), 0.0)

    def with_tags(self, tags: tuple[str, ...]) -> "Plan":
        """The same plan with these tags added to its own; they must have been checked."""
        return Plan(
            self.ttl,
            united(self.tags, tags),
            self.priority,
            self.content_type,
            self.swr,
            self.sie,
            self.retry_after,
            self.refresh_ahead,
            self.soft_timeout,
            self.hard_timeout,
            self.jitter,
            self.negative_ttl,
            self.cache_if,
            self.version,
            self.sensitive,
            self.isolate,
            self.tiers,
            self.owner,
            self.error_ttl,
            self.no_stale_on,
            self.fallback,
            self.early_refresh,
            self.refresh_every,
        )


class EntryOptions(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """How one entry shall live, as far as somebody said so; `UNSET` leaves it to the next: namespace, then cache.

    Values are checked and converted when it is made: TypeError for a wrong type or an unknown option, ValueError for a
    value out of range, `InvalidKey` for a tag or owner that cannot be one.
    """

    ttl: float | Unset | None = UNSET
    """Seconds of freshness, above 0; None: never expires."""
    tags: tuple[str, ...] | Unset = UNSET
    """Names by which groups of entries are invalidated; a namespace's and a call's tags are united."""
    priority: CachePriority | Unset = UNSET
    """How much it deserves memory: a `CachePriority`, its name or its number."""
    content_type: str | Unset | None = UNSET
    """A name from the settings' content types, which gives the ttl where the call gives none."""
    stale_while_revalidate: float | Unset = UNSET
    """Seconds after ``ttl`` in which the old value is served at once and a new one is fetched behind; 0: off."""
    stale_if_error: float | Unset = UNSET
    """Seconds after ``ttl`` in which the old value is served if the loader fails or is slow; 0: off."""
    retry_after: float | Unset = UNSET
    """Seconds between attempts of a failing load while an old value serves; 1."""
    refresh_ahead: float | Unset | None = UNSET
    """Share of the ttl, 0 to 1, after which a hit starts a background refresh; None: off."""
    soft_timeout: float | Unset | None = UNSET
    """Seconds after which an old value is served instead of waiting for the loader; None: off."""
    hard_timeout: float | Unset | None = UNSET
    """Seconds after which a caller without an old value gets `LoaderTimeout`; None: off."""
    jitter: float | Unset = UNSET
    """Share of the ttl, 0 to 1, that is taken off at random, so that entries do not expire together; 0."""
    negative_ttl: float | Unset | None = UNSET
    """Seconds of freshness for a loader's None; 0: not kept; None: as ``ttl``."""
    cache_if: Callable[[object], object] | Unset | None = UNSET
    """Called with a loaded value; a false answer returns the value without keeping it."""
    version: int | Unset | None = UNSET
    """Number of the value's version; an older one never replaces a newer one."""
    sensitive: bool | Unset = UNSET
    """Sealed wherever it leaves memory if there are encryption keys, else kept in memory only; False."""
    isolate: bool | Unset = UNSET
    """Every reader gets its own copy."""
    tiers: frozenset[str] | Unset | None = UNSET
    """Names of the tiers it may go to; None: all."""
    owner: str | Unset | None = UNSET
    """Whose entry it is; the same as ``owned_by``."""
    error_ttl: ErrorTtls | Unset = UNSET
    """Seconds for which a loader's error is raised again without a load: one length for all, or one for each class."""
    no_stale_on: tuple[type[Exception], ...] | Unset = UNSET
    """Classes of errors that are answers ("gone", "forbidden"): no old value and no fallback hides them."""
    fallback: object = UNSET
    """What callers get when a load fails and no old value may serve; a plain function is called with the error."""
    early_refresh: float | Unset | None = UNSET
    """Refresh before the ttl ends, by chance and by how long loads take: the beta of XFetch, say 1; 0: off."""
    refresh_every: float | Unset | None = UNSET
    """Seconds between loads in the background, for as long as somebody asked since the last one; None: off."""

    def __post_init__(self) -> None:
        for name in OPTION_NAMES:
            value = getattr(self, name)
            if value is not UNSET:
                checked = _CHECKS[name](name, value)
                if checked is not value:
                    msgspec.structs.force_setattr(self, name, checked)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntryOptions) and _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))

    def __repr__(self) -> str:
        return f"EntryOptions({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    @classmethod
    def of(cls, **options: object) -> Self:
        """Options by name, checked. TypeError for a name that is no option, with the nearest that are."""
        return cls._made(options)

    @classmethod
    def _made(cls, options: Mapping[str, object]) -> Self:
        for name in options:
            if name not in _CHECKS:
                raise TypeError(_unknown(name))
        return cls(**options)  # type: ignore[arg-type]  # __post_init__ checks and converts each

    def merged(self, base: "EntryOptions") -> "EntryOptions":
        """These options, and ``base`` where these say nothing; the tags of both."""
        said = base.to_dict() | self.to_dict()
        if not said or self is base:
            return self
        if self.tags is not UNSET and base.tags is not UNSET:
            said["tags"] = united(base.tags, self.tags)
        return EntryOptions._made(said)

    def to_dict(self) -> dict[str, object]:
        """What was said, by name."""
        return {name: value for name in OPTION_NAMES if (value := getattr(self, name)) is not UNSET}


def united(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """The tags of both, each once, in the order they were said."""
    if not first or not second:
        return first or second
    return tuple(dict.fromkeys(first + second))


class _Resolved(msgspec.Struct, frozen=True, gc=False):
    """A plan, and the very objects it was made from, kept so that their ids cannot be given to others."""

    call: EntryOptions
    namespace: EntryOptions
    settings: CacheSettings
    plan: Plan


def resolve(call: EntryOptions, namespace: EntryOptions, settings: CacheSettings) -> Plan:
    """The plan of a call: what the call says, else its content type (ttl only), else the namespace, else the cache.

    The same three objects give the same plan object again, from memory.
    """
    key = (id(call), id(namespace), id(settings))
    known = _resolutions.get(key)
    if known is None:
        known = _Resolved(call, namespace, settings, _resolved(call, namespace, settings))
        _remember(_resolutions, key, known)
    return known.plan


def plan_of(options: Mapping[str, object], namespace: EntryOptions, settings: CacheSettings) -> Plan:
    """The plan of a call's keyword arguments: ``resolve(EntryOptions.of(**options), namespace, settings)``, but quick.

    The same arguments again are looked up, not checked again. Tags differ from entry to entry, so they stand apart; so
    does a fallback, which need not be hashable, and of which equal is not the same.
    """
    if "tags" in options:
        rest = {name: value for name, value in options.items() if name != "tags"}
        return plan_of(rest, namespace, settings).with_tags(_tags("tags", options["tags"]))
    if "fallback" in options:
        rest = {name: value for name, value in options.items() if name != "fallback"}
        fallback = _fallback("fallback", options["fallback"])
        return msgspec.structs.replace(plan_of(rest, namespace, settings), fallback=fallback)
    if isinstance(options.get("error_ttl"), dict):
        return plan_of({**options, "error_ttl": tuple(options["error_ttl"].items())}, namespace, settings)  # type: ignore[attr-defined]  # it is a dict
    try:
        key = (id(namespace), id(settings), *options.items(), *map(type, options.values()))  # 1, 1.0 and True differ
        known = _calls.get(key)
    except TypeError:  # a list of tiers, say
        return _resolved(EntryOptions.of(**options), namespace, settings)
    if known is None:
        call = EntryOptions.of(**options)
        known = _Resolved(call, namespace, settings, _resolved(call, namespace, settings))
        _remember(_calls, key, known)
    return known.plan


def _remember(memo: dict[_K, _Resolved], key: _K, resolved: _Resolved) -> None:
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = resolved


def _resolved(call: EntryOptions, namespace: EntryOptions, settings: CacheSettings) -> Plan:
    both = call.merged(namespace)
    ahead = REFRESH_AHEAD_SHARE if settings.cache_read_strategy is ReadStrategy.REFRESH_AHEAD else None
    return Plan(
        ttl=_ttl(call, both, settings),
        tags=_or(both.tags, ()),
        priority=_or(both.priority, CachePriority.NORMAL),
        content_type=_or(both.content_type, None),
        swr=_or(both.stale_while_revalidate, 0.0),
        sie=_or(both.stale_if_error, 0.0),
        retry_after=_or(both.retry_after, RETRY_AFTER_S),
        refresh_ahead=_or(both.refresh_ahead, ahead),
        soft_timeout=_or(both.soft_timeout, None),
        hard_timeout=_or(both.hard_timeout, None),
        jitter=_or(both.jitter, 0.0),
        negative_ttl=_or(both.negative_ttl, None),
        cache_if=_or(both.cache_if, None),
        version=_or(both.version, None),
        sensitive=_or(both.sensitive, default=False),
        isolate=_or(both.isolate, default=False),
        tiers=_or(both.tiers, None),
        owner=_or(both.owner, None),
        error_ttl=_or(both.error_ttl, ()),
        no_stale_on=_or(both.no_stale_on, ()),
        fallback=MISSING if both.fallback is UNSET else both.fallback,
        early_refresh=_or(both.early_refresh, None),
        refresh_every=_or(both.refresh_every, None),
    )


def _ttl(call: EntryOptions, both: EntryOptions, settings: CacheSettings) -> float | None:
    if call.ttl is not UNSET:
        return call.ttl
    if isinstance(both.content_type, str) and both.content_type in settings.content_types:
        return settings.content_types[both.content_type]
    return _or(both.ttl, settings.cache_default_ttl)


def _or(said: _T | Unset, default: _T) -> _T:
    return default if said is UNSET else said


# -- what each option may be ------------------------------------------------------------------------------------------


def _unknown(name: str) -> str:
    near = get_close_matches(name, OPTION_NAMES, n=3)
    meant = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(OPTION_NAMES)}"
    return f"there is no option {name!r}: {meant}"


def _wrong(name: str, allowed: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {allowed}, got {value!r:.80}")


def _tags(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        hint = f": write {name}=[{value!r:.80}]" if isinstance(value, str) else ""
        raise _wrong(name, "a list of strings" + hint, value)
    return tuple(dict.fromkeys(map(tag_name, value)))


def _priority(name: str, value: object) -> CachePriority:
    allowed = f"a CachePriority, its name ({', '.join(CachePriority.__members__)}) or its number"
    if isinstance(value, str):
        found = CachePriority.__members__.get(value.upper())
        if found is None:
            msg = f"{name} must be {allowed}, got {value!r:.80}"
            raise ValueError(msg)
        return found
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(name, allowed, value)
    try:
        return CachePriority(value)
    except ValueError:
        msg = f"{name} must be {allowed}, got {value}"
        raise ValueError(msg) from None


def _span_or_off(name: str, value: object) -> float:
    return seconds(value, name, zero=True) or 0.0


def _span_or_none(name: str, value: object) -> float | None:
    return seconds(value, name, zero=name == "negative_ttl")


def _wait(name: str, value: object) -> float:
    if value is None:
        raise _wrong(name, "a length of time (0: at every call)", value)
    return _span_or_off(name, value)


def _share(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(name, "a share of the ttl from 0 to 1", value)
    if not 0 <= value <= 1:
        msg = f"{name} must be a share of the ttl from 0 to 1, got {value!r}"
        raise ValueError(msg)
    return float(value)


def _share_or_none(name: str, value: object) -> float | None:
    return None if value is None else _share(name, value)


def _content_type(name: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise _wrong(name, "the name of a content type", value)
    return None if value is None else value.lower()


def _predicate(name: str, value: object) -> object:
    if value is not None and not callable(value):
        raise _wrong(name, "a function of the value", value)
    return value


def _version(name: str, value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise _wrong(name, "a whole number", value)
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "True or False", value)
    return value


def _tiers(name: str, value: object) -> frozenset[str] | None:
    if value is None:
        return None
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise _wrong(name, "a list of names of tiers", value)
    names = frozenset(value)
    if not names or not all(isinstance(one, str) and one for one in names):
        raise _wrong(name, "a list of at least one name of a tier", value)
    return frozenset(one.lower() for one in names)


def _owner(name: str, value: object) -> str | None:
    if value is None:
        return None
    scope = scope_of(name, owner=value)  # type: ignore[arg-type]  # it refuses what is no text
    return scope.owner


def _error_class(name: str, value: object) -> type[Exception]:
    if not isinstance(value, type) or not issubclass(value, Exception):
        raise _wrong(name, "of classes of errors (Exception or below)", value)
    return value


def _error_ttl(name: str, value: object) -> ErrorTtls:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, tuple):
        return tuple((_error_class(name, kind), _wait(name, span)) for kind, span in value)
    return ((Exception, _span_or_off(name, value)),)


def _error_classes(name: str, value: object) -> tuple[type[Exception], ...]:
    if value is None:
        return ()
    return tuple(_error_class(name, kind) for kind in (value if isinstance(value, Iterable) else (value,)))


def _fallback(name: str, value: object) -> object:
    if iscoroutinefunction(value):
        raise _wrong(name, "a value, or a plain function of the error (nobody waits for a fallback)", value)
    return value


def _early(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(name, "a number of times the length of a load", value)
    if not isfinite(value) or value < 0:
        msg = f"{name} must be a number from 0 (off), got {value!r}: 1 is what the paper proposes"
        raise ValueError(msg)
    return float(value) or None


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "ttl": lambda name, value: seconds(value, name),
    "tags": _tags,
    "priority": _priority,
    "content_type": _content_type,
    "stale_while_revalidate": _span_or_off,
    "stale_if_error": _span_or_off,
    "retry_after": _wait,
    "refresh_ahead": _share_or_none,
    "soft_timeout": _span_or_none,
    "hard_timeout": _span_or_none,
    "jitter": _share,
    "negative_ttl": _span_or_none,
    "cache_if": _predicate,
    "version": _version,
    "sensitive": _flag,
    "isolate": _flag,
    "tiers": _tiers,
    "owner": _owner,
    "error_ttl": _error_ttl,
    "no_stale_on": _error_classes,
    "fallback": _fallback,
    "early_refresh": _early,
    "refresh_every": _span_or_none,
}

OPTION_NAMES: Final = tuple(_CHECKS)
_values = attrgetter(*OPTION_NAMES)
_resolutions: dict[tuple[int, int, int], _Resolved] = {}
_calls: dict[tuple[object, ...], _Resolved] = {}
