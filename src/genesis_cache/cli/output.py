"""How commands speak: one JSON document or a table on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Callable, Iterable

from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

from genesis_cache.model.plain import plain

DONE = 0
COULD_NOT = 1
BAD_USAGE = 2
_WHOLE = 1000  # from here a figure is shown without decimals
_STEP = 1024  # a MB is 2^20 bytes, as in the settings
_WHOLE_AMOUNT = 100

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class UsageError(Exception):
    """The command line asks for what cannot be; the message says what to write instead."""


def emit(document: object, as_json: bool, show: Callable[[Console], None]) -> None:  # noqa: FBT001  # it is --json
    """Print the document as JSON or let ``show`` print it for a person."""
    if as_json:
        sys.stdout.write(json.dumps(plain(document), ensure_ascii=False) + "\n")
    else:
        show(Console(highlight=False))


def complain(sentence: str) -> None:
    """One sentence on standard error."""
    sys.stderr.write(f"genesis-cache: {sentence}\n")


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, title: str | None = None) -> Table:
    """A table whose first column is a name and whose others are figures."""
    shown = Table(title=title, title_justify="left", border_style="cyan", header_style="bold", box=ROUNDED)
    for number, name in enumerate(columns):
        shown.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    return shown


def amount(size_bytes: float | None) -> str | None:
    """Bytes as a person reads them; None stays None."""
    if size_bytes is None:
        return None
    size, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < _STEP:
            break
        size, unit = size / _STEP, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= _WHOLE_AMOUNT else f"{size:.1f} {unit}"


def lapse(seconds: float | None) -> str | None:
    """A length of time as a person reads it; None stays None."""
    if seconds is None:
        return None
    whole = abs(int(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    told = [f"{number}{unit}" for number, unit in parts if number][:2]
    return ("-" if seconds < 0 else "") + (" ".join(told) or f"{abs(seconds):.1f}s")


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.4g}" if abs(value) < _WHOLE else f"{value:,.0f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def exit_code_of(error: Exception) -> int:
    """2 where the words were wrong (`UsageError`, `InvalidKey`, `SettingsError`), 1 where it could not be done."""
    if isinstance(error, TyperException):
        return error.exit_code
    return BAD_USAGE if isinstance(error, UsageError | ValueError) else COULD_NOT
