"""The checker over histories of a small model of the cache: clean where the model is right, not where a fault is in it.

The model knows the protocol of coherence in a dozen lines: one store with a log, processes with a near copy each that
must have heard the log within the bound before they serve from it.
"""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis_cache.testing.checker import NS, check
from genesis_cache.testing.history import Change, Commit, Get, History, Load

KEYS = ("a", "b", "c")
PROCESSES = ("w0", "w1", "w2")
BOUND_NS = NS


@dataclass
class Copy:
    version: int
    maker: str
    seq: int


@dataclass
class Process:
    near: dict[str, Copy] = field(default_factory=dict)
    heard: int = 0
    heard_at: int = 0


@dataclass
class Model:
    """The cluster, one step after the other; ``fault`` names what is wrong with it."""

    fault: str = ""
    now: int = 0
    serial: int = 0
    truth: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    store: dict[str, Copy] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    processes: dict[str, Process] = field(default_factory=lambda: {name: Process() for name in PROCESSES})
    loads: list[tuple[Load, int]] = field(default_factory=list)
    history: History = field(default_factory=History)

    def tick(self, span_ns: int = 1_000) -> int:
        self.now += span_ns
        return self.now

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    def commit(self, name: str, key: str) -> None:
        self.truth[key] += 1
        self.history.add(Commit(key, self.truth[key], begin=self.tick(), end=self.tick(), process=name))

    def delete(self, name: str, key: str) -> None:
        change = Change("delete", (key,), outcome="ok", begin=self.tick(), process=name)
        if self.fault != "store keeps what was deleted":
            self.store.pop(key, None)
        if self.fault != "own copy stays":
            self.processes[name].near.pop(key, None)
        self.log.append(key)
        change.end = self.tick()
        self.history.add(change)

    def set(self, name: str, key: str) -> None:
        serial = self.next_serial()
        change = Change("set", (key,), self.truth[key], outcome="ok", serial=serial, begin=self.tick(), process=name)
        self.log.append(key)
        self.store[key] = self.processes[name].near[key] = Copy(self.truth[key], change.name, len(self.log))
        change.end = self.tick()
        self.history.add(change)

    def begin_load(self, name: str, key: str) -> None:
        if any(load.key == key for load, _ in self.loads) and self.fault != "no lease":
            return
        load = Load(key, serial=self.next_serial(), begin=self.tick(), process=name)
        load.version = self.truth[key] + (self.fault == "reads what is not there yet")
        self.loads.append((load, len(self.log)))

    def end_load(self, place: int) -> None:
        if not self.loads:
            return
        load, since = self.loads.pop(place % len(self.loads))
        load.end = self.tick()
        self.history.add(load)
        if load.key not in self.log[since:] or self.fault == "late loads are stored":
            copy = Copy(load.version or 0, load.name, len(self.log))
            self.store[load.key] = self.processes[load.process].near[load.key] = copy

    def hear(self, name: str) -> None:
        process = self.processes[name]
        for key in self.log[process.heard :]:
            if self.fault != "notices are lost":
                process.near.pop(key, None)
        process.heard, process.heard_at = len(self.log), self.now

    def get(self, name: str, key: str) -> None:
        begin, process = self.tick(), self.processes[name]
        if begin - process.heard_at > BOUND_NS - 10_000 and self.fault != "never listens by itself":
            self.hear(name)
        copy = process.near.get(key)
        if copy is None and key in self.store:
            copy = self.store[key]
            self.hear(name)
            process.near[key] = copy
        get = Get(key, begin, self.tick(), process=name)
        if copy is not None:
            get.version, get.maker = copy.version, copy.maker
            get.named = KEYS[0] if self.fault == "keys get mixed up" else key
        self.history.add(get)

    def run(self, seed: int, steps: int) -> History:
        dice = random.Random(seed)
        for _ in range(steps):
            name, key = dice.choice(PROCESSES), dice.choice(KEYS)
            match dice.choices(("get", "begin", "end", "change", "set", "hear", "wait"), (30, 8, 8, 3, 2, 3, 6))[0]:
                case "get":
                    self.get(name, key)
                case "begin":
                    self.begin_load(name, key)
                case "end":
                    self.end_load(dice.randrange(8))
                case "change":
                    self.commit(name, key)
                    self.delete(name, key)
                case "set":
                    self.commit(name, key)
                    self.set(name, key)
                case "hear":
                    self.hear(name)
                case "wait":
                    self.tick(dice.randrange(NS // 2))
        for load, _ in self.loads:  # they never came to an end
            self.history.add(load)
        return self.history


@given(seed=st.integers(0, 1 << 32), steps=st.integers(0, 300))
def test_right_model_breaks_no_promise(seed: int, steps: int) -> None:
    """Whatever a right cache is asked to do, the checker has nothing to say."""
    assert check(Model().run(seed, steps)) == []


FAULTS = {
    "store keeps what was deleted": {"own change", "staleness", "resurrection"},
    "own copy stays": {"own change"},
    "late loads are stored": {"own change", "staleness", "resurrection"},
    "notices are lost": {"staleness", "resurrection"},
    "never listens by itself": {"staleness", "resurrection"},
    "keys get mixed up": {"mix-up"},
    "reads what is not there yet": {"future"},
    "no lease": {"two loads"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_model_is_found_out(fault: str) -> None:
    """Each fault that is put into the model is seen in a few thousand steps, and called by its name."""
    found = {violation.check for seed in range(5) for violation in check(Model(fault).run(seed, 1_000))}
    assert found & FAULTS[fault]
