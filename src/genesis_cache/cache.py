"""The door: `Cache`, the one class a user needs. It wires the rooms behind it and decides nothing itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from genesis_cache import decorate
from genesis_cache.blocking import BlockingCache
from genesis_cache.coherence.spreading import plain_tag, spread_seconds
from genesis_cache.engine.committing import Changes
from genesis_cache.engine.emptying import empty
from genesis_cache.engine.engine import Engine
from genesis_cache.engine.loading import load_of
from genesis_cache.engine.tracing import Span, trace
from genesis_cache.insight.analytics import analytics
from genesis_cache.insight.counting import count
from genesis_cache.insight.diagnosis import diagnose
from genesis_cache.insight.health import health
from genesis_cache.insight.measures import measures
from genesis_cache.insight.optimizer import optimize
from genesis_cache.insight.watch import Watch
from genesis_cache.model.clock import Clock, SystemClock
from genesis_cache.model.durations import seconds
from genesis_cache.model.errors import InvalidKey
from genesis_cache.model.keys import key_bytes, nested, tag_name, text_key
from genesis_cache.model.notice import Kind
from genesis_cache.model.options import EntryOptions
from genesis_cache.model.outcome import Explanation, Health, Inspection, OptimizationReport, Outcome
from genesis_cache.model.patterns import compile_pattern
from genesis_cache.model.settings import CacheSettings
from genesis_cache.tiers.build import build_tiers, split_tiers

if TYPE_CHECKING:
    from genesis_cache.engine.core import View
    from genesis_cache.model.finding import Finding
    from genesis_cache.model.measures import Measures
    from genesis_cache.model.options import Plan
    from genesis_cache.tiers.base import Tier
    from genesis_cache.tiers.memory import MemoryTier

T = TypeVar("T")

_NOTHING = EntryOptions()


class Cache:
    """A cache over one or more tiers, or a view of one (`namespace`, `owned_by`). Views share tiers and engine.

    Safe to use from several event loops, threads and forked processes. The first use opens it.
    """

    __slots__ = ("__weakref__", "_blocking", "_engine", "_floors", "_lookup", "_meter", "_now", "_reading", "_view")

    def __init__(
        self,
        settings: CacheSettings | None = None,
        *,
        tiers: Sequence[MemoryTier | Tier] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make a cache from settings, by default those of the environment; SettingsError says what is wrong in them."""
        settings = CacheSettings.from_env() if settings is None else settings
        clock = SystemClock() if clock is None else clock
        memory, far, near_position = build_tiers(settings, clock) if tiers is None else split_tiers(tiers)
        engine = Engine(settings, clock, memory, far, near_position)
        Watch(engine)
        self._bind(engine, engine.view("", None, EntryOptions()))

    def _bind(self, engine: Engine, view: View) -> None:
        self._engine = engine
        self._view = view
        self._reading = engine.reading
        self._lookup = view.lookup
        self._floors = engine.core.floors
        self._now = engine.core.clock.now
        self._meter = view.space.meter
        self._blocking: BlockingCache | None = None

    def _other(self, view: View) -> Cache:
        cache = object.__new__(Cache)
        cache._bind(self._engine, view)  # another view of the same kind
        return cache

    @classmethod
    def from_url(cls, *urls: str, **settings: object) -> Cache:
        """A cache whose tiers are the URLs, nearest first; settings by name, with or without ``cache_``.

        ``memory://?max_mb=50&max_entries=1000``, ``disk:///var/cache?max_mb=500``, ``disk://./here``,
        ``sqlite:///here.db``. SettingsError names what cannot be right.
        """
        return cls(CacheSettings().with_urls(*urls).with_overrides(**settings))

    async def open(self) -> None:
        """Open the tiers now rather than at first use; after `close`, open again."""
        self._engine.reopen()
        await self._engine.open()

    async def close(self) -> None:
        """Finish what is under way and let go of everything; calls after it raise `CacheError`."""
        await self._engine.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, key: str, default: Any = None, *, allow_stale: bool = False) -> Any:
        """The fresh value, or the default; with ``allow_stale`` also one past its ttl that a stale option keeps."""
        try:
            entry = self._lookup(key)
        except TypeError:
            text_key(key)
            raise
        if entry is not None:
            floors = self._floors
            if entry.epoch is floors.epoch and floors.heard_until > (now := self._now()) and now < entry.quick_until:
                if not entry.mark:
                    entry.mark = True
                self._meter.near_hits += 1
                return entry.value
        return await self._reading.get(
            self._view, key if type(key) is str else _text(key), default, allow_stale=allow_stale
        )

    def peek(self, key: str, default: Any = None) -> Any:
        """The fresh value if the nearest tier holds it, or the default; never waits."""
        try:
            entry = self._lookup(key)
        except TypeError:
            key_bytes(key)
            raise
        if entry is not None:
            floors = self._floors
            if entry.epoch is floors.epoch and floors.heard_until > (now := self._now()) and now < entry.quick_until:
                if not entry.mark:
                    entry.mark = True
                self._meter.near_hits += 1
                return entry.value
        return self._reading.peek(self._view, text_key(key), default)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The fresh values of those keys that have one."""
        return await self._engine.bulk.get_many(self._view, _keys(keys))

    async def get_or_set(self, key: str, loader: Callable[..., Any], **options: Any) -> Any:
        """The value; loaded at most once for all who ask for it at the same time, and stored in every tier.

        ``loader`` is an async or a plain function (which runs in a thread) of no argument or of a `LoadContext`. What
        it raises reaches the callers, unless an old value may serve (``stale_if_error``). `LoaderTimeout` past
        ``hard_timeout`` or the load's own deadline.
        """
        plan, cache = self._plan(options)
        return await self._reading.get_or_set(cache._view, _text(key), load_of(loader), plan)  # noqa: SLF001  # a view of the same cache

    async def get_or_set_many(self, keys: Iterable[str], loader: Callable[..., Any], **options: Any) -> dict[str, Any]:
        """The values of all keys; ``loader`` receives the list of the missing ones and returns a mapping."""
        plan, cache = self._plan(options)
        return await self._engine.bulk.get_or_set_many(cache._view, _keys(keys), load_of(loader), plan)  # noqa: SLF001  # a view of the same cache

    async def refresh(self, key: str, loader: Callable[..., Any], **options: Any) -> Any:
        """Load now, whatever is held, store the value and return it; joins a load of the key that is under way."""
        plan, cache = self._plan(options)
        return await self._reading.refresh(cache._view, _text(key), load_of(loader), plan)  # noqa: SLF001  # a view of the same cache

    def stream(self, key: str, source: Callable[..., Any], **options: Any) -> AsyncGenerator[Any, None]:
        """The items of a stream, as they come: one run of ``source`` for all who iterate at the same time.

        ``source`` is an async generator function, or any function of no argument or of a `LoadContext` that gives an
        async iterator, awaited or not. Everyone reads from the start, at a pace of their own. What ended well is stored
        as a tuple of its items and replayed from then on; what raised, or was invalidated meanwhile, is not. The
        timeouts are those to the first item. See `genesis_cache.engine.streams` for the bound on what is kept.
        """
        plan, cache = self._plan(options)
        return self._engine.streams.items(cache._view, _text(key), load_of(source), plan)  # noqa: SLF001  # a view of the same cache

    # -- writing -----------------------------------------------------------------------------------------------------

    async def set(self, key: str, value: Any, **options: Any) -> Outcome:
        """Store a value in every tier; SerializationError, and nothing stored, if no far tier could give it back."""
        plan, cache = self._plan(options)
        if not self._engine.core.opened:
            await self._engine.open()
        return await self._engine.writing.set_many(cache._view, ((_text(key), value),), plan)  # noqa: SLF001  # a view of the same cache

    async def set_many(self, items: Mapping[str, Any], **options: Any) -> Outcome:
        """Store several values with the same options; all keys and values are checked before any is stored."""
        plan, cache = self._plan(options)
        checked = [(_text(key), value) for key, value in items.items()]
        await self._ready()
        return await self._engine.writing.set_many(cache._view, checked, plan)  # noqa: SLF001  # a view of the same cache

    async def delete(self, *keys: str) -> Outcome:
        """Forget keys everywhere; loads of them that have begun will not be stored."""
        checked = _keys(keys)
        await self._ready()
        return await self._engine.writing.delete(self._view, checked)

    async def expire(self, *keys: str) -> Outcome:
        """Make keys stale at once; they still serve where ``stale_if_error`` or ``stale_while_revalidate`` says."""
        checked = _keys(keys)
        await self._ready()
        return await self._engine.rewriting.expire(self._view, checked)

    async def touch(self, key: str, ttl: Any) -> bool:
        """Give a fresh value a new ttl from now on; False if there is none."""
        lifetime = seconds(ttl)
        await self._ready()
        return await self._engine.rewriting.touch(self._view, _text(key), lifetime)

    async def delete_by_tag(self, *tags: str, spread: Any = None) -> Outcome:
        """Kill every entry that bears one of the tags, at a cost that does not depend on how many there are.

        With ``spread``, a length of time of a day at most, they die by then and not at once: each is served until its
        turn comes to be loaded anew, behind its callers, what was hit lately first; so the source is not asked for all
        of them together. ValueError for a spread that is no such length.
        """
        if not tags:
            msg = "delete_by_tag() needs at least one tag"
            raise TypeError(msg)
        names = [plain_tag(tag) for tag in tags]
        spread_s = spread_seconds(spread)
        await self._ready()
        return await self._engine.writing.kill(self._view, Kind.TAG, names, spread_s)

    async def delete_by_pattern(self, pattern: str) -> Outcome:
        """Kill every entry whose key matches a glob of ``*`` and ``?``; InvalidKey beyond 128 characters or 2 stars."""
        compile_pattern(pattern)
        await self._ready()
        return await self._engine.writing.kill(self._view, Kind.PATTERN, [pattern])

    async def clear(self, namespace: str | None = None, *, tier: str | None = None) -> Outcome:
        """Kill every entry within reach of this view, or of one namespace inside it.

        With ``tier`` (``"memory"``, ``"disk"``, ``"l1"``, …) only that tier's copies go and the values stay valid
        elsewhere; ValueError where there is no such tier.
        """
        cache = self if namespace is None else self.namespace(namespace)
        await self._ready()
        if tier is not None:
            return await empty(self._engine.core, cache._view, tier)  # noqa: SLF001  # a view of the same cache
        return await self._engine.writing.kill(cache._view, Kind.CLEAR, [""])  # noqa: SLF001  # a view of the same cache

    def after_commit(self, *, doubt: Iterable[type[BaseException]] = ()) -> Changes:
        """``async with cache.after_commit() as changes:`` around a database transaction, so that it ends inside.

        What ``changes`` is told to forget is forgotten when the block ends, and is not when it ends with an error.
        ``doubt``: further errors after which nobody knows whether the database has committed; then all is forgotten.
        """
        return Changes(self._engine, self._view, doubt)

    # -- views -------------------------------------------------------------------------------------------------------

    def namespace(self, name: str, *, max_loads: int | None = None, **defaults: Any) -> Cache:
        """A view with its own keys, defaults and figures in the same tiers; names nest with ``/``.

        InvalidKey for a name that is empty or has an empty part, so that no mistake names all there is.
        """
        full = nested(self._view.space.name, name)
        if max_loads is not None and (type(max_loads) is not int or max_loads < 1):
            msg = f"max_loads must be a whole number from 1, got {max_loads!r:.80}"
            raise ValueError(msg)
        said = defaults.pop("owner", None)
        owner = self._view.owner if said is None else said
        options = EntryOptions.of(**defaults).merged(self._view.defaults)
        view = self._engine.view(full, owner, options)
        self._engine.core.plan(view, _NOTHING)  # refuses now what a call would refuse
        self._engine.core.space(full, options, max_loads)
        return self._other(view)

    def owned_by(self, owner: str) -> Cache:
        """A view of the entries of one user or segment, for every verb; nobody else's view can reach them.

        InvalidKey for what cannot name an owner, None above all: a missing user must not read and fill what all share.
        """
        if owner is None:
            raise InvalidKey("owned_by() needs an owner, got None: use the cache itself for what belongs to everybody")
        return self._other(self._engine.view(self._view.space.name, owner, self._view.defaults))

    def cached(
        self, key: str | Callable[..., Any] | None = None, *, key_prefix: str | None = None, **options: Any
    ) -> decorate.Decorator:
        """Cache what a function returns, by its arguments; see `genesis_cache.decorate`."""
        owner = options.pop("owner", None)
        home = self if owner is None else self.owned_by(owner)
        return decorate.decorator(home, home._engine, home._view, key, key_prefix, options)  # noqa: SLF001  # a view of the same cache

    def blocking(self) -> BlockingCache:
        """The same verbs for code without an event loop, over the same engine."""
        if self._blocking is None:
            self._blocking = BlockingCache(self, self._engine, self._view)
        return self._blocking

    # -- insight -----------------------------------------------------------------------------------------------------

    async def explain(self, key: str) -> Explanation:
        """Which tiers hold a key, in what state, and why a read of it hits or misses."""
        await self._ready()
        return await self._engine.explaining.explain(self._view, _text(key))

    async def inspect(self, key: str) -> Inspection:
        """As `explain`, with the value and whether it is sensitive; counts as no read and moves nothing."""
        await self._ready()
        return await self._engine.explaining.inspect(self._view, _text(key))

    async def count(
        self, *, keys: Iterable[str] | None = None, tags: Iterable[str] | None = None, pattern: str | None = None
    ) -> int | None:
        """How many entries in memory a delete of these keys, tags or pattern reaches; nothing said: a `clear`.

        Takes about a second for a million entries, in slices of half a millisecond. None without a memory tier.
        """
        checked = None if keys is None else _keys(keys)
        names = None if tags is None else [tag_name(tag) for tag in tags]
        return await count(self._engine.core, self._view, checked, names, pattern)

    def on(self, event: str, callback: Callable[..., Any]) -> Callable[[], None]:
        """Call back on an event: hit miss stale load evict expire invalidate tier_down tier_up; returns its undoing."""
        return self._engine.core.events.on(event, callback)

    def analytics(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return analytics(self._engine.core)

    def trace(self, span: Span) -> Callable[[], None]:
        """Open ``span(layer, tier, operation, items)`` around every call to a server; returns its own undoing."""
        return trace(self._engine.core, span)

    def measures(self) -> Measures:
        """Every counter at this moment, for exporters; cheap, whatever the cache holds."""
        return measures(self._engine.core)

    async def health(self) -> Health:
        """Whether the cache can serve, and which tiers are up, as the last calls found them; a closed cache cannot."""
        if not self._engine.core.closed:
            await self._ready()
        return health(self._engine)

    @property
    def settings(self) -> CacheSettings:
        """What it was made with."""
        return self._engine.core.settings

    @property
    def clock(self) -> Clock:
        """Where it reads the time."""
        return self._engine.core.clock

    async def optimize_cache_distribution(self, *, dry_run: bool = False) -> OptimizationReport:
        """Move entries between tiers by how they are used: up what is read below, down what is not read above."""
        await self._ready()
        return await optimize(self._engine, dry_run=dry_run)

    async def diagnose(self) -> list[Finding]:
        """What an operator should know: each tier examined, each finding in a sentence with its fix; never raises."""
        await self._ready()
        return await diagnose(self._engine)

    # -- within ------------------------------------------------------------------------------------------------------

    def _plan(self, options: dict[str, Any]) -> tuple[Plan, Cache]:
        """The plan of a call, and the view it is for: another owner's where the options name one."""
        plan = self._engine.core.plan_of(self._view, options)
        if plan.owner is not None and plan.owner != self._view.owner:
            return plan, self.owned_by(plan.owner)
        return plan, self

    async def _ready(self) -> None:
        if not self._engine.core.opened:
            await self._engine.open()


def _keys(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str):
        msg = f"expected several keys, got the one string {keys!r:.80}: wrap it in a list"
        raise InvalidKey(msg)
    return [text_key(key) for key in keys]


def _text(key: str) -> str:
    """The key as plain text; what is text already is checked where its address is made."""
    return key if type(key) is str else text_key(key)
