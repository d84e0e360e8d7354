"""Traces are read and replayed through the real memory tier, and what is wrong with one is said with its line."""

import gzip
import json
import lzma
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from genesis_cache.simulator.belady import belady_hits
from genesis_cache.simulator.replay import simulate
from genesis_cache.simulator.trace import TraceError, read_trace

SHIPPED = Path(__file__).parents[2] / "bench" / "traces"


def written(folder: Path, text: str, name: str = "trace.txt") -> Path:
    path = folder / name
    data = text.encode()
    packed: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress}
    path.write_bytes(packed.get(path.suffix, bytes)(data))
    return path


@pytest.mark.parametrize("name", ["trace.txt", "trace.gz", "trace.keys.xz"])
def test_a_trace_is_read_plain_or_compressed(tmp_path: Path, name: str) -> None:
    """The keys come in order; empty lines and comments are passed over."""
    trace = read_trace(written(tmp_path, "# made by hand\na\nb\n\na\n", name))
    assert (trace.keys, trace.sizes, trace.distinct) == (["a", "b", "a"], [], 2)


def test_sizes_are_read(tmp_path: Path) -> None:
    """A second word is the size in bytes."""
    trace = read_trace(written(tmp_path, "a 10\nb 2000\n"))
    assert (trace.keys, trace.sizes) == (["a", "b"], [10, 2000])


def test_only_as_many_as_wanted_are_read(tmp_path: Path) -> None:
    """A limit cuts the trace, and nothing behind it is looked at."""
    assert read_trace(written(tmp_path, "a\nb\nc d e\n"), limit=2).keys == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nb c d\n", r"line 2 is 'b c d': write 'key' or 'key size in bytes'"),
        ("a 1\nb many\n", r"line 2 is 'b many'"),
        ("a 1\nb -5\n", r"line 2 is 'b -5'"),
        ("a 1\n\nb\n", r"line 3 has no size"),
        ("a\nb\nc 7\n", r"line 3 has a size, lines before none"),
        ("", r"has no requests"),
        ("# nothing\n", r"has no requests"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    """The error tells the file, the line and what to write."""
    with pytest.raises(TraceError, match=said) as caught:
        read_trace(written(tmp_path, text))
    assert "trace.txt" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing, cut or falsely named file is an error that names it, not a traceback from a codec."""
    cut = tmp_path / "cut.xz"
    cut.write_bytes(lzma.compress(b"a\n" * 9999)[:-40])
    false = written(tmp_path, "a\n")
    false.rename(tmp_path / "false.gz")
    binary = tmp_path / "binary"
    binary.write_bytes(b"a\n\xff\xfe\n")
    for path in (tmp_path / "missing", cut, tmp_path / "false.gz", binary):
        with pytest.raises(TraceError, match=path.name):
            read_trace(path)


def best_hits(keys: list[str], capacity: int) -> int:
    """By trying every choice: the most hits that any policy with bypass can have."""
    states: dict[frozenset[str], int] = {frozenset(): 0}
    for key in keys:
        after: dict[frozenset[str], int] = {}
        for held, hits in states.items():
            if key in held:
                options = [(held, hits + 1)]
            else:
                ways = [held - {gone} for gone in held] if len(held) >= capacity else [held]
                options = [(held, hits), *((way | {key}, hits) for way in ways)]
            for state, count in options:
                after[state] = max(after.get(state, 0), count)
        states = after
    return max(states.values())


def test_belady_is_the_best_that_can_be() -> None:
    """On many small traces no sequence of choices has more hits, and one has as many."""
    for seed, capacity in product(range(60), (1, 2, 3)):
        keys = random.Random(seed).choices("abcde", k=14)
        assert belady_hits(keys, capacity) == best_hits(keys, capacity)


def test_the_result_is_json_as_documented(tmp_path: Path) -> None:
    """The figures of each policy stand under the documented names and survive JSON."""
    path = written(tmp_path, "a\nb\na\nc\nb\na\n")
    result = simulate(path, capacity=2, policies=["LRU", "opt"])
    assert json.loads(json.dumps(result)) == result
    assert (result["trace"], result["requests"]) == (str(path), 6)
    assert [set(row) for row in result["results"]] == [
        {"policy", "capacity", "hit_ratio", "ns_per_op", "prefetch_precision", "prefetch_issued"}
    ] * 2
    assert [(row["policy"], row["capacity"], row["hit_ratio"]) for row in result["results"]] == [
        ("LRU", 2, 1 / 6),
        ("OPT", 2, 3 / 6),
    ]
    assert all(row["ns_per_op"] > 0 for row in result["results"])
    assert all(row["prefetch_precision"] is None for row in result["results"])


def test_the_capacity_is_a_tenth_of_the_keys_if_nothing_is_said(tmp_path: Path) -> None:
    """At least 16, so that a small trace says something."""
    small, large = written(tmp_path, "a\n"), written(tmp_path, "".join(f"{key}\n" for key in range(500)), "large")
    assert [simulate(path)["results"][0]["capacity"] for path in (small, large)] == [16, 50]


def test_bytes_limit_a_trace_with_sizes(tmp_path: Path) -> None:
    """Where all fits each key misses once; in a small cache a scan of large objects misses more."""
    lines = [f"k{at % 10} 160" for at in range(100)]
    path = written(tmp_path, "\n".join(lines))
    roomy, tight = (simulate(path, max_bytes=size, policies=["LRU"])["results"][0] for size in (1600, 1440))
    assert (roomy["hit_ratio"], roomy["capacity"]) == (0.9, 1600)
    assert tight["hit_ratio"] == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"capacity": 0}, "capacity is 0"),
        ({"max_bytes": -1}, "max_bytes is -1"),
        ({"max_bytes": 100}, "has no sizes"),
        ({"policies": ["CLOCK"]}, "no eviction policy 'CLOCK'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    """Limits below 1, bytes without sizes and unknown policies are refused in a sentence."""
    with pytest.raises(ValueError, match=said):
        simulate(written(tmp_path, "a\nb\n"), **options)  # type: ignore[arg-type]  # wrong values are the point


def test_belady_is_not_told_for_bytes(tmp_path: Path) -> None:
    """A bound that is not one is refused."""
    with pytest.raises(ValueError, match="capacity in entries only"):
        simulate(written(tmp_path, "a 5\nb 5\n"), max_bytes=10, policies=["OPT"])


def test_progress_is_told(tmp_path: Path) -> None:
    """Somebody who waits hears how far it is, to the end."""
    told: list[tuple[str, int, int]] = []
    path = written(tmp_path, "".join(f"{at % 100}\n" for at in range(70_000)))
    simulate(path, policies=["lru"], progress=lambda *report: told.append(report))
    assert [report[0] for report in told] == ["LRU", "LRU"]
    assert told[-1][1:] == (70_000, 70_000)
    assert told[0][1] < 70_000


# Measured: 43.1, 58.3, 72.3, 80.4% (c2k-web12) and 75.8, 79.3, 80.8, 81.7% (domains) for ADAPTIVE.
@pytest.mark.parametrize(
    ("name", "share", "floor"),
    [("c2k-web12", 0.01, 0.42), ("c2k-web12", 0.1, 0.715), ("domains", 0.01, 0.75), ("domains", 0.1, 0.80)],
)
def test_adaptive_keeps_its_hit_ratio_on_real_requests(name: str, share: float, floor: float) -> None:
    """On recorded requests the default policy does not fall below what it is known to reach, nor below LRU."""
    path = SHIPPED / f"{name}.keys.xz"
    capacity = read_trace(path).share(share)
    adaptive, lru = simulate(path, capacity=capacity, policies=["ADAPTIVE", "LRU"])["results"]
    assert adaptive["hit_ratio"] >= floor
    assert adaptive["hit_ratio"] > lru["hit_ratio"]
