"""How commands speak: one JSON document or a table on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from genesis_cache.model.errors import CacheError

DONE = 0
COULD_NOT = 1
BAD_USAGE = 2
_WHOLE = 1000  # from here a figure is shown without decimals

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


def plain(value: object) -> Any:  # JSON has no type of its own
    """The value as JSON types; bytes in base64, what JSON has no word for as Python writes it."""
    return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, title: str | None = None) -> Table:
    """A table whose first column is a name and whose others are figures."""
    shown = Table(title=title, title_justify="left", border_style="cyan", header_style="bold")
    for number, name in enumerate(columns):
        shown.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    return shown


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


def exit_code_of(error: CacheError) -> int:
    """2 where the caller's words were wrong (`InvalidKey`, `SettingsError`), 1 where it could not be done."""
    return BAD_USAGE if isinstance(error, ValueError) else COULD_NOT
