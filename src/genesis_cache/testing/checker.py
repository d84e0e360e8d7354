"""The checker: what a history says against the promises of coherence, each violation a sentence with its proof.

Every check looks at one key at a time (keys are independent) and costs O(n log n): what a read must know is a step
function of time that only grows, looked up by bisection. After Jepsen's and Polaris' manner, the checker believes only
what was recorded outside the cache: when calls began and ended, and what values say of themselves.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import msgspec

from genesis_cache.testing.history import Change, Commit, Fault, Get, History, Line, Load

NEVER = 1 << 62  # a nanosecond that no history reaches
NS = 1_000_000_000
SHOWN_ITEMS = 4  # of a list in a line for a person

Point = tuple[int, int, Line]
"""A moment, a value that is known from then on, and the line that says so."""


class Promise(msgspec.Struct, frozen=True):
    """What is to be held."""

    max_staleness_s: float = 1.0
    """How late a process that hears the others may see a change."""
    bypass: bool = False
    """The bound holds for processes too that do not hear (``CACHE_ON_PARTITION=bypass``)."""
    one_load: bool = True
    """At most one load of a key at a time where nothing has changed and nothing is broken."""
    recovery_s: float = 15.0
    """How long after a fault a process may say that it does not hear, or loads of one key may meet."""
    ttl_slack_s: float = 1.0
    """Between the end of a load and the moment from which its ttl counts."""
    slow_s: float | None = None
    """The longest that a read may take where nothing is broken."""
    monotonic: bool = False
    """No process goes back to an older version than it has read before."""

    @property
    def bound_ns(self) -> int:
        """The staleness bound in nanoseconds."""
        return int(self.max_staleness_s * NS)

    @property
    def recovery_ns(self) -> int:
        """The recovery in nanoseconds."""
        return int(self.recovery_s * NS)


class Violation(NamedTuple):
    """A promise that was not held."""

    check: str
    sentence: str
    lines: tuple[str, ...]
    """The lines of the history that prove it."""
    at: int
    """When the read or the load that shows it began."""

    def __str__(self) -> str:
        return "\n    ".join([f"{self.check}: {self.sentence}", *self.lines])


def check(history: History, promise: Promise | None = None) -> list[Violation]:
    """What in a history breaks the promise, in the order of time; nothing if it was held."""
    promise = Promise() if promise is None else promise
    faults = _Spells(history.faults, promise.recovery_ns)
    found = [*_errors(history), *_deaf(history, faults), *_slow(history, promise, faults)]
    for key in _by_key(history):
        judged = _Judged(key, promise, history.healed)
        for get in key.gets:
            if not get.error:
                found += judged.faults_of(get)
        found += _backwards(key) if promise.monotonic else ()
        found += _second_loads(key, promise, faults) if promise.one_load else ()
    return sorted(found, key=lambda violation: violation.at)


# -- one key -----------------------------------------------------------------------------------------------------------


class _Key(msgspec.Struct):
    """All that happened to one key."""

    key: str
    gets: list[Get] = []
    commits: list[Commit] = []
    changes: list[Change] = []
    loads: list[Load] = []


def _by_key(history: History) -> Iterable[_Key]:
    keys: dict[str, _Key] = {}

    def of(key: str) -> _Key:
        if key not in keys:
            keys[key] = _Key(key)
        return keys[key]

    for get in history.gets:
        of(get.key).gets.append(get)
    for commit in history.commits:
        of(commit.key).commits.append(commit)
    for load in history.loads:
        of(load.key).loads.append(load)
    for change in history.changes:
        for key in list(keys) if change.keys is None else change.keys:
            of(key).changes.append(change)
    return keys.values()


class _Steps:
    """A step function that only grows: the highest value given by a moment, and the line that gave it."""

    __slots__ = ("_best", "_times")

    def __init__(self, points: Iterable[Point]) -> None:
        ordered = sorted(points, key=lambda point: point[0])
        self._times = [time for time, _, _ in ordered]
        self._best: list[Point] = list(accumulate(ordered, _higher))

    def by(self, time: int) -> tuple[int, Line] | None:
        """The highest value of the points up to a moment."""
        place = bisect_right(self._times, time)
        return self._best[place - 1][1:] if place else None


def _higher(best: Point, point: Point) -> Point:
    return point if point[1] > best[1] else best


class _Judged:
    """One key's reads judged by what had happened before them."""

    def __init__(self, key: _Key, promise: Promise, healed: int | None) -> None:
        self._promise = promise
        self._key = key.key
        self._committed = _first(key.commits)
        self._makers: dict[str, Load | Change] = {maker.name: maker for maker in key.loads}
        self._makers |= {change.name: change for change in key.changes if change.kind == "set"}
        commits = _Steps((commit.end, commit.version, commit) for commit in key.commits if commit.end is not None)
        told = [change for change in key.changes if change.outcome == "ok"]
        heard = [change for change in key.changes if change.outcome in ("ok", "degraded")]
        self._versions, self._kills = _versions(told, commits), _kills(told)
        own: dict[str, list[Change]] = {}
        for change in heard:
            own.setdefault(change.process, []).append(change)
        self._own = {process: (_versions(changes, commits), _kills(changes)) for process, changes in own.items()}
        self._settled = NEVER if healed is None else healed + 2 * promise.bound_ns
        self._in_the_end = _versions(heard, commits) if healed is not None else _Steps(())

    def faults_of(self, get: Get) -> Iterator[Violation]:
        """Everything that is wrong with a read; a read that found nothing is never wrong."""
        if get.version is None:
            return
        maker = self._makers.get(get.maker)
        if get.named != self._key:
            what = f"a value of {get.named}" if get.named else "a value whose checksum is wrong"
            yield _violation("mix-up", f"{_who(get)} was given {what}", get, ())
            return
        yield from self._from_the_future(get, maker)
        yield from self._stale(get, maker)
        yield from self._past_its_ttl(get, maker)

    def _from_the_future(self, get: Get, maker: Load | Change | None) -> Iterator[Violation]:
        if maker is None or maker.begin > get.end or maker.version != get.version:
            yield _violation("future", f"{_who(get)} read version {get.version}, which nobody had made", get, (maker,))
        commit = self._committed.get(get.version or 0)
        if get.version and (commit is None or commit.begin > get.end):
            sentence = f"{_who(get)} read version {get.version} before its commit began"
            yield _violation("future", sentence, get, (commit,))

    def _stale(self, get: Get, maker: Load | Change | None) -> Iterator[Violation]:
        """The first of these that holds: own change not read, bound passed, dead value back, never converged."""
        bound = self._promise.bound_ns
        versions, kills = self._own.get(get.process, (_NOTHING, _NOTHING))
        if (late := versions.by(get.begin)) and late[0] > (get.version or 0):
            yield _violation("own change", f"{_old(get)} its own change had made {late[0]} current", get, (late[1],))
        elif (kill := kills.by(get.begin)) and kill[0] >= _born(maker, get.process):
            yield _violation("own change", f"{_old(get)} its own change had killed that value", get, (maker, kill[1]))
        elif not (get.hears or self._promise.bypass):
            return
        elif (late := self._versions.by(get.begin - bound)) and late[0] > (get.version or 0):
            ago = _ms(get.begin - _ended(late[1]))
            yield _violation("staleness", f"{_old(get)} {late[0]} was current since {ago}", get, (late[1],))
        elif (kill := self._kills.by(get.begin - bound)) and kill[0] >= _born(maker):
            ago = _ms(get.begin - _ended(kill[1]))
            yield _violation("resurrection", f"{_old(get)} that value was dead since {ago}", get, (maker, kill[1]))
        elif get.begin >= self._settled and (late := self._in_the_end.by(get.begin)) and late[0] > (get.version or 0):
            yield _violation("convergence", f"{_old(get)} all was healed, and {late[0]} current", get, (late[1],))

    def _past_its_ttl(self, get: Get, maker: Load | Change | None) -> Iterator[Violation]:
        if not get.fresh or maker is None or maker.ttl_s is None or maker.end is None:
            return
        over = get.begin - maker.end - int((maker.ttl_s + self._promise.ttl_slack_s) * NS)
        if over > 0:
            yield _violation("ttl", f"{_who(get)} was given a value as fresh that is past its ttl", get, (maker,))


_NOTHING = _Steps(())


def _first(commits: Iterable[Commit]) -> dict[int, Commit]:
    first: dict[int, Commit] = {}
    for commit in commits:
        if commit.version not in first or commit.begin < first[commit.version].begin:
            first[commit.version] = commit
    return first


def _versions(changes: Iterable[Change], commits: _Steps) -> _Steps:
    """From when on which version is the least that may be read: what a set stored, or was committed before a kill."""
    points: list[tuple[int, int, Line]] = []
    for change in changes:
        if change.kind == "set":
            version = change.version
        else:
            known = commits.by(change.begin)
            version = None if known is None else known[0]
        if version is not None:
            points.append((_ended(change), version, change))
    return _Steps(points)


def _kills(changes: Iterable[Change]) -> _Steps:
    """From when on values that were made before which moment are dead."""
    return _Steps((_ended(change), change.begin, change) for change in changes if not change.newest_wins)


def _born(maker: Load | Change | None, process: str = "") -> int:
    """Since when a value has been there, so that a change that began later kills it.

    A load is there from its beginning: what kills it meanwhile wins. A set is there when it has ended; one that could
    not be told, or whose outcome nobody knows, may come at any time, but not to the process whose own it is.
    """
    if isinstance(maker, Load):
        return maker.begin
    if maker is None or maker.end is None:
        return NEVER
    return maker.end if maker.outcome == "ok" or maker.process == process else NEVER


# -- other checks ------------------------------------------------------------------------------------------------------


class _Spells:
    """When something was broken, and for a while after."""

    def __init__(self, faults: Iterable[Fault], recovery_ns: int) -> None:
        self._steps = _Steps(
            (fault.begin, NEVER if fault.end is None else fault.end + recovery_ns, fault) for fault in faults
        )

    def meet(self, begin: int, end: int) -> bool:
        """Whether one of them meets a stretch of time."""
        last = self._steps.by(end)
        return last is not None and last[0] >= begin


def _second_loads(key: _Key, promise: Promise, faults: _Spells) -> Iterator[Violation]:
    """Loads that ran beside another one though the value had not changed since that began."""
    changed = _Steps(
        (change.begin, NEVER if change.end is None else change.end + promise.bound_ns, change) for change in key.changes
    )
    running: Load | None = None
    for load in sorted(key.loads, key=lambda one: one.begin):
        end = NEVER if running is None or running.end is None else running.end
        if running is not None and load.begin < end:
            change = changed.by(load.begin)
            excused = change is not None and change[0] >= running.begin
            if not excused and not faults.meet(running.begin, load.begin):
                sentence = f"{load.process} loaded {key.key} while {running.process} was loading it"
                yield Violation("two loads", sentence, (line_of(running), line_of(load)), load.begin)
        if running is None or (load.end or NEVER) > end:
            running = load


def _backwards(key: _Key) -> Iterator[Violation]:
    """Reads that went back behind what the same process had read before they began."""
    seen: dict[str, list[Get]] = {}
    for get in key.gets:
        if get.version is not None:
            seen.setdefault(get.process, []).append(get)
    for gets in seen.values():
        steps = _Steps((get.end, get.version or 0, get) for get in gets)
        for get in gets:
            before = steps.by(get.begin)
            if before is not None and before[0] > (get.version or 0):
                sentence = f"{_old(get)} it had read {before[0]} before"
                yield _violation("backwards", sentence, get, (before[1],))


def _errors(history: History) -> Iterator[Violation]:
    """Calls that raised (only the caller's own loader, bad arguments and closed caches may), or did not come back."""
    for get in history.gets:
        if get.error:
            yield _violation("raised", f"a read in {get.process} raised {get.error}", get, ())
    for change in history.changes:
        if change.outcome == "raised":
            sentence = f"a {change.kind} in {change.process} raised {change.error}"
            yield Violation("raised", sentence, (line_of(change),), change.begin)
        elif change.outcome == "hung":
            sentence = f"a {change.kind} in {change.process} did not come back"
            yield Violation("hung", sentence, (line_of(change),), change.begin)


def _slow(history: History, promise: Promise, faults: _Spells) -> Iterator[Violation]:
    """Reads that took longer than they may, though nothing is broken."""
    if promise.slow_s is None:
        return
    limit_ns = int(promise.slow_s * NS)
    for get in history.gets:
        if get.end - get.begin > limit_ns and not faults.meet(get.begin, get.end):
            yield _violation("slow", f"{_who(get)} waited {_ms(get.end - get.begin)}", get, ())


def _deaf(history: History, faults: _Spells) -> Iterator[Violation]:
    """Processes that say that they do not hear though nothing is broken, nor was a while ago."""
    said: set[str] = set()
    for get in history.gets:
        if not get.hears and get.process not in said and not faults.meet(get.begin, get.end):
            said.add(get.process)
            yield _violation("deaf", f"{get.process} says that it does not hear, though nothing is broken", get, ())


# -- words -------------------------------------------------------------------------------------------------------------


def _violation(check: str, sentence: str, get: Get, lines: Iterable[Line | None]) -> Violation:
    return Violation(check, sentence, (*(line_of(line) for line in lines if line is not None), line_of(get)), get.begin)


def line_of(line: Line) -> str:
    """A line of a history for a person: seconds, who, what."""
    begin = line.begin / NS
    end = getattr(line, "end", None)
    span = f"{begin:.6f} s, no end" if end is None else f"{begin:.6f} s for {_ms(end - line.begin)}"
    said = {name: value for name, value in msgspec.to_builtins(line).items() if name not in _SHOWN_APART}
    words = " ".join(f"{name}={_brief(value)}" for name, value in said.items())
    return f"[{span}] {line.process} {type(line).__name__.lower()} {words}"


_SHOWN_APART = ("type", "begin", "end", "process")


def _brief(value: object) -> str:
    return f"({len(value)} of them)" if isinstance(value, list | tuple) and len(value) > SHOWN_ITEMS else str(value)


def _who(get: Get) -> str:
    return f"{get.process}, reading {get.key},"


def _old(get: Get) -> str:
    return f"{_who(get)} was given version {get.version}:"


def _ended(line: Line) -> int:
    end = getattr(line, "end", None)
    return NEVER if end is None else int(end)


def _ms(span_ns: int) -> str:
    return f"{span_ns / 1_000_000:.1f} ms"
