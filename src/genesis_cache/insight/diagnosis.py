"""An examination of a whole cache: each far tier by itself, memory against the machine, what is heard."""

import asyncio
from itertools import chain

from genesis_cache.engine.core import Core, Lane
from genesis_cache.engine.engine import Engine
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.settings import BYTES_PER_MB
from genesis_cache.model.urls import caution
from genesis_cache.tiers.machine import memory_bytes

MUCH = 0.5  # share of the machine's memory from which the cache crowds the rest
TOO_MUCH = 0.9

PATIENCE = 2.0  # times the longest call: a tier that is asked several things may take it more than once


async def diagnose(engine: Engine) -> list[Finding]:
    """Every finding, in look-up order; tiers are asked at the same time, and one that does not answer is a finding."""
    core = engine.core
    near = [] if core.memory is None else [memory_finding(core.memory.max_bytes, memory_bytes())]
    far = await asyncio.gather(*(_lane(lane, core.settings.redis_socket_timeout * PATIENCE) for lane in core.lanes))
    engine.hearing.listen()
    return [*near, *_cautions(core), *chain.from_iterable(far), *_hearing(core)]


def _cautions(core: Core) -> list[Finding]:
    """What the servers' URLs allow and their owner should know."""
    said = {"redis": core.settings.redis_url, "database": core.settings.database_url}
    told = [(kind, caution(url)) for kind, url in said.items() if url and kind in core.far_kinds]
    fix = "leave the parameter out, and give the authority's certificate by ssl_ca_certs"
    return [Finding(f"{kind}: TLS", Severity.ADVICE, sentence, fix) for kind, sentence in told if sentence]


def _hearing(core: Core) -> list[Finding]:
    """Whether this process is told what others change, where there may be others."""
    if core.authority is None or not core.authority.tier.is_shared:
        return []
    subject, kind = "coherence: hearing", core.authority.tier.kind
    if not core.is_cut_off:
        return [Finding(subject, Severity.OK, f"what other processes change is heard from the {kind} tier")]
    told = f"what other processes change has not been heard for {core.settings.cache_max_staleness:g} s or more"
    fix = f"see what is said of the {kind} tier; CACHE_ON_PARTITION says what is served meanwhile"
    return [Finding(subject, Severity.FAULT, told, fix)]


async def _lane(lane: Lane, patience_s: float) -> list[Finding]:
    kind = lane.tier.kind
    try:
        async with asyncio.timeout(patience_s):
            findings = await lane.tier.diagnose()
    except TimeoutError:
        told = f"the {kind} tier did not answer within {patience_s:g} s"
        fix = "see whether its server, its disk or the network hangs"
        findings = [Finding(f"{kind}: answer", Severity.FAULT, told, fix)]
    if lane.owed:
        told = f"{lane.owed:,} changes are still owed to the {kind} tier"
        fix = "nothing: they are told again by themselves once the tier takes changes"
        findings.append(Finding(f"{kind}: owed", Severity.ADVICE, told, fix))
    return findings


def memory_finding(limit_bytes: int | None, machine_bytes: int | None) -> Finding:
    """What the memory tier may take of what there is."""
    subject = "memory: capacity"
    if limit_bytes is None:
        return Finding(subject, Severity.ADVICE, "bounded by entries only, not by bytes", "give it a size in MB too")
    told = f"{limit_bytes / BYTES_PER_MB:,.0f} MB"
    if machine_bytes is None:
        return Finding(subject, Severity.OK, f"{told}; this system does not tell how much there is")
    share = limit_bytes / machine_bytes
    told += f", {share:.1%} of the {machine_bytes / BYTES_PER_MB:,.0f} MB that this process may use"
    fix = "lower the memory tier's size (L1_CACHE_SIZE_MB where it is the first), and count it once for each process"
    if share > TOO_MUCH:
        return Finding(subject, Severity.FAULT, f"{told}: the process will be ended before the tier is full", fix)
    return Finding(subject, Severity.ADVICE if share > MUCH else Severity.OK, told, fix if share > MUCH else "")
