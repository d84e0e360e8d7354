"""Hit ratios on recorded traces, from `bench/hit_ratio.py`: our policies beside the peers and a Caffeine-like one."""

import os
from pathlib import Path
from statistics import mean

from bench import hit_ratio
from bench.report import Section, Table, Verdict

from genesis_cache.simulator.trace import Trace

OURS = "ADAPTIVE"
RECENCY = "LRU"
LEAST_LEAD = 0.8  # points above each other online policy, on average
MOST_BEHIND = 1.0  # points a trace's average may lie below LRU
QUICK = 3_000  # requests
FOLDER = "BENCH_TRACES"  # environment variable: a folder of traces instead of the shipped ones


def section(*, quick: bool) -> Section:
    """A column for each trace: the mean over the capacities; the last one is the mean of all."""
    folder = Path(os.environ.get(FOLDER) or hit_ratio.SHIPPED)
    players = hit_ratio.players([OURS, RECENCY, hit_ratio.OPT] if quick else [])
    ratios: dict[str, dict[str, float]] = {name: {} for name in players}
    for whole in hit_ratio.traces(folder, []):
        trace = Trace(whole.name, whole.keys[:QUICK], whole.sizes[:QUICK]) if quick else whole
        sizes = hit_ratio.capacities(trace)
        for name, play in players.items():
            ratios[name][trace.name.split(".")[0]] = 100 * mean(play(trace, size) for size in sizes)
    traces = list(ratios[OURS])
    means = {name: mean(row.values()) for name, row in ratios.items()}
    rows = [[name, *(f"{ratios[name][trace]:.2f}" for trace in traces), f"{means[name]:.2f}"] for name in players]
    return Section(
        "Hit ratio",
        "The first 1,000,000 requests of each trace through the real memory tier, at 1, 3, 10 and 30 % of its "
        f"different keys; the mean of the four, in percent. The traces are {_origin(folder)}. OPT knows the future.",
        [Table("", ["policy", *traces, "mean"], rows)],
        _verdicts(means, {trace: ratios[OURS][trace] - ratios[RECENCY][trace] for trace in traces}),
    )


def _verdicts(means: dict[str, float], above_lru: dict[str, float]) -> list[Verdict]:
    others = {name: value for name, value in means.items() if name not in {hit_ratio.OPT, *hit_ratio.POLICIES}}
    verdicts = []
    if others:
        best = max(others, key=lambda name: others[name])
        lead = means[OURS] - others[best]
        wanted = f"{LEAST_LEAD} points above Caffeine-like and every peer"
        verdicts.append(Verdict("hit ratio of ADAPTIVE", wanted, f"{lead:+.2f} over {best}", lead >= LEAST_LEAD))
    worst = min(above_lru, key=lambda trace: above_lru[trace])
    told = f"{above_lru[worst]:+.2f} on {worst}"
    wanted = f"no trace more than {MOST_BEHIND:g} point below LRU"
    return [*verdicts, Verdict("hit ratio of ADAPTIVE", wanted, told, above_lru[worst] >= -MOST_BEHIND)]


def _origin(folder: Path) -> str:
    return "those that are shipped" if folder == hit_ratio.SHIPPED else "a folder of one's own"
