"""Moving entries between tiers by their use: up what is read below and fits, down what nobody reads above."""

from genesis_cache.codecs.envelope import named
from genesis_cache.engine.core import Core, View
from genesis_cache.engine.engine import Engine
from genesis_cache.engine.entries import WEIGHT_UNIT_BYTES
from genesis_cache.insight.advice import recommendations
from genesis_cache.insight.analytics import analytics
from genesis_cache.model.entry import CachePriority, Entry
from genesis_cache.model.keys import address_of
from genesis_cache.model.outcome import Move, OptimizationReport
from genesis_cache.policies.freshness import remaining
from genesis_cache.tiers.base import Late

LOOKED_AT = 2_000  # stored entries and memory entries, at most, in one run
KEEP_FREE = 0.1  # share of memory's capacity that promotions leave free
CROWDED = 0.75  # share of memory's capacity from which unread entries are moved down


async def optimize(engine: Engine, *, dry_run: bool) -> OptimizationReport:
    """One round of moves; with ``dry_run`` only what would be done."""
    core = engine.core
    engine.hearing.listen()
    demotions = await _down(engine, dry_run=dry_run)
    promotions = await _up(engine, dry_run=dry_run)
    return OptimizationReport(
        applied=not dry_run,
        promoted=len(promotions),
        demoted=len(demotions),
        moves=tuple(promotions + demotions),
        recommendations=tuple(recommendations(analytics(core))),
    )


def _room(core: Core) -> float:
    """Share of memory's capacity in use, by the tighter of its limits."""
    memory = core.memory
    if memory is None:
        return 1.0
    stats = memory.stats()
    by_bytes = stats.size_bytes / memory.max_bytes if memory.max_bytes else 0.0
    by_entries = stats.entries / memory.max_entries if memory.max_entries else 0.0
    return max(by_bytes, by_entries)


async def _up(engine: Engine, *, dry_run: bool) -> list[Move]:
    core = engine.core
    moves: list[Move] = []
    moved: set[bytes] = set()  # where several tiers hold a key, it comes from the nearest
    for lane in core.lanes:
        for found in await lane.tier.scan(LOOKED_AT):
            if _room(core) > 1.0 - KEEP_FREE:
                return moves
            view_key = _named_view(core, found.envelope) if found.used else None
            if view_key is None:
                continue
            view, key = view_key
            digest = address_of(view.scope, key).digest
            if core.memory is None or digest in moved or core.memory.get(view.space.number, view.map_key(key)):
                continue
            if not await _promote(engine, view, key, found.envelope, dry_run=dry_run):
                continue
            moved.add(digest)
            why = f"read in {lane.label} since it was written, and {core.near_label} has room"
            moves.append(Move(key=key, source=lane.label, target=core.near_label, why=why))
    return moves


def _named_view(core: Core, envelope: bytes) -> tuple[View, str] | None:
    names = named(envelope)
    if names is None or names[0] != core.settings.cache_name:
        return None
    _, namespace, owner, key = names
    space = core.space(namespace)
    return core.view(namespace, owner, space.defaults), key


async def _promote(engine: Engine, view: View, key: str, envelope: bytes, *, dry_run: bool) -> bool:
    core = engine.core
    record = core.codec.decode(envelope, address_of(view.scope, key))
    if record is None or record.epoch != core.log_epoch or remaining(record, core.clock.wall()) <= 0:
        return False
    if record.priority is CachePriority.LOW or core.floors.killer(view.reach, key, record.tags, record.seq):
        return False
    if not dry_run:
        token = core.fills.begin(core.floors.given)
        try:
            engine.writing.promote(view, record, token)
        finally:
            core.fills.end()
    return True


async def _down(engine: Engine, *, dry_run: bool) -> list[Move]:
    core = engine.core
    if core.memory is None or not core.lanes or _room(core) < CROWDED:
        return []
    moves: list[Move] = []
    lane = core.lanes[0]
    for entry in _unread(core):
        owner, key = entry.key if isinstance(entry.key, tuple) else (None, entry.key)
        space = core.space(core.namespace_of(entry))
        view = core.view(space.name, owner, space.defaults)
        answer = lane.get(address_of(view.scope, key))
        held = answer if answer is None or isinstance(answer, bytes | memoryview) else await answer
        if held is None or isinstance(held, Late):
            continue
        if not dry_run:
            core.memory.drop(entry, "demoted")
        why = f"not read since it came ({entry.weight * WEIGHT_UNIT_BYTES} bytes), and {lane.label} holds it"
        moves.append(Move(key=key, source=core.near_label, target=lane.label, why=why))
    return moves


def _unread(core: Core) -> list[Entry]:
    if core.memory is None:
        return []
    unread: list[Entry] = []
    for n, entry in enumerate(core.memory.items()):
        if n >= LOOKED_AT:
            break
        if not entry.mark and (entry.extra is None or entry.extra.priority < CachePriority.HIGH):
            unread.append(entry)
    return unread
