"""The memory tier as the engine uses it: tables, limits, priorities, sweeps, figures."""

import threading
from collections.abc import Iterator

import pytest

from genesis_cache.model.entry import CachePriority, Entry, Extra
from genesis_cache.model.meter import LayerMeter
from genesis_cache.tiers.memory import MIRROR_EVERY, MOST_VICTIMS, MemoryTier
from genesis_cache.tiers.table import SPLIT_AT

POLICIES = ["ADAPTIVE", "LRU", "LFU", "S3FIFO", "TINYLFU"]


def entry_of(
    key: str | tuple[str, str],
    space: int = 0,
    *,
    weight: int = 1,
    until: float = float("inf"),
    priority: CachePriority | None = None,
    value: object = None,
) -> Entry:
    extra = None if priority is None else Extra(priority=priority)
    return Entry(key, value, until, until, None, None, 0, space, weight=weight, extra=extra)


def hit(tier: MemoryTier, key: str | tuple[str, str], space: int = 0) -> bool:
    """Ask as the engine does: look, and mark or touch what is there."""
    entry = tier.get(space, key)
    if entry is None:
        return False
    if tier.needs_touch:
        tier.touch(entry)
    else:
        entry.mark = True
    return True


class Tiers:
    """Makes tiers and verifies the books of each when the test is over."""

    def __init__(self) -> None:
        self.made: list[MemoryTier] = []

    def __call__(self, *, entries: int | None = None, units: int | None = None, policy: str = "ADAPTIVE") -> MemoryTier:
        tier = MemoryTier(None if units is None else units * 16, entries, policy, LayerMeter())
        tier.space("")
        self.made.append(tier)
        return tier


@pytest.fixture
def tiers() -> Iterator[Tiers]:
    tiers = Tiers()
    yield tiers
    for tier in tiers.made:
        assert tier.check() == []


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_put_is_found(tiers: Tiers, policy: str) -> None:
    """An entry that was put is the one that the table and the tier give back."""
    tier = tiers(entries=10, policy=policy)
    entry = entry_of("a", value=7)
    assert tier.put(entry) == []
    assert tier.table(0)["a"] is entry
    assert tier.get(0, "a") is entry
    assert tier.get(0, "b") is None


@pytest.mark.parametrize("policy", POLICIES)
def test_a_later_value_replaces(tiers: Tiers, policy: str) -> None:
    """A second put of a key leaves one entry, the later one, and its weight."""
    tier = tiers(units=100, policy=policy)
    tier.put(entry_of("a", weight=3))
    later = entry_of("a", weight=5)
    assert tier.put(later) == []
    assert tier.get(0, "a") is later
    assert (tier.stats().entries, tier.stats().size_bytes) == (1, 5 * 16)


def test_putting_the_same_entry_again_changes_nothing(tiers: Tiers) -> None:
    """An entry that is there already may be put again."""
    tier = tiers(entries=2)
    entry = entry_of("a")
    tier.put(entry)
    assert tier.put(entry) == []
    assert tier.stats().entries == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_namespaces_and_owners_are_apart(tiers: Tiers, policy: str) -> None:
    """The same key in two namespaces, or of two owners, is that many entries, and none reaches another."""
    tier = tiers(entries=10, policy=policy)
    other = tier.space("other")
    entries = [entry_of("a"), entry_of("a", other), entry_of(("user:1", "a")), entry_of(("user:2", "a"), other)]
    for entry in entries:
        tier.put(entry)
    assert [
        tier.get(0, "a"),
        tier.get(other, "a"),
        tier.get(0, ("user:1", "a")),
        tier.get(other, ("user:2", "a")),
    ] == entries
    assert tier.owned_table(0)[("user:1", "a")] is entries[2]
    assert ("user:1", "a") not in tier.table(0)
    assert tier.space("other") == other
    assert tier.space("") == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_the_limit_of_entries_holds(tiers: Tiers, policy: str) -> None:
    """However many are put, no more are held than allowed, and what left is told."""
    tier = tiers(entries=20, policy=policy)
    left = [victim for number in range(100) for victim in tier.put(entry_of(f"k{number}"))]
    assert tier.stats().entries == 20
    assert len(left) == 80
    assert all(tier.get(0, victim.key) is None for victim in left)
    assert tier.stats().evictions == {"entries": 80}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_limit_of_bytes_holds(tiers: Tiers, policy: str) -> None:
    """The weights of what is held never add up to more than the limit."""
    tier = tiers(units=100, policy=policy)
    for number in range(300):
        tier.put(entry_of(f"k{number}", weight=1 + number % 9))
        assert tier.stats().size_bytes <= 1600
    assert tier.stats().capacity_bytes == 1600
    assert set(tier.stats().evictions) == {"size"}


def test_both_limits_hold_at_once(tiers: Tiers) -> None:
    """With a limit of bytes and one of entries the stricter one decides."""
    tier = tiers(entries=10, units=100)
    for number in range(50):
        tier.put(entry_of(f"light{number}"))
    assert tier.stats().entries == 10
    for number in range(50):
        tier.put(entry_of(f"heavy{number}", weight=20))
        assert tier.stats().entries <= 10
        assert tier.stats().size_bytes <= 1600


def test_no_limit_is_no_limit(tiers: Tiers) -> None:
    """Without limits nothing is evicted."""
    tier = tiers()
    assert not any(tier.put(entry_of(f"k{number}", weight=1000)) for number in range(1000))
    assert tier.stats().entries == 1000


@pytest.mark.parametrize("policy", POLICIES)
def test_too_large_an_entry_is_not_admitted(tiers: Tiers, policy: str) -> None:
    """An entry above half of the bytes stays out, others stay in, and its older value is not left behind."""
    tier = tiers(units=100, policy=policy)
    tier.put(entry_of("small"))
    tier.put(entry_of("large"))
    large = entry_of("large", weight=51)
    assert tier.put(large) == [large]
    assert tier.get(0, "large") is None
    assert tier.get(0, "small") is not None
    assert tier.stats().evictions == {"size": 1}


def test_a_heavy_entry_gets_its_room_in_bounded_steps(tiers: Tiers) -> None:
    """One put evicts no more than a few thousand entries; an entry that needs more room is admitted when it returns."""
    tier = tiers(units=20_000)
    for number in range(20_000):
        tier.put(entry_of(f"k{number}"))
    heavy = entry_of("heavy", weight=6000)
    assert tier.put(heavy)[-1] is heavy
    assert tier.stats().entries == 20_000 - MOST_VICTIMS
    assert tier.stats().evictions == {"size": MOST_VICTIMS + 1}
    assert heavy not in tier.put(heavy)
    assert tier.get(0, "heavy") is heavy


@pytest.mark.parametrize("policy", POLICIES)
def test_an_entry_may_grow_in_a_full_tier(tiers: Tiers, policy: str) -> None:
    """A larger value for a key makes room for itself."""
    tier = tiers(units=100, policy=policy)
    for number in range(20):
        tier.put(entry_of(f"k{number}", weight=5))
    held = next(iter(tier.items())).key
    tier.put(entry_of(held, weight=20))
    found = tier.get(0, held)
    assert found is not None
    assert found.weight == 20


@pytest.mark.parametrize("policy", POLICIES)
def test_drop_forgets_only_what_is_current(tiers: Tiers, policy: str) -> None:
    """Dropping an entry that was replaced leaves its successor alone."""
    tier = tiers(entries=10, policy=policy)
    first, second = entry_of("a"), entry_of("a")
    tier.put(first)
    tier.put(second)
    assert not tier.drop(first, "explicit")
    assert tier.get(0, "a") is second
    assert tier.drop(second, "explicit")
    assert not tier.drop(second, "explicit")
    assert tier.get(0, "a") is None
    assert tier.stats().evictions == {"explicit": 1}


@pytest.mark.parametrize("policy", POLICIES)
def test_low_goes_before_normal_and_critical_last(tiers: Tiers, policy: str) -> None:
    """As room gets scarce, entries leave in the order of their priority, used or not."""
    tier = tiers(entries=40, policy=policy)
    priorities = [CachePriority.LOW, CachePriority.NORMAL, CachePriority.HIGH, CachePriority.CRITICAL]
    for number in range(10):
        for priority in priorities:
            tier.put(entry_of(f"{priority.name}{number}", priority=priority))
    for number in range(10):
        hit(tier, f"LOW{number}")
    newer = [entry_of(f"new{number}", priority=CachePriority.CRITICAL) for number in range(40)]
    left = [victim for entry in newer for victim in tier.put(entry)]
    order = [priority for victim in left if victim.extra is not None for priority in [victim.extra.priority]]
    assert order[:30] == sorted(order[:30])
    assert [order.count(priority) for priority in priorities] == [10, 10, 10, 10]


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_enters_above_its_priority(tiers: Tiers, policy: str) -> None:
    """A NORMAL entry does not displace a CRITICAL one: it is told as its own victim."""
    tier = tiers(entries=3, policy=policy)
    for number in range(3):
        tier.put(entry_of(f"critical{number}", priority=CachePriority.CRITICAL))
    normal = entry_of("normal")
    assert tier.put(normal) == [normal]
    assert tier.get(0, "normal") is None
    assert tier.stats().entries == 3


@pytest.mark.parametrize("policy", POLICIES)
def test_a_priority_can_change(tiers: Tiers, policy: str) -> None:
    """A value that is set again with another priority is evicted by the new one."""
    tier = tiers(entries=4, policy=policy)
    tier.put(entry_of("a", priority=CachePriority.LOW))
    tier.put(entry_of("a", priority=CachePriority.CRITICAL))
    for number in range(20):
        tier.put(entry_of(f"k{number}"))
    assert tier.get(0, "a") is not None


def gone(entry: Entry, now: float) -> bool:
    return entry.until <= now


@pytest.mark.parametrize("policy", POLICIES)
def test_sweep_removes_what_is_over(tiers: Tiers, policy: str) -> None:
    """A sweep to the end removes every expired entry and no other."""
    tier = tiers(policy=policy)
    for number in range(3000):
        tier.put(entry_of(f"k{number}", until=number % 3))
    removed = tier.sweep(1.0, 60.0, gone)
    assert not tier.sweeping
    assert removed == 2000
    assert tier.stats().entries == 1000
    assert tier.stats().evictions == {"ttl": 2000}
    assert all(entry.until == 2 for entry in tier.items())


def test_sweep_goes_on_where_it_ended(tiers: Tiers) -> None:
    """Slices without time to spare see everything in the end, each a bounded part."""
    tier = tiers()
    for number in range(5000):
        tier.put(entry_of(f"k{number}", until=0.0))
    slices = [tier.sweep(1.0, 0.0, gone)]
    while tier.sweeping:
        slices.append(tier.sweep(1.0, 0.0, gone))
    assert sum(slices) == 5000
    assert max(slices) <= 512
    assert tier.stats().entries == 0


def test_clear_space_leaves_the_others(tiers: Tiers) -> None:
    """Clearing a namespace in bounded steps empties it, owned entries too, and no other."""
    tier = tiers()
    other = tier.space("other")
    for number in range(50):
        tier.put(entry_of(f"k{number}"))
        tier.put(entry_of(("user", f"k{number}")))
        tier.put(entry_of(f"k{number}", other))
    assert not tier.clear_space(0, limit=70)
    assert tier.stats().entries == 80
    assert tier.clear_space(0, limit=70)
    assert {entry.space for entry in tier.items()} == {other}
    assert tier.stats().entries == 50


def test_a_large_table_finds_all(tiers: Tiers) -> None:
    """Beyond the size at which a table splits every entry is still found, replaced, dropped and counted."""
    tier = tiers()
    count = SPLIT_AT + 5000
    entries = [entry_of(f"k{number}") for number in range(count)]
    for entry in entries:
        tier.put(entry)
    assert all(tier.get(0, entry.key) is entry for entry in entries)
    again = [entry_of(f"k{number}") for number in range(0, count, 7)]
    for entry in again:
        tier.put(entry)
    assert all(tier.get(0, entry.key) is entry for entry in again)
    for entry in again:
        tier.drop(entry, "explicit")
    assert all(tier.get(0, entry.key) is None for entry in again)
    assert tier.stats().entries == count - len(again)
    while not tier.clear_space(0):
        pass
    assert tier.stats().entries == 0
    assert tier.get(0, "k1") is None


def test_what_is_used_in_a_large_table_is_found_at_once(tiers: Tiers) -> None:
    """An entry of a large table that is asked for often is in the dict that readers look in first, until it goes."""
    tier = tiers()
    for number in range(SPLIT_AT + 5000):
        tier.put(entry_of(f"k{number}"))
    for _ in range(1 + MIRROR_EVERY):
        hit(tier, "k7")
    entry = tier.get(0, "k7")
    assert entry is not None
    assert tier.table(0).get("k7") is entry
    tier.drop(entry, "explicit")
    assert "k7" not in tier.table(0)
    assert tier.get(0, "k7") is None


def test_threads_share_a_tier(tiers: Tiers) -> None:
    """Four threads that read, put and drop the same keys leave sound books and never see another key's value."""
    tier = tiers(entries=50)
    faults: list[str] = []

    def work(seed: int) -> None:
        for step in range(3000):
            key = f"k{(step * 7 + seed * 13) % 90}"
            entry = tier.get(0, key)
            if entry is not None and entry.value != key:
                faults.append(key)
            if entry is None or step % 5 == 0:
                tier.put(entry_of(key, value=key))
            elif step % 11 == 0:
                tier.drop(entry, "explicit")
            else:
                entry.mark = True

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_forked_child_goes_on(tiers: Tiers) -> None:
    """A child keeps what was there; if a thread was changing it during the fork, it begins empty, not stuck."""
    tier = tiers(entries=10)
    tier.put(entry_of("a"))
    table = tier.table(0)
    tier.after_fork()
    assert tier.get(0, "a") is not None
    tier._lock.acquire()  # as the thread has that is not in the child
    tier.after_fork()
    assert (tier.get(0, "a"), tier.stats().entries) == (None, 0)
    tier.put(entry_of("b"))
    assert tier.get(0, "b") is table["b"]


def test_an_unknown_policy_is_refused() -> None:
    """A policy that there is none of is named, with those there are."""
    with pytest.raises(ValueError, match=r"'FIFO'.*ADAPTIVE, LRU, LFU, S3FIFO, TINYLFU"):
        MemoryTier(None, 10, "FIFO", LayerMeter())
