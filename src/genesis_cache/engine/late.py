"""Late replies: what a server answers after its reader has gone on is promoted, if nothing newer is here by then."""

from collections.abc import Callable

from genesis_cache.coherence.fills import Token
from genesis_cache.engine.background import Background
from genesis_cache.engine.core import Core, Lane, View
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.keys import Address
from genesis_cache.policies.freshness import remaining
from genesis_cache.tiers.base import Buffer, Late

LATE_AT_ONCE = 256  # replies that are waited for after their readers have gone on

Accept = Callable[[View, Lane, Buffer | None, Address], Record | None]
Promote = Callable[[View, Record, Token], Entry]


class LateReplies:
    """The replies that somebody still waits for, behind those who asked."""

    def __init__(self, core: Core, background: Background, accept: Accept, promote: Promote) -> None:
        self._core = core
        self._background = background
        self._accept = accept
        self._promote = promote
        self._late: set[bytes] = set()

    def wait_for(self, view: View, lane: Lane, address: Address, found: Late, token: Token) -> None:
        """A reply did not come in time: counted, and taken in when it comes."""
        lane.meter.late += 1
        if self._core.memory is not None and len(self._late) < LATE_AT_ONCE:
            self._late.add(address.digest)
            self._core.fills.begin(token[1])  # the same fill goes on
            self._background.spawn(self._take_in(view, lane, address, found, token))

    def forget(self) -> None:
        """In a forked child: nobody here waits for them."""
        self._late.clear()

    async def _take_in(self, view: View, lane: Lane, address: Address, late: Late, token: Token) -> None:
        """Promote what came after its reader had gone on, unless something newer is here by then."""
        core = self._core
        try:
            record = self._accept(view, lane, await late.rest, address)
            if record is not None and remaining(record, core.clock.wall()) > 0 and not core.closed:
                self._promote(view, record, token)
        finally:
            core.fills.end()
            self._late.discard(address.digest)
