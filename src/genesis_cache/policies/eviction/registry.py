"""The eviction policies by the names that ``CACHE_EVICTION_POLICY`` takes."""

from genesis_cache.policies.eviction.adaptive import AdaptivePolicy
from genesis_cache.policies.eviction.base import Directory, EvictionPolicy
from genesis_cache.policies.eviction.lfu import LfuPolicy
from genesis_cache.policies.eviction.lru import LruPolicy
from genesis_cache.policies.eviction.s3fifo import S3FifoPolicy
from genesis_cache.policies.eviction.tinylfu import TinyLfuPolicy

POLICIES: dict[str, type[EvictionPolicy]] = {
    "ADAPTIVE": AdaptivePolicy,
    "LRU": LruPolicy,
    "LFU": LfuPolicy,
    "S3FIFO": S3FifoPolicy,
    "TINYLFU": TinyLfuPolicy,
}


def policy_class(name: str) -> type[EvictionPolicy]:
    """The policy of that name, in any case; `ValueError` names those there are."""
    try:
        return POLICIES[name.upper()]
    except KeyError:
        raise ValueError(f"there is no eviction policy {name!r}: use one of {', '.join(POLICIES)}") from None


def make_policy(name: str, directory: Directory, *, by_weight: bool) -> EvictionPolicy:
    """A new policy whose queues use that directory; ``by_weight`` where the limit is in bytes."""
    return policy_class(name)(directory, by_weight=by_weight)
