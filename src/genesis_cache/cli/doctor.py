"""The command doctor: each configured tier examined, and what is wrong said in a sentence with its fix."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genesis_cache.cache import Cache
from genesis_cache.cli.options import Json, Urls, place
from genesis_cache.cli.output import COULD_NOT, DONE, emit, table
from genesis_cache.cli.session import with_cache
from genesis_cache.model.finding import Finding, Severity

_MARKS = {
    Severity.OK: Text("✓ ok", "green"),
    Severity.ADVICE: Text("! advice", "yellow"),
    Severity.FAULT: Text("✗ fault", "bold red"),
}


def doctor(urls: Urls = None, as_json: Json = False) -> int:
    """Examine each tier and say what is wrong, and what to do; exit code 1 if anything is."""

    async def work(cache: Cache) -> list[Finding]:
        return await cache.diagnose()

    findings = with_cache(place(urls), work)
    healthy = all(finding.severity is not Severity.FAULT for finding in findings)
    emit({"healthy": healthy, "findings": findings}, as_json, lambda console: _show(console, findings))
    return DONE if healthy else COULD_NOT


def _show(console: Console, findings: Sequence[Finding]) -> None:
    console.print(_table(findings))
    faults = sum(finding.severity is Severity.FAULT for finding in findings)
    advice = sum(finding.severity is Severity.ADVICE for finding in findings)
    console.print(f"{_counted(faults, 'fault')}, {advice} to advise on, {len(findings) - faults - advice} well")


def _table(findings: Sequence[Finding]) -> Table:
    shown = table((), ())
    shown.add_column("", no_wrap=True)
    for name in ("what", "found, and what to do"):
        shown.add_column(name, overflow="fold")
    for finding in findings:
        told = Text(finding.sentence)
        if finding.fix:
            told.append(f"\n→ {finding.fix}", "italic")
        shown.add_row(_MARKS[finding.severity], Text(finding.subject), told)
    return shown


def _counted(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
