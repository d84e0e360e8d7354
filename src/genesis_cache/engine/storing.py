"""Storing what a load brought: what the loader said about it, what the plan says, and then every tier."""

import time
from collections.abc import Sequence

from genesis_cache.coherence.fills import Token
from genesis_cache.engine.core import Core, View
from genesis_cache.engine.entries import jittered, lifetime, make_record, near_entry, own_value, refresh_early
from genesis_cache.engine.loading import Load, LoadContext, Loaded, Loader, context_tags
from genesis_cache.engine.writing import Writing
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.errors import LoaderTimeout
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import MISSING
from genesis_cache.model.options import Plan


class Storing:
    """The last steps of a load."""

    def __init__(self, core: Core, writing: Writing) -> None:
        self._core = core
        self._writing = writing
        self.position = writing.position

    async def load(
        self, loader: Loader, view: View, load: Load, stale: Entry | None, answers: tuple[type[Exception], ...] = ()
    ) -> Loaded:
        """Run the loader; counted and timed whatever comes of it.

        ``answers``: errors that say nothing against the health of the source.
        """
        core, meter, origin = self._core, view.space.meter, view.space.gate.origin
        extra = None if stale is None else stale.extra
        context = LoadContext(
            MISSING if stale is None else own_value(stale),
            None if extra is None else extra.etag,
            None if extra is None else extra.last_modified,
        )
        started = time.perf_counter()
        meter.loads += 1
        try:
            value = await loader.run(load, context)
        except LoaderTimeout:
            meter.load_errors += 1
            core.load_results["timeout"] += 1
            origin.add(0.0, failed=True)
            raise
        except Exception as error:
            meter.load_errors += 1
            core.load_results["error"] += 1
            origin.add(time.perf_counter() - started, failed=not isinstance(error, answers))
            raise
        cost = time.perf_counter() - started
        origin.add(cost, failed=False)
        core.load_results["ok"] += 1
        core.load_latency.add(cost)
        if core.events.wants("load"):
            core.events.emit("load", namespace=view.space.name, seconds=cost)
        return Loaded(value, cost, context)

    async def keep(
        self,
        view: View,
        address: Address,
        plan: Plan,
        loaded: Loaded,
        stale: Entry | None,
        token: Token,
        since: Sequence[int],
        seq: int,
    ) -> Entry:
        """Store the value as plan and loader want it; the entry that its callers are served from."""
        core, context = self._core, loaded.context
        ttl = lifetime(plan, loaded.value, loaded=True)
        if context is not None:
            view.space.meter.not_modified += context.unchanged
            if context.ttl is not MISSING:
                ttl = jittered(context.ttl, plan)
        record = make_record(address, loaded.value, plan, ttl, core.clock.wall(), seq, core.log_epoch, loaded.cost_s)
        if context is not None:
            self._heed(record_context=context, record=record, stale=stale)
        refresh_early(record, plan)
        unwanted = ttl is not None and ttl <= 0
        skipped = context is not None and context.skipped
        if unwanted or skipped or (plan.cache_if is not None and not plan.cache_if(loaded.value)):
            return near_entry(core, view, view.map_key(address.key), record)
        return await self._writing.fill(view, record, plan, token, since)

    @staticmethod
    def _heed(record_context: LoadContext, record: Record, stale: Entry | None) -> None:
        """Take over what the loader said: tags, etag, last-modified; an unchanged value keeps its old ones."""
        added = context_tags(record_context)
        if added:
            record.tags = tuple(dict.fromkeys((*record.tags, *added)))
        if record_context.unchanged and stale is not None and stale.extra is not None:
            record.cost = max(record.cost, stale.extra.cost)  # to ask is cheaper than to load
            record.tags = tuple(dict.fromkeys((*record.tags, *stale.extra.tags)))
        old = None if stale is None else stale.extra
        if record_context.unchanged or old is None or record_context.etag != old.etag:
            record.etag = record_context.etag
        if record_context.unchanged or old is None or record_context.last_modified != old.last_modified:
            record.last_modified = record_context.last_modified
