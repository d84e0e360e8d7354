"""Where the demo shows itself: a live terminal, plain lines where there is none, or nowhere."""

import sys
from collections.abc import Sequence
from typing import Protocol

from genesis_cache.demo.load import Progress
from genesis_cache.demo.words import Words

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError:  # the extra "cli" is not there: lines are plain
    HAS_RICH = False
else:
    HAS_RICH = True

Row = tuple[str, str, str, str]

WIDTH = 80
_LABEL = 12


class Screen(Protocol):
    """What the story is told on."""

    def heading(self, text: str) -> None:
        """Begin a part."""

    def say(self, text: str, style: str = "", /) -> None:
        """One line."""

    def running(self, label: str, progress: Progress, hit_ratio: float | None) -> None:
        """How far a run has come; called many times a second. With all done it is the last call for this run."""

    def table(self, head: Row, rows: Sequence[Row]) -> None:
        """The figures side by side."""


def screen(words: Words, *, silent: bool) -> Screen:
    """The best screen that standard output allows."""
    if silent:
        return SilentScreen()
    return RichScreen(words) if HAS_RICH and sys.stdout.isatty() else PlainScreen(words)


class SilentScreen:
    """Shows nothing."""

    def heading(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str, style: str = "", /) -> None:
        """Nothing."""

    def running(self, label: str, progress: Progress, hit_ratio: float | None) -> None:
        """Nothing."""

    def table(self, head: Row, rows: Sequence[Row]) -> None:
        """Nothing."""


class PlainScreen:
    """Lines without colour, one for each fifth of a run."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._next_done = 0

    def heading(self, text: str) -> None:
        """A blank line, then the text."""
        self.say("")
        self.say(text)

    def say(self, text: str, _style: str = "", /) -> None:
        """The line at once, also into a pipe."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def running(self, label: str, progress: Progress, hit_ratio: float | None) -> None:
        """A line when another fifth is done."""
        if progress.done >= self._next_done:
            self.say(f"{label:<{_LABEL}}{_status(self._words, progress, hit_ratio)}")
            self._next_done += max(1, progress.total // 5)
        if progress.done == progress.total:
            self._next_done = 0

    def table(self, head: Row, rows: Sequence[Row]) -> None:
        """Columns made with spaces."""
        for label, *cells in (head, *rows):
            self.say(f"  {label:<32}" + "".join(f"{cell:>14}" for cell in cells))


class RichScreen:
    """A terminal: bars that move, colours, a framed table."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._console = Console(highlight=False)
        self._live: Live | None = None

    def heading(self, text: str) -> None:
        """A rule with the text in it."""
        self._console.print()
        self._console.rule(Text(text, "bold"), align="left", style="cyan")

    def say(self, text: str, style: str = "", /) -> None:
        """The line, wrapped to the terminal."""
        self._console.print(Text(text, style))

    def running(self, label: str, progress: Progress, hit_ratio: float | None) -> None:
        """One line that is drawn again in place."""
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(progress.total, progress.done, width=24, complete_style="cyan", finished_style="green")
        line.add_row(Text(f"{label:<{_LABEL}}", "bold"), bar, _status(self._words, progress, hit_ratio))
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(Group(line), refresh=True)
        if progress.done == progress.total:
            self._live.stop()
            self._live = None

    def table(self, head: Row, rows: Sequence[Row]) -> None:
        """The change in green."""
        shown = Table(width=min(WIDTH, self._console.width), border_style="cyan", header_style="bold")
        for number, name in enumerate(head):
            style = ("", "", "bold", "bold green")[number]
            shown.add_column(name, justify="right" if number else "left", style=style, no_wrap=True)
        for row in rows:
            shown.add_row(*row)
        self._console.print(shown)


def _status(words: Words, progress: Progress, hit_ratio: float | None) -> str:
    done = words.number(progress.done)
    pace = words.number(progress.done / progress.seconds) if progress.seconds else "0"
    hits = "" if hit_ratio is None else f"   {words.hits} {words.percent(hit_ratio)}"
    return f"{done:>7}   {pace:>6}/s{hits}"
