"""OPT, the best that a cache can do that fetches nothing before it is asked for.

L. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5 (1966), with
bypass: what is asked for again later than everything held is not taken in.
"""

from collections.abc import Sequence
from heapq import heappush, heapreplace


def belady_hits(keys: Sequence[str], capacity: int) -> int:
    """Hits of a cache of so many entries that knows the future."""
    coming = _next_uses(keys)
    held: dict[str, int] = {}  # key to its next use
    farthest: list[tuple[int, str]] = []  # (-next use, key); void where `held` says otherwise
    hits = 0
    for key, then in zip(keys, coming, strict=True):
        if key in held:
            hits += 1
            held[key] = then
            heappush(farthest, (-then, key))
        elif len(held) < capacity:
            held[key] = then
            heappush(farthest, (-then, key))
        elif then < len(keys):
            _make_way(key, then, held, farthest)
    return hits


def _make_way(key: str, then: int, held: dict[str, int], farthest: list[tuple[int, str]]) -> None:
    """Take a key in for the one that is asked for last, unless that is the key itself."""
    # A hit pushes a later use, so records of earlier ones are void; they lie at the end of the heap.
    while held.get(farthest[0][1]) != -farthest[0][0]:
        heapreplace(farthest, (0, ""))
    later, victim = farthest[0]
    if -later > then:
        del held[victim]
        held[key] = then
        heapreplace(farthest, (-then, key))


def _next_uses(keys: Sequence[str]) -> list[int]:
    """For each request the index of the next one for the same key, the number of requests if there is none."""
    uses = [len(keys)] * len(keys)
    seen: dict[str, int] = {}
    for at in range(len(keys) - 1, -1, -1):
        uses[at] = seen.get(keys[at], len(keys))
        seen[keys[at]] = at
    return uses
