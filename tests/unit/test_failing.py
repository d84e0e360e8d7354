"""Failing: kept errors, answers that nothing hides, fallbacks, and the bound on old values."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings, LoaderTimeout
from genesis_cache.engine.failing import twin
from genesis_cache.engine.loading import LoadContext
from genesis_cache.model.missing import MISSING
from genesis_cache.testing.clock import FakeClock


class NotFound(LookupError):
    """The source has no such thing. Its ``__init__`` takes something else than its ``args``."""

    def __init__(self, number: int) -> None:
        super().__init__(f"there is no number {number}")
        self.number = number


class Forbidden(PermissionError):
    """The source will not say."""


class Source:
    """A loader that counts its calls and does as told."""

    def __init__(self) -> None:
        self.calls = 0
        self.does: object = "value"

    async def __call__(self) -> object:
        self.calls += 1
        await asyncio.sleep(0)
        if isinstance(self.does, Exception):
            raise twin(self.does)
        return self.does


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes when told."""
    return FakeClock()


@pytest_asyncio.fixture
async def cache(clock: FakeClock) -> AsyncIterator[Cache]:
    """Memory only."""
    async with Cache(CacheSettings(cache_tiers=("memory",)), clock=clock) as cache:
        yield cache


async def outcome(cache: Cache, source: Source, **options: object) -> object:
    """What a caller gets: the value, or the class of the error."""
    try:
        return await cache.get_or_set("k", source, **options)
    except Exception as error:  # noqa: BLE001  # it is what the caller gets
        return type(error)


async def test_absent_forbidden_and_failed_each_have_their_own_time(cache: Cache, clock: FakeClock) -> None:
    """An error is raised again for as long as its nearest class says, and loads go on for those that are not named."""
    ttls = {NotFound: 60, Forbidden: "5s", OSError: 1}
    source = Source()
    for error, span in ((NotFound(7), 60.0), (Forbidden("no"), 5.0), (ConnectionError("down"), 1.0)):
        source.does, before = error, source.calls
        assert await outcome(cache, source, error_ttl=ttls) is type(error)
        clock.advance(span - 0.1)
        assert await outcome(cache, source, error_ttl=ttls) is type(error)
        assert source.calls == before + 1
        clock.advance(0.2)
        assert await outcome(cache, source, error_ttl=ttls) is type(error)
        assert source.calls == before + 2
        await cache.delete("k")
    source.does = ValueError("not named")
    calls = source.calls
    for _ in range(2):
        assert await outcome(cache, source, error_ttl=ttls) is ValueError
    assert source.calls == calls + 2
    assert cache.analytics()["namespaces"]["(root)"]["negatives_served"] == 3


async def test_explain_tells_of_a_kept_error(cache: Cache, clock: FakeClock) -> None:
    """Who asks why a key misses learns which error is kept, and for how long; not once something has changed."""
    source = Source()
    source.does = NotFound(7)
    await outcome(cache, source, error_ttl=60)
    clock.advance(15)
    reason = (await cache.explain("k")).reason
    assert "a load failed with NotFound 15 s ago, which callers are told for 45 s more" in reason
    await cache.set("k", "made")
    assert "NotFound" not in (await cache.explain("k")).reason


async def test_a_kept_error_is_raised_as_a_new_one_each_time(cache: Cache) -> None:
    """Every caller gets an exception of its own with what the first one said, and its traceback does not grow."""
    source = Source()
    source.does = NotFound(7)
    seen = []
    for _ in range(30):
        with pytest.raises(NotFound) as caught:
            await cache.get_or_set("k", source, error_ttl=60)
        seen.append(caught.value)
    assert source.calls == 1
    assert len({id(error) for error in seen}) == 30
    assert {(str(error), error.number) for error in seen} == {("there is no number 7", 7)}
    depths = [len(traceback.extract_tb(error.__traceback__)) for error in seen[1:]]
    assert depths == [depths[0]] * 29
    assert seen[-1].__notes__ == ["kept by the cache: the load that raised it ended 0 s ago"]


@pytest.mark.parametrize(
    "error",
    [
        NotFound(7),
        OSError(2, "no such file", "x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyError("k"),
        ExceptionGroup("several", [ValueError("one")]),
        LoaderTimeout("late"),
    ],
)
def test_a_twin_says_the_same(error: Exception) -> None:
    """Errors of any kind are raised again with their own words and fields."""
    made = twin(error)
    assert made is not error
    assert (type(made), made.args, str(made)) == (type(error), error.args, str(error))
    assert vars(made) == vars(error)


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.delete("k"),
        lambda cache: cache.set("k", "made", ttl=1),
        lambda cache: cache.delete_by_tag("thing:7"),
        lambda cache: cache.delete_by_pattern("k*"),
        lambda cache: cache.clear(),
        lambda cache: cache.expire("k"),
    ],
    ids=["delete", "set", "tag", "pattern", "clear", "expire"],
)
async def test_whatever_changes_the_key_ends_a_kept_error(
    cache: Cache, clock: FakeClock, change: Callable[[Cache], object]
) -> None:
    """The write that creates the thing, and every invalidation that reaches the key, makes the next caller load."""
    options = {"error_ttl": 3600, "tags": ["thing:7"]}
    source = Source()
    source.does = NotFound(7)
    assert await outcome(cache, source, **options) is NotFound
    await change(cache)  # type: ignore[misc]  # each of these is awaited
    source.does = "found"
    clock.advance(2)  # a value that was set is over
    assert await outcome(cache, source, **options) == "found"


@pytest.mark.parametrize("by_tag", [False, True])
async def test_an_error_of_a_load_that_a_change_has_overtaken_is_not_kept(cache: Cache, *, by_tag: bool) -> None:
    """A load that began before the thing was made says nothing of it afterwards."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def load() -> None:
        begun.set()
        await go.wait()
        raise NotFound(7)

    task = asyncio.create_task(cache.get_or_set("k", load, error_ttl=60, tags=["t"]))
    await begun.wait()
    await (cache.delete_by_tag("t") if by_tag else cache.delete("k"))
    go.set()
    with pytest.raises(NotFound):
        await task
    assert await cache.get_or_set("k", lambda: "made", error_ttl=60, tags=["t"]) == "made"


async def test_an_answer_ends_the_old_value(cache: Cache, clock: FakeClock) -> None:
    """Where the source says that it is forbidden, nobody gets the old value any more; a failure leaves it."""
    source = Source()
    options = {"ttl": 10, "stale_if_error": 600, "no_stale_on": Forbidden, "error_ttl": 5}
    assert await outcome(cache, source, **options) == "value"
    clock.advance(11)
    source.does = ConnectionError("down")
    assert await outcome(cache, source, **options) == "value"
    clock.advance(6)
    source.does = Forbidden("no")
    assert await outcome(cache, source, **options) is Forbidden
    assert await cache.get("k", allow_stale=True) is None
    calls = source.calls
    assert await outcome(cache, source, **options) is Forbidden
    assert source.calls == calls


async def test_a_refresh_that_is_forbidden_ends_a_value_that_was_fresh(cache: Cache, clock: FakeClock) -> None:
    """The answer of a refresh behind counts for those who come after it."""
    source = Source()
    options = {"ttl": 100, "refresh_ahead": 0.5, "no_stale_on": (Forbidden, NotFound)}
    await outcome(cache, source, **options)
    clock.advance(60)
    source.does = NotFound(7)
    assert await outcome(cache, source, **options) == "value"
    await cache._engine.background.drain()
    assert await cache.get("k") is None
    assert await outcome(cache, source, **options) is NotFound


async def test_a_fallback_stands_in_for_the_first_failure(cache: Cache, clock: FakeClock) -> None:
    """With nothing to serve, callers get the fallback, the source is asked once in retry_after, nothing is stored."""
    source = Source()
    source.does = ConnectionError("down")
    options = {"retry_after": 5, "fallback": "closed"}
    for _ in range(10):
        assert await outcome(cache, source, **options) == "closed"
    assert source.calls == 1
    assert await cache.get("k") is None
    assert await outcome(cache, source, retry_after=5) is ConnectionError  # who asks for no fallback gets the error
    clock.advance(5.1)
    source.does = "open"
    assert await outcome(cache, source, **options) == "open"
    assert cache.analytics()["namespaces"]["(root)"]["fallbacks"] == 10


async def test_a_fallback_may_look_at_the_error(cache: Cache) -> None:
    """A function is called with the error; an answer of the source is not hidden; None is a fallback too."""
    source = Source()
    source.does = ConnectionError("down")
    options = {"no_stale_on": Forbidden, "retry_after": 0}
    assert await outcome(cache, source, fallback=lambda error: f"closed: {error}", **options) == "closed: down"
    assert await outcome(cache, source, fallback=None, **options) is None
    source.does = Forbidden("no")
    assert await outcome(cache, source, fallback="closed", **options) is Forbidden


async def test_an_old_value_is_better_than_a_fallback(cache: Cache, clock: FakeClock) -> None:
    """The fallback is for those who have nothing: while an old value may serve, it does."""
    source = Source()
    options = {"ttl": 10, "stale_if_error": 60, "fallback": "closed"}
    await outcome(cache, source, **options)
    source.does = ConnectionError("down")
    clock.advance(69)
    assert await outcome(cache, source, **options) == "value"
    clock.advance(2)
    assert await outcome(cache, source, **options) == "closed"


async def test_a_fallback_for_a_load_that_hangs(cache: Cache) -> None:
    """Past hard_timeout the fallback serves, and those who come at once after it do not wait for another timeout."""
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(60)

    for _ in range(3):
        assert await cache.get_or_set("k", hang, hard_timeout=0.01, fallback="closed", retry_after=9) == "closed"
    assert calls == 1


@pytest.mark.parametrize("many", [False, True])
async def test_a_load_that_hangs_holds_up_nobody_who_has_an_old_value(
    cache: Cache, clock: FakeClock, *, many: bool
) -> None:
    """After the first who waited soft_timeout for it nobody does, and in the end the key is loaded by another."""
    calls: list[asyncio.Event] = []

    async def hang() -> str:
        calls.append(asyncio.Event())
        await calls[-1].wait()
        return f"load {len(calls)}"

    async def hang_many(keys: list[str]) -> dict[str, str]:
        return dict.fromkeys(keys, await hang())

    async def ask() -> object:
        options = {"ttl": 10, "stale_if_error": 600, "soft_timeout": 9}
        if many:
            return (await cache.get_or_set_many(["k"], hang_many, **options))["k"]
        return await cache.get_or_set("k", hang, **options)

    await cache.set("k", "old", ttl=10, stale_if_error=600)
    clock.advance(11)
    first = asyncio.create_task(ask())
    while not calls:  # noqa: ASYNC110  # the loader tells by its list
        await asyncio.sleep(0)
    clock.advance(9.5)
    async with asyncio.timeout(8):  # less than soft_timeout
        for _ in range(20):
            assert await ask() == "old"
    assert len(calls) == 1
    clock.advance(1)
    assert await ask() == "old"
    second = asyncio.create_task(ask())
    while len(calls) < 2:  # noqa: ASYNC110  # as above
        await asyncio.sleep(0)
    calls[1].set()
    assert await second == "load 2"
    calls[0].set()
    await first
    assert await cache.get("k") == "load 2"


async def test_staleness_is_bounded_however_often_loads_fail(cache: Cache, clock: FakeClock) -> None:
    """Failing loads never make an old value live longer than its ttl and its stale time together."""
    source = Source()
    options = {"ttl": 10, "stale_while_revalidate": 20, "stale_if_error": 50, "retry_after": 3}
    await outcome(cache, source, **options)
    source.does = ConnectionError("down")
    for second in range(1, 80):
        clock.advance(1)
        found = await outcome(cache, source, **options)
        await cache._engine.background.drain()
        assert found == ("value" if second < 60 else ConnectionError), second
    assert source.calls <= 1 + 50 / 3 + 20 + 2


async def test_many_keys_know_what_is_absent_and_what_failed(cache: Cache, clock: FakeClock) -> None:
    """What a loader of many keys did not bring is not asked for again within negative_ttl, nor are kept errors."""
    asked: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, str]:
        asked.append(keys)
        if "bad" in keys:
            raise NotFound(7)
        return {key: key.upper() for key in keys if key != "none"}

    for _ in range(2):
        assert await cache.get_or_set_many(["a", "none"], load, negative_ttl=10) == {"a": "A"}
    assert asked == [["a", "none"]]
    await cache.set("none", "made", ttl=1)
    assert await cache.get_or_set_many(["a", "none"], load, negative_ttl=10) == {"a": "A", "none": "made"}
    assert await cache.get_or_set("other", lambda: 1, negative_ttl=10) == 1
    for _ in range(2):
        with pytest.raises(NotFound):
            await cache.get_or_set_many(["bad"], load, error_ttl=10)
    assert asked[1:] == [["bad"]]
    assert await cache.get_or_set_many(["bad"], load, fallback="closed") == {"bad": "closed"}
    clock.advance(11)
    assert await cache.get_or_set_many(["a", "none"], load, negative_ttl=10) == {"a": "A"}
    assert asked[2:] == [["none"]]


async def test_a_failed_load_of_many_keys_rests(cache: Cache, clock: FakeClock) -> None:
    """While old values serve, a failing loader of many keys is called once in retry_after."""
    calls = 0

    async def fail(keys: list[str]) -> dict[str, str]:
        nonlocal calls
        calls += 1
        raise ConnectionError(f"{len(keys)} keys, and no answer")

    stale = {"stale_while_revalidate": 60, "stale_if_error": 60}
    await cache.set_many({"a": 1, "b": 2}, ttl=10, **stale)
    clock.advance(11)
    for _ in range(5):
        assert await cache.get_or_set_many(["a", "b"], fail, retry_after=5, **stale) == {"a": 1, "b": 2}
        await cache._engine.background.drain()
    assert calls == 1
    clock.advance(6)
    assert await cache.get_or_set_many(["a", "b"], fail, retry_after=5, **stale) == {"a": 1, "b": 2}
    await cache._engine.background.drain()
    assert calls == 2


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("change", ["delete", "tag", "set"])
async def test_an_old_value_that_was_invalidated_while_its_caller_waited_serves_nobody(
    cache: Cache, clock: FakeClock, *, change: str, many: bool
) -> None:
    """A load fails after its key was changed: whoever waited with the old value looks again."""
    go, begun = asyncio.Event(), asyncio.Event()
    calls = 0

    async def load(*_: object) -> dict[str, str]:
        nonlocal calls
        calls += 1
        begun.set()
        await go.wait()
        raise ConnectionError("down")

    async def ask() -> object:
        try:
            if many:
                return (await cache.get_or_set_many(["k"], load))["k"]
            return await cache.get_or_set("k", load)
        except ConnectionError:
            return ConnectionError

    await cache.set("k", "old", ttl=10, stale_if_error=600, tags=["t"])
    clock.advance(11)
    waiting = asyncio.create_task(ask())
    await begun.wait()
    if change == "delete":
        await cache.delete("k")
    elif change == "tag":
        await cache.delete_by_tag("t")
    else:
        await cache.set("k", "new", ttl=60)
    go.set()
    assert await waiting == ("new" if change == "set" else ConnectionError)
    assert calls == (1 if change == "set" else 2)


async def test_who_has_said_only_soft_timeout_waits_on_when_the_old_value_dies(cache: Cache, clock: FakeClock) -> None:
    """With nothing old left to serve, a caller without a hard_timeout waits for the load."""
    begun = asyncio.Event()

    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.05)
        return "new"

    await cache.set("k", "old", ttl=10, stale_if_error=600)
    clock.advance(11)
    waiting = asyncio.create_task(cache.get_or_set("k", slow, ttl=60, soft_timeout=0.01))
    await begun.wait()
    await cache.delete("k")
    assert await waiting == "new"


class Held:
    """A loader that tells when it has begun, and fails when it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> object:
        self.begun.set()
        await self.go.wait()
        msg = "no answer"
        raise OSError(msg)


async def test_a_timeout_says_nothing_of_a_key_that_was_changed_meanwhile(clock: FakeClock) -> None:
    """A load that takes too long is not held against its key where that was deleted after the load began."""
    async with Cache(CacheSettings().with_urls("memory://"), clock=clock) as cache:
        held = Held()
        caller = asyncio.ensure_future(cache.get_or_set("k", held, hard_timeout=0.05, fallback="nothing"))
        await held.begun.wait()
        await cache.delete("k")
        assert await caller == "nothing"
        assert await cache.get_or_set("k", lambda: "value", fallback="nothing") == "value"
        held.go.set()


async def test_no_old_value_outlives_a_lost_place_in_the_log(tmp_path: Path, clock: FakeClock) -> None:
    """Who waits for a load while the process loses its place in the log is not served what was deleted meanwhile."""
    settings = CacheSettings().with_urls("memory://", f"disk://{tmp_path}")
    async with Cache(settings, clock=clock) as cache, Cache(settings, clock=clock) as other:
        held = Held()
        await cache.set("k", "old", ttl=1, stale_if_error=100)
        clock.advance(2)
        caller = asyncio.ensure_future(cache.get_or_set("k", held))
        await held.begun.wait()
        await other.delete("k")
        cache._engine.hearing.start_over()
        held.go.set()
        with pytest.raises(OSError, match="no answer"):
            await caller


async def test_a_loader_is_not_given_what_was_deleted_before_it_began(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that waits for the key's lease while the key is deleted begins without the old value."""
    async with Cache(CacheSettings().with_urls("memory://", f"disk://{tmp_path}"), clock=clock) as cache:
        asked, granted = asyncio.Event(), asyncio.Event()
        seen: list[object] = []

        async def lease(_: object) -> bool:
            asked.set()
            await granted.wait()
            return True

        async def load(context: LoadContext) -> object:
            seen.append(context.stale_value)
            return "new"

        await cache.set("k", "old", ttl=1, stale_if_error=100)
        clock.advance(2)
        authority = cache._engine.core.authority
        assert authority is not None
        monkeypatch.setattr(authority.tier, "lease", lease)
        caller = asyncio.ensure_future(cache.get_or_set("k", load))
        await asked.wait()
        await cache.delete("k")
        granted.set()
        assert await caller == "new"
        assert seen == [MISSING]
