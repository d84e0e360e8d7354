"""The shared tier of a fake cluster: a server made of plain data, and the tier through which one process sees it."""

import asyncio
from collections.abc import Callable, Sequence

from genesis_cache.model.clock import Clock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.tiers.base import Answer, Buffer, Change, Drop, Found, Kill, Put, Receipt, StoreStats
from genesis_cache.tiers.remote_base import Committed, Joined
from genesis_cache.tiers.remote_log import RemoteLog

LEASE_S = 10.0
_FIRST_EPOCH = 7

Spread = Callable[[Position, Sequence[Notice]], None]


class FakeServer:
    """What a server of a shared tier keeps: values, when each key was changed, the log, leases."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.epoch = _FIRST_EPOCH
        self.seq = 0
        self.values: dict[bytes, Put] = {}
        self.changed: dict[bytes, int] = {}
        self.log: list[Notice] = []
        self._kept_after = 0
        self._leases: dict[bytes, tuple[object, float]] = {}

    @property
    def position(self) -> Position:
        """The end of the log."""
        return Position(self.epoch, self.seq)

    def restart_empty(self) -> None:
        """Lose everything: the log is another one from now on."""
        self.epoch += 1
        self.values.clear()
        self.changed.clear()
        self.log.clear()
        self._leases.clear()
        self._kept_after = self.seq

    def trim(self) -> None:
        """Forget the log so far, floors apart: who is not up to date has missed something."""
        self._kept_after = self.seq

    def after(self, known: Position) -> list[Notice] | None:
        """What was changed after a position; None where that is another log, or too long ago."""
        if known.epoch != self.epoch or not self._kept_after <= known.seq <= self.seq:
            return None
        return [notice for notice in self.log if notice.seq > known.seq]

    def joined(self) -> Joined:
        """Where the log stands, and what still matters of it."""
        return Joined(self.position, [notice for notice in self.log if notice.kind is not Kind.KEY])

    def get(self, address: Address) -> Buffer | None:
        """The stored envelope, while it is within its time."""
        put = self.values.get(address.digest)
        return put.envelope if put is not None and self._clock.wall() < put.gone_at else None

    def commit(self, changes: Sequence[Change], epoch: int) -> tuple[Committed, list[Notice]]:
        """As `RemoteStore.commit`, with the notices that it made."""
        before = self.seq
        receipts = [self._apply(change, epoch) for change in changes]
        return Committed(self.epoch, receipts), [notice for notice in self.log if notice.seq > before]

    def _apply(self, change: Change, epoch: int) -> Receipt:
        if isinstance(change, Kill):
            return Receipt(self._tell(change.notice))
        digest = change.address.digest
        if isinstance(change, Drop):
            self.values.pop(digest, None)
            return Receipt()
        if isinstance(change, Put):
            if self._is_outdated(change, epoch):
                return Receipt(refused=True)
            self.values[digest] = change
            if change.since is not None:
                return Receipt()
        else:
            self.values.pop(digest, None)
        scope = change.address.scope
        seq = self.changed[digest] = self._tell(Notice(Kind.KEY, scope.namespace, scope.owner, change.address.key))
        return Receipt(seq)

    def _is_outdated(self, put: Put, epoch: int) -> bool:
        held = self.values.get(put.address.digest)
        is_older = held is not None and held.version is not None and (put.version or held.version) < held.version
        is_late = put.since is not None and (epoch != self.epoch or self.changed.get(put.address.digest, 0) > put.since)
        return is_late or is_older

    def _tell(self, notice: Notice) -> int:
        self.seq += 1
        self.log.append(Notice(notice.kind, notice.namespace, notice.owner, notice.name, self.seq, notice.origin))
        return self.seq

    def lease(self, address: Address, holder: object) -> bool:
        """Become, or stay, the one who loads a key."""
        now = self._clock.now()
        held, until = self._leases.get(address.digest, (holder, 0.0))
        if held is not holder and now < until:
            return False
        self._leases[address.digest] = holder, now + LEASE_S
        return True

    def release(self, address: Address, holder: object) -> None:
        """Give a lease back."""
        if self._leases.get(address.digest, (None, 0.0))[0] is holder:
            del self._leases[address.digest]


class NodeTier:
    """A `Tier` over a `FakeServer`: reads and changes work at once, or not; the log is told by messages."""

    kind = "redis"
    is_shared = True
    keeps_budget = False

    def __init__(self, server: FakeServer, clock: Clock, reaches: Callable[[], bool], spread: Spread) -> None:
        self.on_down: Callable[[str], object] = lambda _: None
        self.on_up: Callable[[], object] = lambda: None
        self.on_news: Callable[[], object] = lambda: None
        self._server = server
        self._clock = clock
        self._reaches = reaches
        self._spread = spread
        self._log = RemoteLog()
        self._reason: str | None = "the tier is not open"

    # -- what the cluster does with it --------------------------------------------------------------------------

    @property
    def known(self) -> Position | None:
        """How far this process has heard."""
        return self._log.known

    def went(self, reason: str) -> None:
        """It cannot reach the server."""
        self._reason = reason
        self._log.lost()
        self.on_down(reason)

    def came_back(self) -> None:
        """It can again."""
        self._reason = None
        self.on_up()

    def join(self, asked_at: float) -> None:
        """Learn where the log stands, instead of what was missed."""
        self._log.joined(self._server.joined(), asked_at, is_gapless=False)
        self.on_news()

    def hear(self, position: Position, notices: Sequence[Notice], asked_at: float | None) -> None:
        """A message: what was new, up to a position; with ``asked_at`` the answer to a question of that moment.

        It may come late, twice, or before an earlier one: what is known is left out, and behind a gap nothing counts.
        """
        log = self._log
        known = log.known
        if known is None or known.epoch != position.epoch:
            return
        news = [notice for notice in notices if notice.seq > known.seq]
        if news and news[0].seq != known.seq + 1:
            return
        heard_at = log.heard_at or 0.0
        log.heard(news, heard_at if asked_at is None else max(heard_at, asked_at))
        if news:
            self.on_news()

    # -- what the cache does with it ----------------------------------------------------------------------------

    async def open(self) -> None:
        """As `Tier.open`."""
        if self._reaches():
            self._reason = None
            self.join(self._clock.now())

    async def close(self) -> None:
        """As `Tier.close`."""
        self._reason = "the tier is closed"
        self._log = RemoteLog()

    def get(self, address: Address) -> Buffer | None:
        """As `Tier.get`, at once."""
        return self._server.get(address) if self.down is None and self._log.is_told else None

    async def get_many(self, addresses: Sequence[Address]) -> Sequence[Answer]:
        """As `Tier.get_many`."""
        return [self.get(address) for address in addresses]

    def commit(self, changes: Sequence[Change]) -> "asyncio.Future[list[Receipt] | None]":
        """As `Tier.commit`, at once."""
        answer: asyncio.Future[list[Receipt] | None] = asyncio.get_running_loop().create_future()
        answer.set_result(self._commit(changes))
        return answer

    def _commit(self, changes: Sequence[Change]) -> list[Receipt] | None:
        if self.down is not None:
            return None
        committed, notices = self._server.commit(changes, self._log.epoch)
        known = self._log.receipted(committed)
        if notices:
            self._spread(self._server.position, notices)
        return committed.receipts if known else None

    def take_over(self, changes: Sequence[Change]) -> None:
        """As `Tier.take_over`."""
        self._commit(changes)

    def commit_now(self, changes: Sequence[Change]) -> list[Receipt] | None:  # noqa: ARG002  # no server answers without waiting
        """As `Tier.commit_now`: never possible."""
        return None

    def position(self) -> Position | None:
        """As `Tier.position`: as last heard."""
        position = self._log.known
        if position is not None:
            self._log.believed = position.epoch
        return position

    @property
    def heard_at(self) -> float | None:
        """As `Tier.heard_at`."""
        return self._log.heard_at

    def seq(self) -> int:
        """As `Tier.seq`."""
        return self._log.seq()

    def notices(self, after: Position) -> list[Notice] | None:
        """As `Tier.notices`."""
        return self._log.notices(after)

    def floors(self) -> list[Notice]:
        """As `Tier.floors`."""
        return self._log.floors()

    def lease(self, address: Address) -> bool:
        """As `Tier.lease`."""
        return self.down is not None or self._server.lease(address, self)

    def release(self, address: Address) -> None:
        """As `Tier.release`."""
        if self.down is None:
            self._server.release(address, self)

    async def sweep(self, budget_s: float) -> int:  # noqa: ARG002  # there is little to sweep
        """As `Tier.sweep`."""
        wall = self._clock.wall()
        dead = [digest for digest, put in self._server.values.items() if put.gone_at <= wall]
        for digest in dead:
            del self._server.values[digest]
        return len(dead)

    async def scan(self, limit: int) -> list[Found]:
        """As `Tier.scan`."""
        return [Found(bytes(put.envelope), used=True) for put in list(self._server.values.values())[:limit]]

    def stats(self) -> StoreStats:
        """As `Tier.stats`."""
        values = self._server.values.values()
        return StoreStats(entries=len(values), size_bytes=sum(len(put.envelope) for put in values))

    @property
    def down(self) -> str | None:
        """As `Tier.down`."""
        return self._reason

    def check(self) -> list[str]:
        """As `Tier.check`."""
        return self._log.check()

    async def diagnose(self) -> list[Finding]:
        """As `Tier.diagnose`."""
        severity = Severity.OK if self.down is None else Severity.FAULT
        return [Finding("cluster: use", severity, self.down or "the fake server answers", "heal the cluster")]
