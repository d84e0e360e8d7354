"""What an operator is told of an embedded tier: real stores in real folders, and places that a test cannot make."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.tiers.base import StoreStats
from genesis_cache.tiers.build import disk_tier
from genesis_cache.tiers.embedded import StoreTier
from genesis_cache.tiers.embedded_diagnosis import Place, judge
from genesis_cache.tiers.machine import Volume
from genesis_cache.tiers.sqlite import SqliteStore

MB = 2**20
SOUND = Place(Path("cache"), 0o700, True, True, Volume("ext4", 10_000 * MB), 1_800_000_000.0)
STATS = StoreStats(entries=3, size_bytes=MB, capacity_bytes=100 * MB)


def of(findings: list[Finding], subject: str) -> Finding:
    """The one finding about a subject."""
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def judged(place: Place = SOUND, stats: StoreStats = STATS, wall_s: float = 1_800_000_000.0) -> list[Finding]:
    """The findings about a disk tier."""
    return judge("disk", stats, place, wall_s)


async def test_a_sound_disk_tier_has_nothing_to_complain_of(tmp_path: Path) -> None:
    """Of a fresh folder of one's own nothing is a fault, and what was looked at is named."""
    tier = disk_tier(tmp_path / "cache", 64 * MB, SystemClock())
    await tier.open()
    try:
        findings = await tier.diagnose()
    finally:
        await tier.close()
    assert [finding for finding in findings if finding.severity is Severity.FAULT] == []
    assert "64.0 MB" in of(findings, "disk: size").sentence
    assert str(tmp_path / "cache") in of(findings, "disk: permissions").sentence


async def test_a_file_that_others_can_read_is_advised_on(tmp_path: Path) -> None:
    """Of a database file that is open to all, the operator is told the mode and what to do."""
    store = SqliteStore(tmp_path / "cache.db", 16 * MB, SystemClock(), evict="size")
    tier = StoreTier(store, kind="database", capacity_bytes=16 * MB, clock=SystemClock())
    await tier.open()
    try:
        assert of(await tier.diagnose(), "database: permissions").severity is Severity.OK
        (tmp_path / "cache.db").chmod(0o644)
        found = of(await tier.diagnose(), "database: permissions")
    finally:
        await tier.close()
    assert found.severity is Severity.ADVICE
    assert "0644" in found.sentence
    assert found.fix


async def test_a_clock_that_was_set_back_is_noticed(tmp_path: Path) -> None:
    """A file of the store that was written in the future says that the clock was moved."""
    tier = disk_tier(tmp_path / "cache", 64 * MB, SystemClock())
    await tier.open()
    try:
        later = time.time() + 3_600
        os.utime(tmp_path / "cache" / ".gitignore", (later, later))
        found = of(await tier.diagnose(), "disk: clock")
    finally:
        await tier.close()
    assert found.severity is Severity.ADVICE
    assert "future" in found.sentence


async def test_a_tier_that_is_down_is_one_fault_with_its_reason(tmp_path: Path) -> None:
    """Where the store cannot be opened, the reason is the finding."""
    (tmp_path / "cache").write_text("in the way", encoding="utf-8")
    tier = disk_tier(tmp_path / "cache", 64 * MB, SystemClock())
    await tier.open()
    try:
        (found,) = await tier.diagnose()
    finally:
        await tier.close()
    assert found.severity is Severity.FAULT
    assert str(tmp_path / "cache") in found.sentence or "not a directory" in found.sentence


async def test_a_store_whose_folder_went_away_is_a_finding(tmp_path: Path) -> None:
    """A folder that somebody deleted under a running cache is said so, and nothing raises."""
    tier = disk_tier(tmp_path / "cache", 64 * MB, SystemClock())
    await tier.open()
    try:
        (tmp_path / "cache").rename(tmp_path / "elsewhere")
        findings = await tier.diagnose()
    finally:
        await tier.close()
    assert Severity.FAULT in [finding.severity for finding in findings]


@pytest.mark.parametrize(
    ("volume", "severity"),
    [
        (Volume("ext4", MB * 1000), Severity.OK),
        (Volume("", MB * 1000), Severity.OK),
        (Volume("nfs4", MB * 1000), Severity.FAULT),
        (Volume("tmpfs", MB * 1000), Severity.ADVICE),
        (Volume("overlay", MB * 1000), Severity.ADVICE),
    ],
)
def test_a_file_system_is_judged_by_its_kind(volume: Volume, severity: Severity) -> None:
    """A network file system is a fault, one that forgets is worth a word."""
    found = of(judged(msgspec.structs.replace(SOUND, volume=volume)), "disk: file system")
    assert found.severity is severity
    assert (found.fix == "") is (severity is Severity.OK)


@pytest.mark.parametrize(("free_mb", "severity"), [(10, Severity.FAULT), (70, Severity.ADVICE), (1_000, Severity.OK)])
def test_free_space_is_compared_with_what_the_tier_may_still_take(free_mb: int, severity: Severity) -> None:
    """Too little for anything is a fault, too little for the tier's whole size is advice."""
    place = msgspec.structs.replace(SOUND, volume=Volume("ext4", free_mb * MB))
    found = of(judged(place), "disk: free space")
    assert found.severity is severity
    assert f"{free_mb:,}.0 MB" in found.sentence


def test_a_folder_that_cannot_be_written_to_is_a_fault() -> None:
    """Reads go on and nothing new comes: the operator has to know."""
    found = of(judged(msgspec.structs.replace(SOUND, is_writable=False)), "disk: permissions")
    assert found.severity is Severity.FAULT
    assert "only reads" in found.sentence


def test_damage_and_overweight_are_advised_on() -> None:
    """Counts of damage and a size beyond the limit are told with their figures."""
    stats = StoreStats(entries=3, size_bytes=120 * MB, capacity_bytes=100 * MB, damaged=7, rebuilt=1)
    assert "7 damaged" in of(judged(stats=stats), "disk: health").sentence
    assert of(judged(stats=stats), "disk: size").severity is Severity.ADVICE


def test_a_clock_that_was_never_set_is_a_fault() -> None:
    """In 1970 nothing expires that was stored today."""
    assert of(judged(wall_s=100.0), "disk: clock").severity is Severity.FAULT
