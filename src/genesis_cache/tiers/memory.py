"""The memory tier: entries in this process, within bytes and entries at every moment.

Reading takes no lock: a reader looks in `MemoryTier.table` itself, sets ``entry.mark`` on a hit, and asks `get` where
it finds nothing. Everything that changes the tier takes one lock and does a bounded amount of work.
"""

from collections.abc import Callable, Iterator
from sys import maxsize
from threading import Lock
from time import perf_counter

from genesis_cache.model.entry import CachePriority, Entry
from genesis_cache.model.meter import LayerMeter
from genesis_cache.model.weigh import WEIGHT_BYTES
from genesis_cache.policies.eviction.base import Directory, EvictionPolicy, Key
from genesis_cache.policies.eviction.registry import policy_class
from genesis_cache.tiers.base import StoreStats
from genesis_cache.tiers.table import SHARD_MASK, SHARD_SHIFT, SPLIT_AT, Table

LARGEST_SHARE = 0.5  # of the byte limit, for one entry
MIRROR_EVERY = 8  # hits that the front of a large table missed: what is asked for often gets there soon enough
MOST_VICTIMS = 4096  # of one entry: about ten milliseconds, which only an entry as heavy as so many others takes
SWEPT_AT_ONCE = 128  # entries; each costs half a microsecond, or two if it is in no processor cache
CLEARED_AT_ONCE = 500  # entries: about a millisecond


class MemoryTier:
    """Entries of all namespaces under common limits.

    ``max_bytes`` and ``max_entries`` may each be None: no such limit. ``policy`` names the eviction policy
    (`ValueError` for an unknown one), of which each priority has its own instance, so that an entry only leaves when
    no entry of a lower priority is left. An entry's ``extra.priority`` must not change while it is in the tier.
    """

    kind = "memory"

    def __init__(self, max_bytes: int | None, max_entries: int | None, policy: str, meter: LayerMeter) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.meter = meter
        self._policy_class = policy_class(policy)
        self.needs_touch = self._policy_class.needs_touch
        """Whether readers must call `touch` on each hit in place of setting the mark."""
        self._max_weight = maxsize if max_bytes is None else max_bytes // WEIGHT_BYTES
        self._max_count = maxsize if max_entries is None else max_entries
        self._largest = maxsize if max_bytes is None else int(max_bytes * LARGEST_SHARE) // WEIGHT_BYTES
        self._spaces: dict[str, int] = {}
        self._tables: list[Table] = []
        self._directory = Directory()
        self._finds = self._directory.finds
        self._ranks: list[EvictionPolicy | None] = [None for _ in CachePriority]  # lowest first, made when first used
        self._met = 0  # hits on used entries that a front missed
        self._sized = 0  # entries that the policies were last told of
        self._count = 0
        self._weight = 0
        self._lock = Lock()
        self._sweep: Iterator[list[Entry]] | None = None

    def space(self, namespace: str) -> int:
        """The number of a namespace, for `Entry.space` and the calls below; given at the first call."""
        with self._lock:
            number = self._spaces.get(namespace)
            if number is None:
                number = self._spaces[namespace] = len(self._tables)
                for table in (Table(), Table()):
                    self._tables.append(table)
                    self._finds.append(table.front.get)
            return number

    def table(self, space: int) -> dict[Key, Entry]:
        """The dict of a namespace's plain entries, the same one for ever; a large namespace has more: see `get`."""
        return self._tables[space].front

    def owned_table(self, space: int) -> dict[Key, Entry]:
        """The same for entries with an owner, by ``(owner, key)``."""
        return self._tables[space + 1].front

    def get(self, space: int, key: Key) -> Entry | None:
        """The entry as it is, fresh or not. ``key`` is ``(owner, key)`` for an owned entry."""
        number = space | (type(key) is not str)
        table = self._tables[number]
        entry = table.front.get(key)
        if entry is None and table.large:
            entry = table.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK].get(key)
            if entry is not None and entry.mark:
                self._met += 1
                if not self._met % MIRROR_EVERY:
                    self._mirror(number, entry)
        return entry

    def put(self, entry: Entry) -> list[Entry]:
        """Add an entry, or replace the one of its key.

        What was evicted to make room is returned, the entry itself if it was not admitted: it weighs more than
        half of the limit, everything left has a higher priority, or the room of 4,096 entries was not enough (it may
        be the next time). What it replaces is gone in any case.
        """
        key, weight = entry.key, entry.weight
        with self._lock:
            if type(key) is not str:
                entry.space |= 1
            number = entry.space
            rank = 1 if entry.extra is None else int(entry.extra.priority)
            old = self._finds[number](key)
            if old is not None and self._takes_place(rank, old, entry):
                return []
            if weight > self._largest:
                self.meter.evictions["size"] += 1
                return [entry]
            victims: list[Entry] = []
            while self._count >= self._max_count or self._weight + weight > self._max_weight:
                victim = self._evict(rank, entry, len(victims))
                victims.append(victim)
                if victim is entry:
                    return victims
            table = self._tables[number]
            if table.large or len(table.front) >= SPLIT_AT - 1:
                table.put(entry)
                self._finds[number] = table.find
            else:
                table.front[key] = entry
            (self._ranks[rank] or self._begin(rank)).insert(entry)
            self._weight += weight
            self._count += 1
            if self._count > self._sized:
                self._grow()
            return victims

    def drop(self, entry: Entry, reason: str) -> bool:
        """Remove an entry if it is still the one of its key, and count it as evicted for that reason."""
        with self._lock:
            return self._drop(entry, reason)

    def touch(self, entry: Entry) -> None:
        """Tell a hit to a policy that `needs_touch`."""
        with self._lock:
            if entry.home:
                self._policy_of(entry).touch(entry)

    def sweep(self, now: float, budget_s: float, gone: Callable[[Entry, float], bool]) -> int:
        """Remove entries of which ``gone(entry, now)`` is true, for about so many seconds; how many went.

        The next call goes on where this one ended; `sweeping` tells whether there is more to see in this round.
        """
        end = perf_counter() + budget_s
        removed = 0
        while True:
            with self._lock:
                if self._sweep is None:
                    self._sweep = self._pieces()
                piece = next(self._sweep, None)
                if piece is None:
                    self._sweep = None
                    return removed
                removed += sum(self._drop(entry, "ttl") for entry in piece if gone(entry, now))
            if perf_counter() >= end:
                return removed

    @property
    def sweeping(self) -> bool:
        """Whether a sweep has begun and not seen everything."""
        return self._sweep is not None

    def clear_space(self, space: int, limit: int = CLEARED_AT_ONCE) -> bool:
        """Drop up to ``limit`` entries of a namespace, owned ones too; True when none is left."""
        with self._lock:
            for table in self._tables[space : space + 2]:
                found = table.some(limit)
                for entry in found:
                    self._drop(entry, "explicit")
                limit -= len(found)
            return not any(table.count for table in self._tables[space : space + 2])

    def after_fork(self) -> None:
        """Make it usable in a child made by fork: if another thread was changing it, everything is forgotten."""
        if not self._lock.locked():
            return
        self._lock = Lock()
        for number, table in enumerate(self._tables):
            table.clear()
            self._finds[number] = table.front.get
        self._ranks = [None for _ in CachePriority]
        self._count = self._weight = self._sized = 0
        self._sweep = None

    def items(self) -> Iterator[Entry]:
        """Every entry once; of what comes or goes while one walks, some may be missed or met twice."""
        pieces = self._pieces()
        while True:
            with self._lock:
                piece = next(pieces, None)
            if piece is None:
                return
            yield from piece

    def stats(self) -> StoreStats:
        """Entries, bytes, the byte limit and evictions by reason."""
        with self._lock:
            return StoreStats(
                entries=self._count,
                size_bytes=self._weight * WEIGHT_BYTES,
                capacity_bytes=self.max_bytes,
                evictions=dict(self.meter.evictions),
            )

    def check(self) -> list[str]:
        """Verify counts, weights, limits, queues and tables; a sentence for each fault, none if sound. Reads all."""
        with self._lock:
            faults = [fault for policy in self._policies() for fault in policy.check()]
            faults += [fault for table in self._tables for fault in table.check()]
            entries = [entry for piece in self._pieces() for entry in piece]
            for what, counted, held in (
                ("ordered entries", self._count, len(entries)),
                ("listed entries", self._count, sum(table.count for table in self._tables)),
                ("units of weight", self._weight, sum(entry.weight for entry in entries)),
            ):
                if counted != held:
                    faults.append(f"the memory tier counts {counted} {what} and holds {held}")
            if self._count > self._max_count or self._weight > self._max_weight:
                faults.append(f"the memory tier is over its limit: {self._count} entries, weight {self._weight}")
            return faults

    def flush(self, reason: str) -> None:
        """Drop everything, counted for that reason. Takes time with the number of entries: for rare, grave cases."""
        for entry in list(self.items()):
            self.drop(entry, reason)

    def __len__(self) -> int:
        return self._count

    def _mirror(self, number: int, entry: Entry) -> None:
        with self._lock:
            if entry.home and self._finds[number](entry.key) is entry:
                self._tables[number].mirror(entry)

    def _takes_place(self, rank: int, old: Entry, entry: Entry) -> bool:
        """Whether an entry could be put in its predecessor's place; else the predecessor is gone."""
        if old is entry:
            return True
        fits = entry.weight <= self._largest and self._weight + entry.weight - old.weight <= self._max_weight
        if not fits or _rank(old) != rank:
            self._forget(old)
            return False
        self._tables[entry.space].put(entry)
        self._policy_of(entry).replace(old, entry)
        self._weight += entry.weight - old.weight
        return True

    def _evict(self, rank: int, incoming: Entry, victims: int) -> Entry:
        """Take out an entry of the lowest priority there is.

        The incoming one is refused, that is returned, if that is above its own or it has had enough victims.
        """
        self.meter.evictions["entries" if self._count >= self._max_count else "size"] += 1
        for policy in self._ranks[: rank + 1] if victims < MOST_VICTIMS else ():
            if policy is not None and policy.size:
                victim = policy.evict(incoming.weight)
                table = self._tables[victim.space]
                if table.large:
                    table.remove(victim.key)
                else:
                    del table.front[victim.key]
                self._weight -= victim.weight
                self._count -= 1
                return victim
        return incoming

    def _grow(self) -> None:
        """Tell the policies how many entries there may be soon, at each quarter more."""
        self._sized = min(max(self._count * 5 // 4, 16), self._max_count)
        for policy in self._policies():
            policy.grow(self._sized)

    def _begin(self, rank: int) -> EvictionPolicy:
        policy = self._policy_class(self._directory, by_weight=self.max_entries is None and self.max_bytes is not None)
        policy.grow(max(self._sized, 1))
        self._ranks[rank] = policy
        return policy

    def _policies(self) -> list[EvictionPolicy]:
        return [policy for policy in self._ranks if policy is not None]

    def _policy_of(self, entry: Entry) -> EvictionPolicy:
        rank = _rank(entry)
        return self._ranks[rank] or self._begin(rank)

    def _forget(self, entry: Entry) -> None:
        self._tables[entry.space].remove(entry.key)
        self._weight -= entry.weight
        self._count -= 1
        self._policy_of(entry).remove(entry)

    def _drop(self, entry: Entry, reason: str) -> bool:
        if self._finds[entry.space](entry.key) is not entry:
            return False
        self._forget(entry)
        self.meter.evictions[reason] += 1
        return True

    def _pieces(self) -> Iterator[list[Entry]]:
        for policy in self._policies():
            for piece in policy.pieces():
                for start in range(0, len(piece), SWEPT_AT_ONCE):
                    yield piece[start : start + SWEPT_AT_ONCE]


def _rank(entry: Entry) -> int:
    return int(CachePriority.NORMAL if entry.extra is None else entry.extra.priority)
