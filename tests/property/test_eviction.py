"""Whatever is done to a memory tier, its limits hold, its books are right, and what it tells is current."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from genesis_cache.model.entry import CachePriority, Entry, Extra
from genesis_cache.model.meter import LayerMeter
from genesis_cache.policies.eviction.registry import POLICIES
from genesis_cache.tiers.memory import LARGEST_SHARE, MemoryTier

KEYS = st.one_of(
    st.integers(0, 40).map(lambda number: f"k{number}"),
    st.tuples(st.sampled_from(["user:1", "user:2"]), st.integers(0, 5).map(lambda number: f"k{number}")),
)
PRIORITIES = st.one_of(st.none(), st.sampled_from(CachePriority))


class Memory(RuleBasedStateMachine):
    """A tier beside a model: for each address the entry that was put last, unless it has left since."""

    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        entries=st.one_of(st.none(), st.integers(1, 30)),
        units=st.one_of(st.none(), st.integers(4, 120)),
    )
    def make(self, policy: str, entries: int | None, units: int | None) -> None:
        """Any policy within any limits."""
        self.entries, self.units = entries, units
        self.tier = MemoryTier(None if units is None else 16 * units, entries, policy, LayerMeter())
        self.spaces = [self.tier.space(""), self.tier.space("other")]
        self.current: dict[tuple[int, object], Entry] = {}
        self.left = 0
        self.sweeping_for = 0.0

    def _address(self, entry: Entry) -> tuple[int, object]:
        return (entry.space & ~1, entry.key)

    @rule(key=KEYS, space=st.integers(0, 1), weight=st.integers(1, 20), priority=PRIORITIES, until=st.integers(0, 9))
    def put(
        self, key: str | tuple[str, str], space: int, weight: int, priority: CachePriority | None, until: int
    ) -> None:
        """Add or replace; what was evicted is told and was there, or is the entry itself for a reason."""
        extra = None if priority is None else Extra(priority=priority)
        number = self.spaces[space]
        entry = Entry(key, object(), 0.0, float(until), None, None, 0, number, weight=weight, extra=extra)
        before = dict(self.current)
        victims = self.tier.put(entry)
        self.current[self._address(entry)] = entry
        for victim in victims:
            assert self.current.pop(self._address(victim)) is victim
            assert victim is entry or before[self._address(victim)] is victim
        self.left += len(victims)
        assert (entry in victims) == (victims[-1:] == [entry])
        if entry in victims:
            self._refused_for_a_reason(entry)

    def _refused_for_a_reason(self, entry: Entry) -> None:
        rank = _rank(entry)
        too_large = self.units is not None and entry.weight > int(16 * self.units * LARGEST_SHARE) // 16
        assert too_large or all(_rank(other) > rank for other in self.current.values())

    @rule(key=KEYS, space=st.integers(0, 1))
    def hit(self, key: str | tuple[str, str], space: int) -> None:
        """Read as the engine does: what is there is the current entry, what is current is there."""
        entry = self.tier.get(self.spaces[space], key)
        assert entry is self.current.get((self.spaces[space], key))
        if entry is not None:
            if self.tier.needs_touch:
                self.tier.touch(entry)
            else:
                entry.mark = True

    @rule(key=KEYS, space=st.integers(0, 1))
    def drop(self, key: str | tuple[str, str], space: int) -> None:
        """Delete."""
        entry = self.current.pop((self.spaces[space], key), None)
        if entry is not None:
            assert self.tier.drop(entry, "explicit")
            assert not self.tier.drop(entry, "explicit")
            self.left += 1

    @rule(now=st.integers(0, 9))
    def sweep(self, now: int) -> None:
        """A whole round of slices removes exactly what is over."""
        over = [address for address, entry in self.current.items() if entry.until <= now]
        removed = self.tier.sweep(float(now), 0.0, lambda entry, moment: entry.until <= moment)
        while self.tier.sweeping:
            removed += self.tier.sweep(float(now), 0.0, lambda entry, moment: entry.until <= moment)
        assert removed == len(over)
        self.left += removed
        for address in over:
            del self.current[address]

    @rule(space=st.integers(0, 1), limit=st.integers(1, 50))
    def clear(self, space: int, limit: int) -> None:
        """Empty a namespace in steps."""
        while not self.tier.clear_space(self.spaces[space], limit):
            pass
        gone = [address for address in self.current if address[0] == self.spaces[space]]
        self.left += len(gone)
        for address in gone:
            del self.current[address]

    @invariant()
    def holds(self) -> None:
        """Limits, books, figures and contents."""
        if not hasattr(self, "tier"):
            return
        stats = self.tier.stats()
        assert self.entries is None or stats.entries <= self.entries
        assert self.units is None or stats.size_bytes <= 16 * self.units
        assert stats.entries == len(self.current)
        assert stats.size_bytes == 16 * sum(entry.weight for entry in self.current.values())
        assert sum(stats.evictions.values()) == self.left
        assert {id(entry) for entry in self.tier.items()} == {id(entry) for entry in self.current.values()}
        assert self.tier.check() == []


def _rank(entry: Entry) -> CachePriority:
    return CachePriority.NORMAL if entry.extra is None else entry.extra.priority


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
