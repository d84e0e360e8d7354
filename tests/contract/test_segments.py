"""The segment store keeps the contract of stores."""

from pathlib import Path

from genesis_cache.model.clock import Clock
from genesis_cache.testing.store_words import version_of
from genesis_cache.testing.stores import StoreContract
from genesis_cache.tiers.base import Store
from genesis_cache.tiers.segments.store import SegmentStore


class TestSegments(StoreContract):
    """The disk tier's own engine."""

    factory = "genesis_cache.tiers.segments.store:SegmentStore"

    def make_store(self, path: Path, max_bytes: int, clock: Clock) -> Store:
        """A handle that reads versions out of these tests' envelopes."""
        return SegmentStore(path, max_bytes, clock, version_of)
