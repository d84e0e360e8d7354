"""Whether a server may be asked now: one breaker for reading, one for writing, and suspicion between the two.

Suspicion is what a late reply raises before anybody knows whether the server is dead or slow: nobody else waits for it
until that reply is there (then it was slow) or is given up (then the breaker opens). Safe from any thread.
"""

import logging
import threading
from collections.abc import Callable

from genesis_cache.model.clock import Clock
from genesis_cache.tiers.base import StoreError
from genesis_cache.tiers.breaker import Breaker, Circuit

_logger = logging.getLogger("genesis_cache")


class Unanswered(StoreError):
    """A call was given up because no reply came."""


class Health:
    """What is known of a server, and who is told when it goes out of use or comes back."""

    def __init__(self, kind: str, clock: Clock) -> None:
        self.is_shut = True
        """Whether reads are answered "not here" at once; looked at by every read, so it is one plain attribute."""
        self.is_suspect = False
        self.suspicions = 0
        """Number of the present suspicion, or of the last."""
        self.errors = 0
        """How often the server failed."""
        self.reads, self.writes = Breaker(), Breaker()
        self.tell: Callable[[str | None], object] = _nobody
        """Called with the reason when the server goes out of use, and with None when it is in use again."""
        self.suspected: Callable[[], object] = _nothing
        """Called, on any thread, when a suspicion begins."""
        self._kind = kind
        self._clock = clock
        self._wanted = False
        self._silent: str | None = None  # a suspicion that has lasted so long that it is told
        self._refuses = False  # whether the last failure of a write was an answer, so that a smaller one may work
        self._was_down = False
        self._is_closing = False
        self._guard = threading.RLock()
        self._telling = threading.RLock()

    def forget(self) -> None:
        """In a forked child: what the parent thinks of the server, and what its threads may hold."""
        self._guard = threading.RLock()
        self._telling = threading.RLock()
        self.reads, self.writes = Breaker(), Breaker()
        self._was_down = False
        self._trust()

    # -- what may be asked --------------------------------------------------------------------------------------

    @property
    def reason(self) -> str | None:
        """Why the server is out of use, in a sentence; None while it works."""
        if not self._wanted:
            return f"the {self._kind} tier is not open"
        if self.reads.reason is not None:
            return self.reads.reason
        if self._silent is not None:
            return self._silent
        if self.writes.reason is not None:
            return f"only reads work: {self.writes.reason}"
        return None

    @property
    def circuit(self) -> Circuit:
        """The state of the worse of the two breakers."""
        states = self.reads.state, self.writes.state
        return next((state for state in (Circuit.OPEN, Circuit.HALF_OPEN) if state in states), Circuit.CLOSED)

    @property
    def writes_all(self) -> bool:
        """Whether changes of every kind may be sent."""
        return self._answers and self.writes.state is Circuit.CLOSED

    @property
    def writes_removals(self) -> bool:
        """Whether changes that need no space may be sent: a full server, one that refuses, still takes them."""
        return self._answers and (self.writes.state is Circuit.CLOSED or self._refuses)

    @property
    def _answers(self) -> bool:
        return self._wanted and self._silent is None and self.reads.state is Circuit.CLOSED

    @property
    def reads_down(self) -> bool:
        """Whether reading waits for an attempt that shows that it works again."""
        return self.reads.state is not Circuit.CLOSED

    @property
    def writes_down(self) -> bool:
        """As `reads_down`, of writing."""
        return self.writes.state is not Circuit.CLOSED

    def may_try_read(self) -> bool:
        """Whether whoever asks is the one attempt that shows whether reading works again."""
        with self._guard:
            return self.reads.allows(self._clock.now())

    def may_try_write(self) -> bool:
        """As `may_try_read`, of writing."""
        with self._guard:
            return self.writes.allows(self._clock.now())

    def retry_in_s(self) -> float:
        """Seconds until reading may be tried."""
        return self.reads.wait_s(self._clock.now())

    # -- what happened ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """From now on the server is to be used."""
        with self._guard:
            self._wanted = True
            self._is_closing = False
            self._look()
        self._report()

    def no_more_reads(self) -> None:
        """The tier is being closed: what is queued is still written."""
        with self._guard:
            self._is_closing = True
            self._look()

    def stop(self) -> None:
        """The server is no longer to be used; nobody is told, and the next start begins with a clean sheet."""
        with self._guard:
            self._wanted = self._was_down = self.is_suspect = False
            self._silent = None
            self.reads.worked()
            self.writes.worked()
            self._look()

    def read_failed(self, error: BaseException) -> None:
        """The server could not be read from."""
        self._failed(self.reads, error)

    def write_failed(self, error: BaseException) -> None:
        """The server took no change."""
        self._refuses = not isinstance(error, Unanswered)
        self._failed(self.writes, error)

    def read_worked(self) -> None:
        """The server was read from: whatever was thought of it is over."""
        with self._guard:
            self.reads.worked()
            self._trust()
        self._report()

    def write_worked(self) -> None:
        """The server took a value."""
        with self._guard:
            self.writes.worked()
        self._report()

    def suspect(self) -> None:
        """A reply is late."""
        with self._guard:
            if self.is_suspect or self.reads_down:
                return
            self.is_suspect = True
            self.suspicions += 1
            self._look()
        self.suspected()

    def trust(self) -> None:
        """A reply came: the server was slow, no more."""
        with self._guard:
            self._trust()
        self._report()

    def silent(self, suspicion: int, seconds: float) -> None:
        """A suspicion has lasted for so many seconds, unless it is over: say so."""
        with self._guard:
            if not self.is_suspect or suspicion != self.suspicions:
                return
            self._silent = f"the {self._kind} server has not answered for {seconds:g} s"
        self._report()

    def expired(self, suspicion: int, seconds: float) -> None:
        """Whoever waited for a late reply is gone with its event loop, unless it is over: take it for a failure."""
        if self.is_suspect and suspicion == self.suspicions:
            self.read_failed(Unanswered(f"the {self._kind} server has not answered for {seconds:g} s"))

    def _failed(self, breaker: Breaker, error: BaseException) -> None:
        with self._guard:
            self.errors += 1
            if breaker is self.reads:
                self._trust()
            if breaker.state is not Circuit.OPEN:  # what was under way when it opened is no further attempt
                breaker.failed(self._clock.now(), sentence(error))
            self._look()
        self._report()

    def _trust(self) -> None:
        self.is_suspect = False
        self._silent = None
        self._look()

    def _look(self) -> None:
        self.is_shut = not self._wanted or self._is_closing or self.is_suspect or self.reads_down

    def _report(self) -> None:
        """Tell if it went out of use or came back since that was last told; in order, whatever the threads."""
        with self._telling:
            with self._guard:
                reason = self.reason
                if not self._wanted or (reason is not None) == self._was_down:
                    return
                self._was_down = reason is not None
            try:
                self.tell(reason)
            except Exception:
                _logger.exception("a callback for the state of the %s tier failed", self._kind)


def sentence(error: BaseException) -> str:
    """What an error says; a store's own words are a sentence already."""
    return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"


def _nobody(_reason: str | None) -> None:
    """Nobody asked to be told."""


def _nothing() -> None:
    """Nobody asked to be told."""
