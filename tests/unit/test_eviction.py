"""Each eviction policy keeps to its definition, on sequences small enough to follow by hand."""

import random
from collections import Counter, OrderedDict

import pytest

from genesis_cache.model.entry import Entry
from genesis_cache.model.meter import LayerMeter
from genesis_cache.policies.eviction.base import Directory
from genesis_cache.policies.eviction.ghosts import LOST, REJECTED, Ghosts
from genesis_cache.policies.eviction.queue import CHUNK, Queue
from genesis_cache.policies.eviction.registry import POLICIES, make_policy
from genesis_cache.policies.eviction.sketch import AGE_PERIOD, TOP, Sketch
from genesis_cache.tiers.memory import MemoryTier

SCAN_RESISTANT = ["ADAPTIVE", "S3FIFO", "TINYLFU", "LFU"]


class Small:
    """A tier of a few entries that is asked for keys and filled on a miss."""

    def __init__(self, policy: str, entries: int) -> None:
        self.tier = MemoryTier(None, entries, policy, LayerMeter())
        self.space = self.tier.space("")

    def ask(self, key: str) -> bool:
        """Whether the key was there; it is put if not."""
        entry = self.tier.get(self.space, key)
        if entry is None:
            self.tier.put(Entry(key, None, 0.0, 0.0, None, None, 0, self.space))
            return False
        if self.tier.needs_touch:
            self.tier.touch(entry)
        else:
            entry.mark = True
        return True

    def hits(self, keys: list[str]) -> int:
        """How many of the keys were there when they were asked for."""
        hits = sum(self.ask(key) for key in keys)
        assert self.tier.check() == []
        return hits

    @property
    def held(self) -> str:
        """The keys, sorted."""
        return "".join(sorted(str(entry.key) for entry in self.tier.items()))


def after(policy: str, entries: int, keys: str) -> Small:
    """A cache that was asked for each letter."""
    cache = Small(policy, entries)
    cache.hits(list(keys))
    return cache


@pytest.mark.parametrize(
    ("keys", "held"), [("abc", "abc"), ("abcd", "bcd"), ("abcad", "acd"), ("abcbad", "abd"), ("abcaaadbe", "bde")]
)
def test_lru_evicts_what_was_not_used_for_longest(keys: str, held: str) -> None:
    """Of three places the three keys used last have one each."""
    assert after("LRU", 3, keys).held == held


@pytest.mark.parametrize(
    ("keys", "held"), [("abc", "abc"), ("abcd", "bcd"), ("aabbcd", "abd"), ("aabbccd", "bcd"), ("aaabbcdbe", "abe")]
)
def test_lfu_evicts_what_was_used_least(keys: str, held: str) -> None:
    """The key with the fewest uses goes; of several, the one that came to that number first."""
    assert after("LFU", 3, keys).held == held


def test_s3fifo_admits_what_returns_or_was_used() -> None:
    """A key that was used in the small queue goes on to the main queue, one that was not is evicted."""
    cache = after("S3FIFO", 10, "abcdefghij")
    assert cache.hits(["a", "b"]) == 2
    cache.hits(["k"])
    assert cache.held == "abdefghijk"


def test_s3fifo_gives_a_second_chance_to_what_it_has_just_let_go() -> None:
    """A key that returns soon after it was evicted stays through a scan that the others do not survive."""
    cache = after("S3FIFO", 10, "abcdefghijk")
    assert "a" not in cache.held
    cache.hits(["a", *"mnopqrst"])
    assert cache.held == "akmnopqrst"


@pytest.mark.parametrize("policy", ["ADAPTIVE", "TINYLFU"])
def test_tinylfu_keeps_the_more_frequent(policy: str) -> None:
    """A newcomer that was asked for once does not displace keys that were asked for often."""
    cache = Small(policy, 20)
    often = [f"often{number}" for number in range(15)]
    for _ in range(6):
        cache.hits(often)
    cache.hits([f"once{number}" for number in range(500)])
    assert cache.hits(often) >= 14


def bursts(keys: int, uses: int, gap: float) -> list[str]:
    """Keys that are each asked for a few times within a while, and never again."""
    chance = random.Random(4)
    asked = []
    for number in range(keys):
        at = float(number * uses)
        for _ in range(uses):
            asked.append((at, f"k{number}"))
            at += chance.expovariate(1 / gap)
    return [key for _, key in sorted(asked)]


def test_adaptive_widens_its_window_for_recency() -> None:
    """Where keys come in bursts and never again, the window that adapts beats the one that does not, and nears LRU."""
    requests = bursts(keys=10_000, uses=3, gap=100.0)
    adaptive, fixed, lru = (Small(policy, 100).hits(requests) for policy in ("ADAPTIVE", "TINYLFU", "LRU"))
    assert adaptive > 1.2 * fixed
    assert adaptive > 0.85 * lru


@pytest.mark.parametrize("policy", SCAN_RESISTANT)
def test_a_scan_does_not_flush_the_hot_set(policy: str) -> None:
    """After a scan of ten times the capacity the keys that are used all the time are still there; LRU loses them."""
    hot = [f"hot{number}" for number in range(60)]
    scan = [f"scan{number}" for number in range(1000)]

    def hits_after_scan(name: str) -> int:
        cache = Small(name, 100)
        for _ in range(20):
            cache.hits(hot)
        cache.hits(scan)
        return cache.hits(hot)

    assert hits_after_scan(policy) >= 55
    assert hits_after_scan("LRU") == 0


def zipf(seed: int, requests: int, keys: int) -> list[str]:
    """Requests with a popularity as one over rank."""
    weights = [1 / rank for rank in range(1, keys + 1)]
    numbers = random.Random(seed).choices(range(keys), weights, k=requests)
    return [f"k{number}" for number in numbers]


def test_lru_agrees_with_an_ordered_dict() -> None:
    """On 20,000 requests every hit and miss is that of the textbook LRU."""
    model: OrderedDict[str, None] = OrderedDict()
    cache = Small("LRU", 100)
    for key in zipf(1, 20_000, 1000):
        known = key in model
        model[key] = None
        model.move_to_end(key)
        if len(model) > 100:
            model.popitem(last=False)
        assert cache.ask(key) == known
    assert cache.tier.check() == []


def test_lfu_agrees_with_a_count() -> None:
    """On 5,000 requests what is evicted never had more uses than what stays."""
    cache = Small("LFU", 50)
    uses: Counter[str] = Counter()
    for key in zipf(2, 5_000, 300):
        before = {str(entry.key) for entry in cache.tier.items()}
        cache.ask(key)
        now = {str(entry.key) for entry in cache.tier.items()}
        for lost in before - now:
            assert uses[lost] == min(uses[held] for held in before)
            del uses[lost]
        uses[key] += 1


@pytest.mark.parametrize("policy", POLICIES)
def test_popular_keys_are_hit(policy: str) -> None:
    """On a popularity of one over rank a tenth of the keys gives more than half of the hits, and LRU the fewest."""
    requests = zipf(3, 30_000, 2000)
    hits = Small(policy, 200).hits(requests)
    assert hits > 0.5 * len(requests)
    if policy != "LRU":
        assert hits > Small("LRU", 200).hits(requests)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_without_entries_has_nothing_to_evict(policy: str) -> None:
    """Evicting from an empty policy is an error, not an entry."""
    made = make_policy(policy.lower(), Directory(), by_weight=False)
    assert made.size == 0
    with pytest.raises(IndexError):
        made.evict(1)


@pytest.mark.parametrize("size", [10, 50_000])
def test_a_ghost_is_remembered_once_and_not_for_ever(size: int) -> None:
    """A departed key is told once with its list, then forgotten; older ones give way to younger ones."""
    ghosts = Ghosts()
    ghosts.grow(size)
    digests = [hash(f"k{number}") for number in range(2 * size)]
    ghosts.add(digests[0], REJECTED)
    ghosts.add(digests[1], LOST)
    assert [ghosts.take(digest) for digest in digests[:3]] == [REJECTED, LOST, None]
    assert [ghosts.take(digest) for digest in digests[:2]] == [None, None]
    for digest in digests:
        ghosts.add(digest, LOST)
    assert {ghosts.take(digest) for digest in digests[:size]} == {None}
    assert sum(ghosts.take(digest) == LOST for digest in digests[size:]) > 0.6 * size


def test_the_sketch_counts_and_ages() -> None:
    """Uses are counted up to 15, and halved after so many uses in all."""
    sketch = Sketch()
    sketch.grow(1000)
    for _ in range(40):
        sketch.add(7)
    for _ in range(4):
        sketch.add(8)
    assert (sketch.count(7), sketch.count(8), sketch.count(9)) == (TOP, 4, 0)
    assert sketch.prefers(7, 8)
    assert not sketch.prefers(8, 7)
    assert not sketch.prefers(9, 10)
    for number in range(1000 * AGE_PERIOD):
        sketch.add(64 + number % 5)
    assert sketch.count(7) == TOP // 2
    sketch.grow(100_000)
    assert sketch.count(7) == TOP // 2


class Queued:
    """A queue with the table behind it."""

    def __init__(self) -> None:
        self.table: dict[str | tuple[str, str], Entry] = {}
        directory = Directory()
        directory.finds.append(self.table.get)
        self.queue = Queue(directory)

    def push(self, key: str) -> Entry:
        """A new entry at the tail."""
        entry = self.table[key] = Entry(key, None, 0.0, 0.0, None, None, 0, 0)
        self.queue.push(entry)
        return entry

    def drop(self, key: str) -> None:
        """As a deletion does."""
        self.queue.remove(self.table.pop(key))


def test_a_queue_is_first_in_first_out() -> None:
    """Entries come out in the order in which they went in, over any number of chunks."""
    queued = Queued()
    keys = [f"k{number}" for number in range(3 * CHUNK + 5)]
    for key in keys:
        queued.push(key)
    assert [queued.queue.take().key for _ in keys] == keys
    with pytest.raises(IndexError):
        queued.queue.take()
    assert queued.queue.check() == []


def test_a_dropped_entry_that_returns_has_its_new_place() -> None:
    """Its old record counts for nothing."""
    queued = Queued()
    for key in "abc":
        queued.push(key)
    queued.drop("a")
    queued.push("a")
    assert queued.queue.check() == []
    assert [queued.queue.take().key for _ in range(3)] == ["b", "c", "a"]


def test_dropped_entries_leave_little_behind() -> None:
    """A queue from which everything but one is dropped, again and again, does not grow."""
    queued = Queued()
    queued.push("stays")
    for number in range(40 * CHUNK):
        queued.push(f"k{number}")
        if number >= CHUNK:
            queued.drop(f"k{number - CHUNK}")
    assert queued.queue.check() == []
    assert queued.queue.size == CHUNK + 1
    assert queued.queue.records < 12 * CHUNK
    assert queued.queue.take().key == "stays"
    assert queued.queue.take().key == f"k{39 * CHUNK}"
