"""The disk store against a plain dict: any changes, on two handles, across restarts and the passing of time."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.tiers.base import Drop, Kill, Kind, Notice, Put, Remove
from genesis_cache.tiers.segments.store import SegmentStore

SCOPE = scope_of("model")
KEYS = st.integers(0, 15)
SIZES = st.sampled_from([1, 50, 63, 64, 65, 700])
HANDLES = st.integers(0, 1)


class HandClock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


class AgainstDict(RuleBasedStateMachine):
    """Two handles on one store, and what they must show."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.clock = HandClock()
        self.stores = [SegmentStore(self.folder / "store", 2**20, self.clock) for _ in range(2)]
        for store in self.stores:
            store.open()
        self.values: dict[int, tuple[bytes, float]] = {}
        self.changed: dict[int, int] = {}
        self.told: list[tuple[Kind, str]] = []
        self.start = self.stores[0].position()
        self.sinces = [self.start.seq]
        self.count = 0

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    def _value(self, key: int, size: int) -> bytes:
        self.count += 1
        return f"{key}:{self.count}:".encode().ljust(size, b".")

    @rule(handle=HANDLES, key=KEYS, size=SIZES, ttl=st.sampled_from([1.0, 10.0, float("inf")]))
    def put(self, handle: int, key: int, size: int, ttl: float) -> None:
        """A set always counts, and tells."""
        value = self._value(key, size)
        (receipt,) = self.stores[handle].commit([Put(address_of(SCOPE, str(key)), value, self.clock.time + ttl)])
        self.values[key] = (value, self.clock.time + ttl)
        self._changed(key, receipt.seq)

    @rule(handle=HANDLES, key=KEYS, size=SIZES, back=st.integers(0, 5))
    def fill(self, handle: int, key: int, size: int, back: int) -> None:
        """A fill from before a change of its key is refused."""
        since = self.sinces[max(-back - 1, -len(self.sinces))]
        value = self._value(key, size)
        put = Put(address_of(SCOPE, str(key)), value, float("inf"), since=since)
        (receipt,) = self.stores[handle].commit([put])
        if since < self.changed.get(key, 0):
            assert receipt.refused
        if not receipt.refused:
            self.values[key] = (value, float("inf"))

    @rule(handle=HANDLES, key=KEYS)
    def remove(self, handle: int, key: int) -> None:
        """A removal always counts, and tells."""
        (receipt,) = self.stores[handle].commit([Remove(address_of(SCOPE, str(key)))])
        self.values.pop(key, None)
        self._changed(key, receipt.seq)

    @rule(handle=HANDLES, key=KEYS)
    def drop(self, handle: int, key: int) -> None:
        """A drop is told to nobody."""
        self.stores[handle].commit([Drop(address_of(SCOPE, str(key)))])
        self.values.pop(key, None)

    @rule(handle=HANDLES, keys=st.lists(KEYS, min_size=1, max_size=6), data=st.data())
    def batch(self, handle: int, keys: list[int], data: st.DataObject) -> None:
        """A batch is the same as its changes one by one."""
        changes: list[Put | Remove] = []
        for key in keys:
            if data.draw(st.booleans()):
                value = self._value(key, 30)
                changes.append(Put(address_of(SCOPE, str(key)), value, float("inf")))
                self.values[key] = (value, float("inf"))
            else:
                changes.append(Remove(address_of(SCOPE, str(key))))
                self.values.pop(key, None)
        for key, receipt in zip(keys, self.stores[handle].commit(changes), strict=True):
            self._changed(key, receipt.seq)

    @rule(handle=HANDLES, name=st.sampled_from(["a", "b"]))
    def kill(self, handle: int, name: str) -> None:
        """A kill by tag is told."""
        self.stores[handle].commit([Kill(Notice(Kind.TAG, "", None, name))])
        self.told.append((Kind.TAG, name))
        self.sinces.append(self.stores[0].position().seq)

    @rule(handle=HANDLES)
    def reopen(self, handle: int) -> None:
        """Closing one handle changes nothing."""
        self.stores[handle].close()
        self.stores[handle].open()

    @rule()
    def restart(self) -> None:
        """Closing all handles keeps all entries; fills from before are refused."""
        for store in self.stores:
            store.close()
        for store in self.stores:
            store.open()
        self.changed = dict.fromkeys(range(16), self.stores[0].position().seq)

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.time += seconds

    @rule(handle=HANDLES)
    def sweep(self, handle: int) -> None:
        """A sweep leaves exactly what lives."""
        self.stores[handle].sweep(1000.0)
        assert self.stores[handle].stats().entries == len(self._living())

    @invariant()
    def both_show_the_same(self) -> None:
        """Every living value, on both handles, and nothing else; told in order; sound books."""
        living = self._living()
        for store in self.stores:
            for key in range(16):
                assert store.get(address_of(SCOPE, str(key))) == living.get(key)
            told = store.notices(self.start)
            assert told is not None
            assert [(notice.kind, notice.name) for notice in told] == self.told
            assert sorted(found.envelope for found in store.scan()) == sorted(living.values())
        assert self.stores[0].check() == []

    def _living(self) -> dict[int, bytes]:
        return {key: value for key, (value, gone_at) in self.values.items() if gone_at > self.clock.time}

    def _changed(self, key: int, seq: int) -> None:
        self.changed[key] = seq
        self.told.append((Kind.KEY, str(key)))
        self.sinces.append(seq)


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
