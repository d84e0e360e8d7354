"""The commands together, and what becomes of their errors: one sentence and an exit code, never a traceback."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from genesis_cache import __version__
from genesis_cache.cli import doctor, entries, inspect, play, serve
from genesis_cache.cli.output import COULD_NOT, DONE, INTERRUPTED, UsageError, complain, exit_code_of
from genesis_cache.model.errors import CacheError

app = typer.Typer(
    name="genesis-cache",
    no_args_is_help=True,
    help="One cache over memory, disk, Redis and a database.",
    epilog="Exit codes: 0 done, 1 could not be done, 2 bad usage. Tiers come from --url or the environment.",
)
for _name, _command in (
    ("demo", play.demo),
    ("serve", serve.serve),
    ("stats", inspect.stats),
    ("get", entries.get),
    ("set", entries.set_),
    ("delete", entries.delete),
    ("invalidate", entries.invalidate),
    ("clear", entries.clear),
    ("explain", inspect.explain),
    ("doctor", doctor.doctor),
    ("simulate", play.simulate),
    ("bench", play.bench),
):
    app.command(_name)(_command)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # typer passes it so
    if wanted:
        sys.stdout.write(__version__ + "\n")
        raise typer.Exit


@app.callback()
def _whole(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options before any command."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name; None: the process's own); the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a key or value the terminal cannot show stops nothing
    try:
        return int(app(arguments, prog_name="genesis-cache", standalone_mode=False) or DONE)
    except (TyperException, UsageError, CacheError, Abort) as error:
        complain(_sentence(error))
        return exit_code_of(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; leaving flushes into nothing
        return COULD_NOT
    except KeyboardInterrupt:
        return INTERRUPTED


def _sentence(error: Exception) -> str:
    if isinstance(error, Abort):
        return "stopped: nothing was done"
    told = error.format_message() if isinstance(error, TyperException) else str(error)
    return told or "say what to do: genesis-cache --help lists the commands"
