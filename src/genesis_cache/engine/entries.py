"""Entries made from values and records, and back: the one place where plans, times and weights meet."""

import random
from copy import deepcopy

from genesis_cache.engine.core import Core, MapKey, View
from genesis_cache.model.entry import CachePriority, Entry, Extra, Record
from genesis_cache.model.keys import Address
from genesis_cache.model.options import Plan
from genesis_cache.model.weigh import weigh
from genesis_cache.policies.freshness import FOREVER, quick_until, remaining
from genesis_cache.policies.xfetch import early_by

WEIGHT_UNIT_BYTES = 16


def lifetime(plan: Plan, value: object, *, loaded: bool) -> float | None:
    """Seconds of freshness for a value: the negative ttl for a loaded None, else the ttl less its jitter."""
    ttl = plan.ttl
    if loaded and value is None and plan.negative_ttl is not None:
        ttl = plan.negative_ttl
    return jittered(ttl, plan)


def jittered(ttl: float | None, plan: Plan) -> float | None:
    """The ttl less a random part of the plan's jitter."""
    if ttl is None or not plan.jitter:
        return ttl
    return ttl * (1.0 - plan.jitter * random.random())  # noqa: S311  # spreads expiries, protects nothing


def make_record(  # the parts of a record that its plan does not know
    address: Address, value: object, plan: Plan, ttl: float | None, wall: float, seq: int, epoch: int, cost: float = 0.0
) -> Record:
    """What the far tiers store of a value."""
    record = Record(address, value, wall, ttl, seq, epoch, plan.tags, plan.priority, plan.swr, plan.sie)
    record.refresh_ahead = plan.refresh_ahead
    record.version = plan.version
    record.cost = cost
    record.content_type = plan.content_type
    record.isolate = plan.isolate
    record.tiers = plan.tiers
    record.sensitive = plan.sensitive
    return record


def refresh_early(record: Record, plan: Plan) -> None:
    """Draw when the record is to be refreshed, by what its load took, where the plan says so."""
    if plan.early_refresh is None or record.ttl is None or record.ttl <= 0:
        return
    early_s = early_by(record.cost, plan.early_refresh, random.random(), record.ttl)  # noqa: S311  # protects nothing
    ahead = 1.0 - early_s / record.ttl
    record.refresh_ahead = ahead if record.refresh_ahead is None else min(ahead, record.refresh_ahead)


def near_entry(core: Core, view: View, key: MapKey, record: Record) -> Entry:
    """The entry that memory holds for a record, with the ttl it has left now."""
    now = core.clock.now()
    left = remaining(record, core.clock.wall())
    until = now + left
    extra = _extra(record, until, now, left)
    always_judge = record.sensitive or (core.memory is not None and core.memory.needs_touch)
    return Entry(
        key=key,
        value=deepcopy(record.value) if record.isolate else record.value,
        quick_until=quick_until(until, extra, always_judge=always_judge),
        until=until,
        ttl=record.ttl,
        epoch=None,  # its first hit judges it: a floor may have moved while it was made
        seq=record.seq,
        space=view.space.number,
        weight=1 + weigh(key, record.value) // WEIGHT_UNIT_BYTES,
        extra=extra,
    )


def _extra(record: Record, until: float, now: float, left: float) -> Extra | None:
    plain = (
        not record.tags
        and record.priority is CachePriority.NORMAL
        and not (record.swr or record.sie or record.isolate or record.sensitive)
        and record.ttl is not None
        and record.refresh_ahead is None
        and record.version is None
        and record.etag is None
        and record.last_modified is None
        and record.tiers is None
        and record.content_type is None
    )
    if plain:
        return None
    ahead = record.refresh_ahead
    refresh_at = FOREVER if ahead is None or record.ttl is None else until - record.ttl * (1.0 - ahead)
    born = now if record.ttl is None else now - (record.ttl - left)
    return Extra(
        tags=record.tags,
        priority=record.priority,
        swr_until=until + record.swr if record.swr else 0.0,
        sie_until=until + record.sie if record.sie else 0.0,
        refresh_at=refresh_at,
        born=born,
        version=record.version,
        etag=record.etag,
        last_modified=record.last_modified,
        cost=record.cost,
        content_type=record.content_type,
        isolate=record.isolate,
        sensitive=record.sensitive,
        tiers=record.tiers,
    )


def stored_record(core: Core, address: Address, entry: Entry) -> Record:
    """The record of an entry in memory, to be kept in a far tier."""
    now, wall = core.clock.now(), core.clock.wall()
    extra = entry.extra or Extra()
    ahead = None if not entry.ttl or extra.refresh_at == FOREVER else 1.0 - (entry.until - extra.refresh_at) / entry.ttl
    return Record(
        address=address,
        value=entry.value,
        created=wall - (age(entry, now) or 0.0),
        ttl=entry.ttl,
        seq=entry.seq,
        epoch=core.log_epoch,
        tags=extra.tags,
        priority=extra.priority,
        swr=max(0.0, extra.swr_until - entry.until) if extra.swr_until else 0.0,
        sie=max(0.0, extra.sie_until - entry.until) if extra.sie_until else 0.0,
        refresh_ahead=ahead,
        version=extra.version,
        etag=extra.etag,
        last_modified=extra.last_modified,
        cost=extra.cost,
        content_type=extra.content_type,
        isolate=extra.isolate,
        tiers=extra.tiers,
        sensitive=extra.sensitive,
    )


def age(entry: Entry, now: float) -> float | None:
    """Seconds since the value was made, where the entry can tell."""
    if entry.ttl is not None:
        return max(0.0, now - (entry.until - entry.ttl))
    return None if entry.extra is None else max(0.0, now - entry.extra.born)


def own_value(entry: Entry) -> object:
    """The value as a reader gets it: the shared object, or a copy where entries are isolated."""
    extra = entry.extra
    return deepcopy(entry.value) if extra is not None and extra.isolate else entry.value


def tags_of(entry: Entry) -> tuple[str, ...]:
    """The entry's tags."""
    return () if entry.extra is None else entry.extra.tags
