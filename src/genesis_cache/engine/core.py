"""What all roads share: the tiers in order, the floors, the namespaces, the clock and the figures.

`Core` holds state and decides nothing. `Space` is one namespace, `View` one way of looking at it (a namespace for one
owner or for none), `Lane` one far tier with its figures and what is still owed to it.
"""

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from genesis_cache.codecs.codec import Codec
from genesis_cache.codecs.seal import keyring_of
from genesis_cache.coherence.fills import Fills
from genesis_cache.coherence.floors import Floors, Reach, reach_of
from genesis_cache.coherence.spreading import spread_of
from genesis_cache.engine.flight import Flight
from genesis_cache.engine.gate import Gate
from genesis_cache.engine.logs import EventLog
from genesis_cache.model.clock import Clock
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.errors import CacheClosed
from genesis_cache.model.events import EventHub
from genesis_cache.model.keys import Address, Scope, address_of, scope_of
from genesis_cache.model.meter import Latency, LayerMeter, SpaceMeter
from genesis_cache.model.notice import Notice
from genesis_cache.model.options import EntryOptions, Plan, plan_of, resolve
from genesis_cache.model.propagation import Propagation
from genesis_cache.model.settings import TIERS, CacheSettings
from genesis_cache.policies.freshness import let_expire
from genesis_cache.tiers.base import Answer, Buffer, Change, Keeper, Kill, Put, Remove, Tier
from genesis_cache.tiers.memory import MemoryTier

MapKey = str | tuple[str, str]

NO_OPTIONS = EntryOptions()
REMEMBERED_ADDRESSES = 4096  # of a view: about a megabyte


class Lane:
    """A far tier: where it stands, what it did, and what it has not been told yet.

    While something is owed, the tier's own past is not believed: reads of it are misses until the debt is paid. While
    changes are on their way to it behind their callers, reads of their keys are answered from the changes.
    """

    __slots__ = (
        "_debtors", "_killed", "_wall", "_way", "floor", "get", "kills", "label", "meter", "reads", "removes", "tier",
    )  # fmt: skip

    def __init__(self, label: str, tier: Tier, wall: Callable[[], float], debtors: "set[Lane]") -> None:
        self.label = label
        self.tier = tier
        self._debtors = debtors
        self._wall = wall
        self._way: dict[bytes, Change] = {}
        self.meter = LayerMeter()
        self.reads = 0
        self.floor = 0
        """Records below this sequence are not believed: nobody may have heard what became of their keys."""
        self.removes: dict[bytes, Remove] = {}
        self.kills: list[Kill] = []
        self._killed = Floors()
        """What the kills that are owed name, whenever it was made."""
        self.get: Callable[[Address], Buffer | Awaitable[Answer] | None] = tier.get
        """The stored envelope, as `Tier.get` gives it; nothing while the tier is owed something."""

    @property
    def owed(self) -> int:
        """How many changes the tier still has to be told."""
        return len(self.removes) + len(self.kills)

    @property
    def queued(self) -> int:
        """How many changes are on their way to the tier behind their callers."""
        return len(self._way)

    def owe(self, changes: Sequence[Change]) -> None:
        """Remember what the tier could not be told; a value that was not written is owed as a removal of the old."""
        for change in changes:
            if isinstance(change, Kill):
                self._owe_kill(change)
            else:
                self.removes[change.address.digest] = Remove(change.address)
        self._route()

    def _owe_kill(self, kill: Kill) -> None:
        self.kills.append(kill)
        self._killed.apply(msgspec.structs.replace(kill.notice, seq=1))

    def is_owed(self, reach: Reach, address: Address, tags: tuple[str, ...]) -> bool:
        """Whether the tier is still owed what removes or kills such an entry."""
        return address.digest in self.removes or bool(self._killed.killer(reach, address.key, tags, 0))

    def paid(self, kills: int, removes: Mapping[bytes, Remove]) -> None:
        """The tier was told its first so many kills and these removals; what came meanwhile is still owed."""
        left, self.kills, self._killed = self.kills[kills:], [], Floors()
        for kill in left:
            self._owe_kill(kill)
        self.removes = {digest: remove for digest, remove in self.removes.items() if removes.get(digest) is not remove}
        self._route()

    def forgive(self) -> None:
        """Forget what is owed, because something that covers it will be."""
        self.kills, self.removes, self._killed = [], {}, Floors()
        self._route()

    def send(self, changes: Sequence[Change]) -> None:
        """Changes are on their way to the tier; their callers read them from now on."""
        self._way |= {change.address.digest: change for change in changes if not isinstance(change, Kill)}
        self._route()

    def arrived(self, changes: Sequence[Change]) -> None:
        """What was sent is there, or owed."""
        for change in changes:
            if not isinstance(change, Kill) and self._way.get(change.address.digest) is change:
                del self._way[change.address.digest]
        self._route()

    def forget(self) -> None:
        """In a forked child: what is on its way is the parent's to send, and nobody would tell when it is there."""
        self._way = {}
        self._route()

    def through(self, tier: Tier) -> None:
        """Ask the tier through another that stands for it."""
        self.tier = tier
        self._route()

    async def get_many(self, addresses: Sequence[Address]) -> Sequence[Answer]:
        """As `Tier.get_many`, with what is on its way."""
        if not self._way:
            return await self.tier.get_many(addresses)
        rest = iter(await self.tier.get_many([address for address in addresses if address.digest not in self._way]))
        return [self._on_way(address) if address.digest in self._way else next(rest) for address in addresses]

    def _route(self) -> None:
        if self.owed:
            self._debtors.add(self)
        else:
            self._debtors.discard(self)
        self.get = _nothing if self.owed else self._first_on_way if self._way else self.tier.get

    def _first_on_way(self, address: Address) -> Buffer | Awaitable[Answer] | None:
        return self._on_way(address) if address.digest in self._way else self.tier.get(address)

    def _on_way(self, address: Address) -> Buffer | None:
        change = self._way[address.digest]
        return change.envelope if isinstance(change, Put) and self._wall() < change.gone_at else None

    def seq(self) -> int:
        """The last sequence of the tier's own log; 0 while it cannot be told."""
        return self.tier.seq()


def _nothing(_: Address) -> None:
    return None


class Space:
    """One namespace: its tables in memory, its defaults, its figures and its loads under way."""

    __slots__ = ("defaults", "flights", "gate", "hung", "meter", "name", "number", "owned", "table")

    def __init__(self, name: str, memory: MemoryTier | None, defaults: EntryOptions, max_loads: int) -> None:
        self.name = name
        self.number = memory.space(name) if memory is not None else 0
        self.table: dict[MapKey, Entry] = memory.table(self.number) if memory is not None else {}
        self.owned: dict[MapKey, Entry] = memory.owned_table(self.number) if memory is not None else {}
        self.defaults = defaults
        self.meter = SpaceMeter()
        self.flights: dict[MapKey, Flight] = {}
        self.hung: dict[MapKey, list[Flight]] = {}
        """Loads that go on though their key was given to others; the oldest first."""
        self.gate = Gate(max_loads)

    def drop(self, key: MapKey, flight: Flight) -> bool:
        """Free a key of this flight, and of no other; whether it had it."""
        # No call between look and removal: there another thread could have its turn, and give the key to another load.
        flights = self.flights
        if key in flights and flights[key] is flight:
            del flights[key]
            return True
        return False

    def give_up(self, key: MapKey, flight: Flight) -> bool:
        """Let others load a key while this flight goes on; whether it still had the key."""
        if not self.drop(key, flight):
            return False
        self.hung.setdefault(key, []).append(flight)
        return True

    def changed(self, key: MapKey) -> None:
        """The key was changed: nobody joins a load that began before, and no old value serves whoever waits for one."""
        flight = self.flights.pop(key, None)
        for outdated in (*self.hung.get(key, ()), *(() if flight is None else (flight,))):
            outdated.is_outdated = True

    def outrun(self, key: MapKey, flight: Flight) -> None:
        """A load has brought a value: what began before it and has not ended yet would bring an older one."""
        for other in self.hung.get(key, ()):
            if other is flight:
                return  # those behind it began later
            other.outrun = True

    def free(self, key: MapKey, flight: Flight) -> None:
        """The flight is over: the key is for others to load."""
        self.drop(key, flight)
        if (hung := self.hung.get(key)) is not None and flight in hung:
            hung.remove(flight)
            if not hung:
                self.hung.pop(key, None)


class View:
    """A namespace as one owner, or nobody in particular, sees it."""

    __slots__ = ("_addresses", "defaults", "lookup", "owner", "reach", "scope", "sealed", "space")

    def __init__(self, space: Space, scope: Scope, defaults: EntryOptions, *, sealed: bool = False) -> None:
        self.space = space
        self.scope = scope
        self.owner = scope.owner
        self.reach: Reach = reach_of(space.name, scope.owner)
        self.defaults = defaults
        self.sealed = sealed
        """Whether what far tiers hold of it is sealed: a value that is not is somebody else's."""
        self._addresses: dict[str, Address] = {}
        self.lookup: Callable[[str], Entry | None] = space.table.get if scope.owner is None else self._owned_lookup

    def _owned_lookup(self, key: str) -> Entry | None:
        return self.space.owned.get((self.owner or "", key))

    def address(self, key: str) -> Address:
        """The key's address, remembered for a while, because its digest costs as much as reading a small value."""
        address = self._addresses.get(key)
        if address is None:
            address = address_of(self.scope, key)
            if len(self._addresses) >= REMEMBERED_ADDRESSES:
                self._addresses.clear()
            self._addresses[key] = address
        return address

    def map_key(self, key: str) -> MapKey:
        """The key as memory and the tables of loads know it."""
        return key if self.owner is None else (self.owner, key)


class Core:
    """One cache's state, shared by all its views."""

    def __init__(
        self, settings: CacheSettings, clock: Clock, memory: MemoryTier | None, far: Sequence[Tier], near_position: int
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.memory = memory
        labels = [f"l{n}" for n in range(1, len(far) + 2)]
        self.near_label = labels.pop(near_position) if memory is not None else ""
        self.debtors: set[Lane] = set()
        """The tiers that are owed something."""
        self.lanes = tuple(
            Lane(label, tier, clock.wall, self.debtors) for label, tier in zip(labels, far, strict=False)
        )
        self.far_kinds = tuple(lane.tier.kind for lane in self.lanes)
        self.authority = _authority(self.lanes)
        self.keepers = tuple(
            lane for lane in self.lanes if lane is not self.authority and isinstance(lane.tier, Keeper)
        )
        """Tiers that are told of every kill besides the log: their values outlive it."""
        self.near_meter = memory.meter if memory is not None else LayerMeter()
        self.codec = Codec(compression=settings.cache_compression, keyring=keyring_of(settings.cache_encryption_keys))
        self.floors = Floors()
        self.fills = Fills()
        self.events = EventHub()
        self.log = EventLog(settings.cache_language)
        self.lock = threading.RLock()
        self.spaces: dict[str, Space] = {}
        self.names: dict[int, str] = {}
        self._reaches: dict[tuple[int, str | None], Reach] = {}
        self.log_epoch = 0
        self.loads_abandoned = 0
        self.latency = Latency()
        self.load_latency = Latency()
        self.load_results: dict[str, int] = {"ok": 0, "error": 0, "timeout": 0}
        self.dropped_callbacks = 0
        self.is_cut_off = False
        """Whether it is too long ago that this process was seen to hear of the others' changes."""
        self.is_deaf = False
        """The same, where nothing that was held may be used meanwhile."""
        self.is_quiet = False
        """Whether the log keeps back changes that it had taken; then this process counts as cut off."""
        self.propagation = Propagation()
        self.opened = False
        self.closed = False

    def space(self, name: str, defaults: EntryOptions | None = None, max_loads: int | None = None) -> Space:
        """The namespace of that name, made at its first mention."""
        with self.lock:
            space = self.spaces.get(name)
            if space is None:
                limit = max_loads if max_loads is not None else self.settings.cache_max_loads
                space = Space(name, self.memory, defaults or EntryOptions(), limit)
                self.spaces[name] = space
                self.names[space.number] = name
            elif max_loads is not None:
                space.gate.limit = max_loads
            return space

    def slow_down(self, namespace: str) -> None:
        """A namespace and those inside it have lost everything: their loads begin one after the other."""
        for space in list(self.spaces.values()):
            if not namespace or space.name == namespace or space.name.startswith(f"{namespace}/"):
                space.gate.slow_down()

    def view(self, name: str, owner: str | None, defaults: EntryOptions) -> View:
        """A view of a namespace; `InvalidKey` where a name cannot be one."""
        scope = scope_of(self.settings.cache_name, name, owner)
        sealed = defaults.sensitive is True and self.codec.can_seal
        return View(self.space(name), scope, defaults, sealed=sealed)

    def plan(self, view: View, options: EntryOptions) -> Plan:
        """The options of a call with all defaults filled in: content type, then namespace, then cache."""
        return _known_tiers(resolve(options, view.defaults, self.settings))

    def plan_of(self, view: View, options: Mapping[str, object]) -> Plan:
        """The same for a call's keyword arguments; TypeError or ValueError for what is no option or no value of one."""
        if not options:
            return resolve(NO_OPTIONS, view.defaults, self.settings)
        return _known_tiers(plan_of(options, view.defaults, self.settings))

    def envelope(self, record: Record) -> bytes:
        """What far tiers store of a record: with no sequence that the log has not given. `SerializationError`."""
        given = self.floors.given
        if record.seq > given:
            record = msgspec.structs.replace(record, seq=given)
        return self.codec.encode(record)

    def is_owed(self, reach: Reach, record: Record) -> bool:
        """Whether a tier is still owed what kills this value: others may have brought it up from there."""
        return any(lane.is_owed(reach, record.address, record.tags) for lane in self.debtors)

    def take_in(self, notice: Notice, given_after: float | None = None) -> None:
        """Make a notice effective here: now, or by its deadline where it spreads.

        It was given after that monotonic second (None: now), from which its time counts, so that it is over too early
        rather than too late.
        """
        if spread_of(notice) is None:
            self.floors.apply(notice)
        else:
            self.floors.spread(notice, self.clock.now() if given_after is None else given_after)

    def is_reached(self, view: View, entry: Entry) -> bool:
        """Whether an order that spreads has reached an entry: it may be served, but is no answer to a load."""
        spreads = self.floors.spreads
        return (
            bool(spreads) and entry.extra is not None and bool(spreads.cover(view.reach, entry.extra.tags, entry.seq))
        )

    def require_open(self) -> None:
        """`CacheClosed` on a cache that was closed."""
        if self.closed:
            msg = "this cache was closed: open() it again, or make a new one"
            raise CacheClosed(msg)

    def namespace_of(self, entry: Entry) -> str:
        """The namespace of an entry in memory, where owned entries stand in a table beside the others'."""
        return self.names[entry.space & ~1]

    def living(self, entry: Entry) -> bool:
        """Whether no floor kills an entry in memory; what lives is marked as judged at this epoch."""
        key = entry.key
        owner, plain = key if isinstance(key, tuple) else (None, key)
        reach = self._reaches.get((entry.space, owner))
        if reach is None:
            reach = reach_of(self.namespace_of(entry), owner)
            if owner is None:
                self._reaches[entry.space, owner] = reach
        epoch = self.floors.epoch
        tags = () if entry.extra is None else entry.extra.tags
        if self.floors.killer(reach, plain, tags, entry.seq, entry.epoch):
            return False
        if self.floors.spreads and tags and (spread := self.floors.spreads.cover(reach, tags, entry.seq)):
            let_expire(entry, spread.due(key, is_popular=entry.mark), spread.ends)
        entry.epoch = epoch
        return True


def _authority(lanes: Sequence[Lane]) -> Lane | None:
    """The tier whose log counts: that of the most processes, so Redis, then a shared database, then the last."""
    shared = [lane for lane in lanes if lane.tier.is_shared]
    by_redis = [lane for lane in shared if lane.tier.kind == "redis"]
    return next(iter(by_redis or shared or lanes[-1:]), None)


def _known_tiers(plan: Plan) -> Plan:
    if plan.tiers is not None and (unknown := plan.tiers.difference(TIERS)):
        msg = f"tiers names {', '.join(sorted(unknown))}: the tiers are {', '.join(TIERS)}"
        raise ValueError(msg)
    return plan
