"""Sampling: a few entries of memory at a time, compared with what the shared tier has, behind everybody's back.

After Meta's Polaris ("Cache made consistent", 2022): what differs is looked at again after 1, 10 and 60 seconds, and
counted if it is still served then. A difference that no notice explains is none of this cache's making, or a refresh
elsewhere, which invalidates nothing; one that a notice had named must never be.
"""

import asyncio
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

import msgspec

from genesis_cache.engine.background import Background
from genesis_cache.engine.core import Core, Lane
from genesis_cache.engine.entries import stored_record, tags_of
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.model.patterns import compile_pattern
from genesis_cache.model.propagation import CHECKED_AFTER_S
from genesis_cache.policies.freshness import Verdict, judge
from genesis_cache.tiers.base import Answer

AT_ONCE = 8  # entries a round
MOST_SUSPECTS = 64
CLOCKS_S = 1.0  # by which the wall clocks of two hosts may differ
LARGEST = 65536 // 16  # units of weight: larger values are not compared, which would cost too much of the loop's time


class Suspect(msgspec.Struct, frozen=True, gc=False):
    """An entry whose value was found to be another than the shared tier's."""

    entry: Entry
    address: Address
    stage: int = 0
    """Which of `CHECKED_AFTER_S` comes next."""


class Sampling:
    """Compares the memory of one cache with its widest shared tier."""

    def __init__(self, core: Core, lane: Lane, background: Background) -> None:
        self._core = core
        self._lane = lane
        self._background = background
        self._walk: Iterator[Entry] = iter(())
        self._suspects: set[bytes] = set()
        """The digests of entries that will be looked at again."""

    async def round(self) -> None:
        """Compare the next few entries; the walk goes through all of memory, and begins anew at its end."""
        told = self._core.propagation
        chosen = self._chosen()
        records = await self._shared([address for _, address in chosen])
        for (entry, address), record in zip(chosen, records, strict=True):
            if record is None:
                continue
            told.compared += 1
            if address.digest not in self._suspects and self._is_older(entry, address, record):
                told.differed += 1
                self._look_again(Suspect(entry, address))

    async def look(self, suspect: Suspect) -> None:
        """Count a suspect that still differs and is still served, and look again later."""
        self._suspects.discard(suspect.address.digest)
        core, stage = self._core, suspect.stage
        if core.closed or not self._is_served(suspect.entry):
            return
        (record,) = await self._shared([suspect.address])
        if (
            record is None
            or not self._is_served(suspect.entry)
            or not self._is_older(suspect.entry, suspect.address, record)
        ):
            return
        counts = core.propagation.inconsistent if self._was_told(suspect) else core.propagation.behind
        counts[CHECKED_AFTER_S[stage]] += 1
        if stage + 1 < len(CHECKED_AFTER_S):
            self._look_again(msgspec.structs.replace(suspect, stage=stage + 1))

    def forget(self) -> None:
        """In a forked child: nobody looks again at the parent's suspects."""
        self._suspects.clear()
        self._walk = iter(())

    def _chosen(self) -> list[tuple[Entry, Address]]:
        memory = self._core.memory
        if memory is None:
            return []
        entries = list(islice(self._walk, AT_ONCE))
        if len(entries) < AT_ONCE:
            self._walk = memory.items()
            entries += islice(self._walk, AT_ONCE - len(entries))
        return [(entry, self._address(entry)) for entry in entries if self._is_served(entry)]

    def _address(self, entry: Entry) -> Address:
        core = self._core
        owner, key = entry.key if isinstance(entry.key, tuple) else (None, entry.key)
        return address_of(scope_of(core.settings.cache_name, core.namespace_of(entry), owner), key)

    def _is_served(self, entry: Entry) -> bool:
        """Whether a read would find this very entry, and serve it."""
        core = self._core
        held = core.memory.get(entry.space & ~1, entry.key) if core.memory is not None else None
        if held is not entry or entry.weight > LARGEST or core.is_deaf or core.debtors:
            return False
        if entry.extra is not None and entry.extra.sensitive:
            return False
        is_living = entry.epoch is core.floors.epoch or core.living(entry)
        return is_living and judge(entry, core.clock.now()) is Verdict.FRESH

    async def _shared(self, addresses: Sequence[Address]) -> list[Record | None]:
        """What the shared tier holds; None where it holds nothing, or nothing of this log."""
        if not addresses or self._lane.tier.down is not None:
            return [None] * len(addresses)
        answers = await self._lane.tier.get_many(addresses)
        return [self._record(answer, address) for answer, address in zip(answers, addresses, strict=True)]

    def _record(self, answer: Answer, address: Address) -> Record | None:
        if not isinstance(answer, bytes | memoryview):
            return None
        record = self._core.codec.decode(answer, address)
        return record if record is not None and record.epoch == self._core.log_epoch else None

    def _is_older(self, entry: Entry, address: Address, record: Record) -> bool:
        """Whether memory has another value than the shared tier, made before that one."""
        if record.value is entry.value:
            return False
        held = stored_record(self._core, address, entry)
        if record.seq <= entry.seq and record.created <= held.created + CLOCKS_S:
            return False
        return not self._same(address, entry.value, record.value)

    def _same(self, address: Address, one: object, other: object) -> bool:
        codec = self._core.codec
        try:
            return bool(one == other) or codec.encode(_bare(address, one)) == codec.encode(_bare(address, other))
        except Exception:  # noqa: BLE001  # values of any class: what cannot be compared proves nothing
            return True

    def _was_told(self, suspect: Suspect) -> bool:
        """Whether a notice that this process has heard names the entry and is younger."""
        core, entry = self._core, suspect.entry
        news = self._lane.tier.notices(Position(core.log_epoch, entry.seq))
        return any(names(notice, suspect.address, tags_of(entry)) for notice in news or ())

    def _look_again(self, suspect: Suspect) -> None:
        if len(self._suspects) >= MOST_SUSPECTS:
            return
        self._suspects.add(suspect.address.digest)
        stages = (0.0, *CHECKED_AFTER_S)
        wait_s = stages[suspect.stage + 1] - stages[suspect.stage]
        asyncio.get_running_loop().call_later(wait_s, partial(_look, weakref.ref(self), suspect))

    def begin(self, suspect: Suspect) -> None:
        """Look at a suspect behind the callers."""
        if self._core.closed:
            self._suspects.discard(suspect.address.digest)
        else:
            self._background.spawn(self.look(suspect))


def names(notice: Notice, address: Address, tags: Sequence[str]) -> bool:
    """Whether a notice kills the entry of an address with these tags, sequences apart."""
    scope = address.scope
    if notice.kind is Kind.KEY:
        return (notice.namespace, notice.owner, notice.name) == (scope.namespace, scope.owner, address.key)
    inside = not notice.namespace or f"{scope.namespace}/".startswith(f"{notice.namespace}/")
    if not inside or (notice.owner is not None and notice.owner != scope.owner):
        return False
    if notice.kind is Kind.TAG:
        return notice.name in tags
    return notice.kind is Kind.CLEAR or compile_pattern(notice.name)(address.key)


def _bare(address: Address, value: object) -> Record:
    return Record(address, value, 0.0, None)


def _look(sampling: "weakref.ref[Sampling]", suspect: Suspect) -> None:
    alive = sampling()
    if alive is not None:
        alive.begin(suspect)
