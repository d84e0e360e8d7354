"""The canary: a change of nothing, sent through the shared log now and then, that shows how soon changes are heard.

Each process sends one and times when its notice comes back, and when those of others arrive. A canary that the server
has taken, and that the log afterwards claims not to have, shows a log that lies: a proxy that answers reads from a
replica does. That is known from nothing else, because such a log answers every question in time.
"""

import os
import platform
import secrets
import threading
from pathlib import Path

import msgspec

from genesis_cache.engine.core import Core
from genesis_cache.engine.hearing import Hearing
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.tiers.base import Kill, Tier

NAMESPACE = "/canary"  # no cache can have a namespace of that name, so no key is harmed
MOST_SENDERS = 4096
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Song(msgspec.Struct, array_like=True, frozen=True):
    """What a canary says, as the key of its notice."""

    sender: str
    number: int
    """Counted by the sender from 1, without a gap."""
    began: float
    """Monotonic seconds of the sender's host."""
    wall: float
    """Seconds since 1970, of the sender's clock."""
    host: str
    """Equal for processes that read the same monotonic clock."""


class Sent(msgspec.Struct, frozen=True):
    """A canary that the server has taken."""

    seq: int
    taken_at: float
    generation: int


class Canary:
    """Sends and hears the canaries of one cache; ``tier`` is the one whose log is followed."""

    def __init__(self, core: Core, hearing: Hearing, tier: Tier) -> None:
        self._core = core
        self._hearing = hearing
        self._tier = tier
        self._told = core.propagation
        self._host = host_identity()
        self._after_fork()

    def _after_fork(self) -> None:
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._sender = secrets.token_hex(6)
        self._number = 0
        self._seen: Position | None = None
        self._last: dict[str, tuple[int, float]] = {}  # by sender: its last number, and when that was heard
        self._waiting: Sent | None = None

    async def send(self) -> bool:
        """Send one; whether the server has taken it."""
        if self._pid != os.getpid():
            self._after_fork()
        if self._tier.down is not None or self._core.closed:
            return False
        core, clock = self._core, self._core.clock
        generation = core.floors.generation
        song = Song(self._sender, self._number + 1, clock.now(), clock.wall(), self._host)
        name = msgspec.json.encode(song).decode()
        receipts = await self._tier.commit([Kill(Notice(Kind.KEY, NAMESPACE, None, name))])
        if not receipts:  # nobody knows whether it went out: another name, so that nobody misses it
            self._sender, self._number = secrets.token_hex(6), 0
            return False
        self._number += 1
        self._told.canaries_sent += 1
        self._waiting = Sent(receipts[0].seq, clock.now(), generation)
        return True

    def hear(self) -> None:
        """Take in what is new in the log; called when it has something new, on whatever thread that is."""
        if self._pid != os.getpid():
            return
        with self._guard:
            self._hear()

    def _hear(self) -> None:
        core, now, wall = self._core, self._core.clock.now(), self._core.clock.wall()
        seen = self._seen
        if seen is None or seen.epoch != core.log_epoch:
            seen = Position(core.log_epoch, self._hearing.heard_seq)
        news = self._tier.notices(seen)
        if news is None:  # another log, or a gap that was told: what did not come was not kept back
            self._seen = None
            self._last.clear()
            return
        for notice in news:
            if notice.namespace == NAMESPACE:
                self._take(notice.name, now, wall)
        self._seen = Position(seen.epoch, news[-1].seq) if news else seen

    def _take(self, name: str, now: float, wall: float) -> None:
        try:
            song = msgspec.json.decode(name, type=Song)
        except msgspec.DecodeError:  # of another version
            return
        told = self._told
        told.canaries_heard += 1
        if song.sender == self._sender:
            told.own_lag.add(max(0.0, now - song.began))
            return
        if song.host == self._host:
            told.lag.add(max(0.0, now - song.began))
        else:
            told.clocks_lag.add(max(0.0, wall - song.wall))
        before, _ = self._last.pop(song.sender, (song.number - 1, now))
        told.canaries_missed += max(0, song.number - 1 - before)
        self._last[song.sender] = (song.number, now)
        if len(self._last) > MOST_SENDERS:
            del self._last[next(iter(self._last))]

    def forget_silent(self, older_than_s: float) -> int:
        """Forget the other processes not heard for so long; how many are left."""
        oldest = self._core.clock.now() - older_than_s
        with self._guard:
            self._last = {sender: last for sender, last in self._last.items() if last[1] >= oldest}
            return len(self._last)

    def is_kept_back(self) -> bool | None:
        """Whether the log claims to have told all there is, and has not told of a canary that the server had taken.

        None where the log claims nothing at the moment: then nothing can be said.
        """
        waiting = self._waiting
        if waiting is None:
            return False
        heard_at = self._tier.heard_at  # before the look at what was heard by then
        self.hear()
        with self._guard:
            seen = self._seen
        if seen is None or waiting.generation != self._core.floors.generation or seen.seq >= waiting.seq:
            self._waiting = None
            return False
        return True if heard_at is not None and heard_at > waiting.taken_at else None


def host_identity() -> str:
    """Equal in processes that read the same monotonic clock: those of one boot of one machine."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return platform.node()
