"""The parts of one open store, handed around together because they live and die together."""

from dataclasses import dataclass

from genesis_cache.tiers.segments.data import Segments
from genesis_cache.tiers.segments.folder import Folder
from genesis_cache.tiers.segments.index import Index
from genesis_cache.tiers.segments.log import Log


@dataclass(frozen=True, slots=True)
class Parts:
    """What exists only while a store is open."""

    folder: Folder
    index: Index
    segments: Segments
    log: Log

    def close(self) -> None:
        """Let go of index, segments and log; the folder is the store's own."""
        self.index.close()
        self.segments.close()
        self.log.close()
